"""A matrix run for KCIDB, where the kernel's CI systems report: its I/O schema, version 5.3. Pure.

A build for each kernel, a test for each case and for each test that ran in its guest. A case that
says nothing of the guest is no failure there: the harness failed (MISS), or nobody knows (ERROR).

Source: kcidb-io, kcidb_io/schema/v05_03.py; the tests validate by it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any, Final

from bootproof.harness.guest.tap import SEPARATOR, GuestTest
from bootproof.harness.judgement import ERROR, SKIPPED
from bootproof.harness.results.results import CaseResult, Results
from bootproof.harness.verdict import Verdict
from bootproof.loader.address import counted

VERSION: Final = {"major": 5, "minor": 3}
_ORIGIN: Final = re.compile(r"[a-z0-9_]+")
_BUILD: Final = re.compile(r"[a-z0-9_]+:[^\0]*")
_NOT_IN_PATHS: Final = re.compile(r"[^A-Za-z0-9_-]+")
_EXCERPT: Final = 16384  # characters
_ROOT: Final = "bootproof"
OURS: Final = re.compile(rb'"path": "bootproof[."]|"tests": \[\]').search
"""By which a report is told from another program's."""
_GUEST: Final = {
    "passed": "PASS",
    "failed": "FAIL",
    "skipped": "SKIP",
    "expected-failure": "DONE",
}


def render(results: Results, origin: str, build: str | None = None) -> dict[str, Any]:
    """The report of CI system `origin`, as KCIDB takes it.

    `build` is the identifier of a build that was reported already; without one there is a build,
    and a checkout, for each kernel. Raises ValueError for names that KCIDB cannot have.
    """
    if not _ORIGIN.fullmatch(origin):
        raise ValueError(f"{origin!r} is no name of a CI system: letters a-z, digits and _ only")
    if build is not None and not _BUILD.fullmatch(build):
        raise ValueError(f"{build!r} is no identifier of a build: it is like {origin}:123")
    made = [*_tests(results, origin, build)]
    report: dict[str, Any] = {"version": VERSION, "tests": made}
    if build is None:
        kernels = {case.kernel.name: case for case in results.cases}
        report["checkouts"] = [_checkout(origin, case) for case in kernels.values()]
        report["builds"] = [_build(origin, case) for case in kernels.values()]
    return report


def _checkout(origin: str, case: CaseResult) -> dict[str, Any]:
    kernel = case.kernel
    return {
        "id": _kernel_id(origin, case),
        "origin": origin,
        "comment": _text(kernel.release or kernel.name),
    }


def _build(origin: str, case: CaseResult) -> dict[str, Any]:
    identity = _kernel_id(origin, case)
    return {
        "id": identity,
        "checkout_id": identity,
        "origin": origin,
        "architecture": case.arch,
        "comment": _text(case.kernel.name),
        "misc": {"sha256": case.kernel.sha256},
    }


def _kernel_id(origin: str, case: CaseResult) -> str:
    return f"{origin}:{_text(case.kernel.sha256 or case.kernel.name)}"


def _tests(results: Results, origin: str, build: str | None) -> Iterator[dict[str, Any]]:
    for case in results.cases:
        known = {
            "origin": origin,
            "build_id": build or _kernel_id(origin, case),
            "start_time": results.started,
        }
        path = f"{_ROOT}.{_path(case.arch)}.{_path(case.claim)}"
        yield known | _case(results, origin, case, path)
        for number, test in enumerate(case.tests):
            yield known | _guest_test(results, origin, case, number, test, path)


def _case(results: Results, origin: str, case: CaseResult, path: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "id": _id(origin, results, case.case),
        "path": path,
        "status": _status(case),
        "duration": case.seconds,
        "comment": _text(f"{case.kernel.name}: {case.problem or case.reason}"),
        "log_excerpt": "\n".join(case.transcript.lines)[-_EXCERPT:] if case.transcript else "",
        "misc": {"verdict": case.verdict, "expected": case.expected.verdict, "run": case.reproduce},
    }
    if case.instructions is not None:
        made["number"] = {"value": case.instructions, "unit": "instructions", "prefix": "metric"}
    if case.key is not None:
        cpus = counted(case.key.cpus, "CPU")
        about = f"QEMU {case.key.qemu}, {case.key.machine}, {case.key.cpu}, {cpus}"
        made["environment"] = {"comment": about, "misc": {"memory": case.key.memory}}
    return made


def _guest_test(
    results: Results, origin: str, case: CaseResult, number: int, test: GuestTest, path: str
) -> dict[str, Any]:
    inner = ".".join(map(_path, test.name.split(SEPARATOR)))
    return {
        "id": _id(origin, results, f"{case.case} {number} {test.name}"),
        "path": f"{path}.{inner}",
        "status": _GUEST[test.status],
        "comment": _text(str(test)),
    }


def _status(case: CaseResult) -> str:
    if case.outcome == ERROR:
        return "MISS" if case.verdict == Verdict.QEMU_FAILED.value else "ERROR"
    if case.outcome == SKIPPED:
        return "SKIP"
    return "FAIL" if case.bad else "PASS"


def _path(name: str) -> str:
    return _NOT_IN_PATHS.sub("_", name).strip("_") or "unnamed"


def _text(text: str) -> str:
    return text.replace("\0", "")


def _id(origin: str, results: Results, name: str) -> str:
    """The same whenever the same run is reported."""
    return f"{origin}:{hashlib.sha256(f'{results.started} {name}'.encode()).hexdigest()[:32]}"
