"""junit.xml as GitLab, Jenkins and the reporters of GitHub read it.

A suite for each kernel, a test for each case. Their readers agree on little: no attribute and no
element is used that one of them refuses, so what there is to say of a case beyond its failure
stands in its output, and in properties of the suite (`CLAIM.verdict`). Pure.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from typing import Final

from bootproof.harness.report import failure
from bootproof.harness.results.results import CaseResult, Check, Results

# What XML 1.0 cannot hold, not even escaped (section 2.2).
_INVALID: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_OTHER: Final = "other tests"
_MESSAGE_LIMIT: Final = 1000  # characters; readers show it in one line


def render(results: Results) -> str:
    """The file."""
    root = ET.Element("testsuites", {"name": "bootproof"})
    for name, cases in _suites(results.cases):
        _suite(root, results, name, cases)
    if results.checks:
        _checks(root, results, results.checks)
    for count in ("tests", "failures", "errors"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in root)))
    root.set("time", _seconds(results.seconds))
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, "unicode") + "\n"


def _suites(cases: Iterable[CaseResult]) -> list[tuple[str, list[CaseResult]]]:
    found: dict[str, list[CaseResult]] = {}
    for case in sorted(cases, key=lambda case: (case.arch, case.kernel.name, case.claim)):
        found.setdefault(f"{case.arch}.{case.kernel.name}", []).append(case)
    return list(found.items())


def _suite(root: ET.Element, results: Results, name: str, cases: Sequence[CaseResult]) -> None:
    suite = _opened(root, results, name, cases)
    suite.set("failures", str(sum(not case.as_expected for case in cases)))
    properties = ET.SubElement(suite, "properties")
    for key, value in _facts(cases):
        ET.SubElement(properties, "property", {"name": _text(key), "value": _text(value)})
    for case in cases:
        test = _test(suite, name, case.claim, case.seconds)
        if case.problem is not None:
            _fault(test, "failure", case.verdict, case.problem, _failure(case))
        ET.SubElement(test, "system-out").text = _text(_output(case))


def _checks(root: ET.Element, results: Results, checks: Sequence[Check]) -> None:
    suite = _opened(root, results, _OTHER, checks)
    for kind, outcome in (("failures", "failed"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(kind, str(sum(check.outcome == outcome for check in checks)))
    for check in checks:
        test = _test(suite, _OTHER, check.name, check.seconds)
        if check.bad:
            kind = "failure" if check.outcome == "failed" else "error"
            first = next(iter(check.text.splitlines()), check.outcome)
            _fault(test, kind, check.outcome, first, check.text)
        elif check.outcome == "skipped":
            ET.SubElement(test, "skipped", {"message": _text(check.text)})


def _opened(
    root: ET.Element, results: Results, name: str, tests: Sequence[CaseResult | Check]
) -> ET.Element:
    seconds = _seconds(sum(test.seconds for test in tests))
    counts = {"tests": str(len(tests)), "failures": "0", "errors": "0", "skipped": "0"}
    when = results.started.removesuffix("Z")
    return ET.SubElement(
        root, "testsuite", {"name": _text(name), "time": seconds, "timestamp": _text(when)} | counts
    )


def _test(suite: ET.Element, class_: str, name: str, seconds: float) -> ET.Element:
    attributes = {"classname": f"bootproof.{_text(class_)}", "name": _text(name)}
    return ET.SubElement(suite, "testcase", attributes | {"time": _seconds(seconds)})


def _fault(test: ET.Element, tag: str, kind: str, message: str, text: str) -> None:
    short = _text(message)[:_MESSAGE_LIMIT]
    ET.SubElement(test, tag, {"type": _text(kind), "message": short}).text = _text(text)


def _facts(cases: Sequence[CaseResult]) -> Iterable[tuple[str, str]]:
    kernel = cases[0].kernel
    yield "kernel", kernel.name
    if kernel.sha256:
        yield "kernel.sha256", kernel.sha256
    for qemu in sorted({case.key.qemu for case in cases if case.key}):
        yield "qemu", qemu
    for case in cases:
        yield f"{case.claim}.verdict", case.verdict
        if case.instructions is not None:
            yield f"{case.claim}.instructions", str(case.instructions)


def _failure(case: CaseResult) -> str:
    first = [f"{case.verdict}: {case.reason}", f"expected: {case.expected.verdict}"]
    return "\n".join([*first, *failure.lines(case)])


def _output(case: CaseResult) -> str:
    lines = [f"verdict: {case.verdict}", f"reason: {case.reason}"]
    lines += [f"code: {case.code}"] if case.code else []
    lines += [f"instructions: {case.instructions}"] if case.instructions is not None else []
    return "\n".join([*lines, f"reproduce: {case.reproduce}"])


def _text(text: str) -> str:
    return _INVALID.sub("", text)


def _seconds(value: float) -> str:
    return f"{value:.3f}"
