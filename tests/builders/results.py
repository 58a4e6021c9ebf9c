"""Results of matrix runs that never ran, as small or as large as a test wants them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from bootproof.harness.guest.stages import Stage
from bootproof.harness.guest.tap import GuestTest, Status
from bootproof.harness.results import results
from bootproof.harness.results.key import Key
from bootproof.harness.results.results import (
    Area,
    CaseResult,
    Check,
    Expected,
    Kernel,
    Memory,
    Part,
    Register,
    Results,
    Run,
)
from bootproof.loader.address import MIB

HOSTILE: Final = "]]>\x00\x1b[2J\ufffe</failure>&<b>```\n| a | b |\n# h\n\ud7ff"
LOG: Final = (
    b"[    0.000000] Linux version 6.1\r\n[    0.500000] Memory: up\r\nbootproof: proof 11\r\n"
)
KEY: Final = Key("7.2.22", "q35", "qemu64", 512 * MIB, 1, 3, True, "file", "default", "11" * 32)
KEY_OF_ANOTHER_QEMU: Final = replace(KEY, qemu="10.0.2")
STAGES: Final = (
    Stage("entry", 0, None),
    Stage("banner", 400_000_000, 0.0),
    Stage("memory", 500_000_000, 0.5),
    Stage("proof", 1_200_000_000, None),
)


def case(claim: str = "elf-pvh-none", kernel: str = "6.1", **others: Any) -> CaseResult:
    """A case that booted, but for what `others` says."""
    return replace(
        CaseResult(
            case=f"x86_64-{kernel}-{claim}",
            arch="x86_64",
            kernel=Kernel(kernel, "ab" * 32, f"{kernel}.0-amd64"),
            claim=claim,
            expected=Expected("booted", ""),
            verdict="booted",
            reason="it proved its boot",
            code=None,
            problem=None,
            unsafe=False,
            protocol="pvh",
            entry=0x1000850,
            seconds=1.25,
            harness_seconds=0.25,
            cpu_seconds=0.9,
            instructions=1_300_000_000,
            stages=STAGES,
            key=KEY,
            evidence={"release": ("6.1.0",), "ram": ("00001000-0009fbff", "00100000-1fffffff")},
            proof="cd" * 32,
            findings=(),
            registers=(
                Register("rip", "0x1000850", "0x1000850", True),
                Register("rax", "0x0", "0x1", False),
            ),
            memory=Memory(
                (Area("RAM bank 0", 0, 512 * MIB),),
                (Area("kernel", 16 * MIB, 46 * MIB), Area("initrd", 510 * MIB, 2 * MIB - 4096)),
            ),
            transcript=results.transcript(LOG),
            log=None,
            cmdline="console=ttyS0",
            reproduce="./bootproof matrix -k x",
            directory="build/matrix/x",
        ),
        **others,
    )


def failed(claim: str = "elf-linux64-none", kernel: str = "6.1", **others: Any) -> CaseResult:
    """A case that is not as expected."""
    reason = "kernel panic: VFS: Unable to mount root fs"
    wrong = {"verdict": "panic", "reason": reason, "problem": f"panic instead of booted: {reason}"}
    return case(claim, kernel, **(wrong | others))


def tested(claim: str = "elf-pvh-tests", **others: Any) -> CaseResult:
    """A case in whose guest four tests ran, one of which failed."""
    tests = (
        GuestTest("suite / one", Status.PASSED),
        GuestTest("suite / two", Status.FAILED, "EXPECTATION FAILED at x.c:1"),
        GuestTest("suite / three", Status.SKIPPED, "no RTC"),
        GuestTest("four", Status.EXPECTED_FAILURE),
    )
    problem = "tests-failed instead of booted: 1 of 4 tests failed"
    known = {"verdict": "tests-failed", "problem": problem, "tests": tests}
    return case(claim, **{**known, **others})


def unknown(claim: str = "elf-linux64-none", kernel: str = "6.1", **others: Any) -> CaseResult:
    """A case of which nobody can say how it would have ended."""
    reason = "QEMU was stopped by a signal or a debugger"
    problem = f"inconclusive instead of booted: {reason}"
    wrong = {"verdict": "inconclusive", "reason": reason, "problem": problem}
    return case(claim, kernel, **(wrong | others))


def refused(claim: str = "elf-linux64-+1M", kernel: str = "6.1", **others: Any) -> CaseResult:
    """A case that was refused, as expected; nothing ran."""
    nothing = {
        "expected": Expected("load-refused", ""),
        "verdict": "load-refused",
        "reason": "the offset is no multiple of 2 MiB",
        "code": "Protocol::Refused",
        "stages": (),
        "evidence": {},
        "registers": (),
    }
    for name in ("key", "protocol", "entry", "cpu_seconds", "instructions", "proof"):
        nothing[name] = None
    return case(claim, kernel, **(nothing | {"memory": None, "transcript": None} | others))


def run(*cases: CaseResult, checks: tuple[Check, ...] = (), **others: Any) -> Results:
    """A run that came to its end."""
    return replace(
        Results(
            format=results.FORMAT,
            version=results.VERSION,
            bootproof="0.1.0",
            started="2026-01-31T23:59:59Z",
            seconds=12.5,
            complete=True,
            cases=cases,
            checks=checks,
            run=Run("1f" * 16, None, "./bootproof matrix", "ee" * 32, len(cases), None),
        ),
        **others,
    )


def shard(
    number: int,
    *cases: CaseResult,
    of: int = 2,
    shared_id: str | None = None,
    selection: str = "./bootproof matrix",
    selected: str = "ee" * 32,
    **others: Any,
) -> Results:
    """A part of a run that came to its end."""
    about = Run(f"{number:032x}", shared_id, selection, selected, len(cases), Part(number, of))
    return run(*cases, **{"run": about, **others})


def mixed(**others: Any) -> Results:
    """A run with everything: a case that booted, one that failed as `others` says, one that was
    refused; tests that passed, failed, broke and were skipped.
    """
    log = results.transcript(b"\x1b[31mred\x1b[0m\r\nbroken \xff\r\n")
    checks = (
        Check("test_a.py::test_ok", "passed", "", 0.5),
        Check("test_a.py::test_no", "failed", "AssertionError: one\nline two", 0.5),
        Check("test_a.py::test_broken", "error", "no QEMU", 0.0),
        Check("test_a.py::test_skipped", "skipped", "no compiler", 0.0),
    )
    wrong = failed(transcript=log, **others)
    return run(case(), wrong, refused(kernel="6.12"), checks=checks)


def saved(path: Path, *cases: CaseResult, **others: Any) -> str:
    """A results.json with these cases; its path."""
    results.write(run(*cases, **others), path)
    return str(path)
