"""Whether a case ended as it had to, and if not, what is wrong: the one place that decides it.

Pure. `bootproof.harness.judge` says how a run ended; this holds it against what the case expects.
Terminal, page, JUnit, KTAP, summary and exit code show what is said here.
"""

from __future__ import annotations

from typing import Final

from bootproof.dataclass import dataclass
from bootproof.harness.case import Expectation
from bootproof.harness.verdict import OF_HOST, Verdict
from bootproof.loader.result import PvhState

PASSED: Final = "passed"
FAILED: Final = "failed"
ERROR: Final = "error"  # nobody can say whether the guest is to blame
SKIPPED: Final = "skipped"
BAD: Final = (FAILED, ERROR)
OUTCOMES: Final = (PASSED, FAILED, ERROR, SKIPPED)


def came_to(verdict: str, problem: str | None) -> str:
    """What a case came to, by its verdict and what `judge_case` says is wrong with it."""
    if problem is None:
        return PASSED
    return ERROR if verdict in OF_HOST else FAILED


@dataclass(frozen=True, slots=True)
class CaseEnd:
    """How a case ended, as far as a case can expect something of it."""

    verdict: Verdict
    reason: str
    code: str | None = None  # of the loader's error, when it refused
    # Of a kernel that was loaded: what the loader says of its PVH entry, and the protocol taken.
    pvh: PvhState | None = None
    protocol: str | None = None
    complaint: str | None = None  # of the kernel, where the case must have none


def judge_case(expect: Expectation, end: CaseEnd) -> str | None:
    """What is not as the case expects, in one sentence; None when all is."""
    if end.verdict is not expect.verdict:
        return f"{end.verdict.value} instead of {expect.verdict.value}: {end.reason}"
    if expect.code is not None and end.code != expect.code:
        return f"refused with {end.code} instead of {expect.code}: {end.reason}"
    if expect.reason is not None and expect.reason not in end.reason:
        return f"the reason does not say {expect.reason!r}: {end.reason}"
    if end.complaint is not None and end.verdict.passed:
        return f"the kernel complained: {end.complaint}"
    if end.pvh is None:
        return None
    if expect.pvh is not None and end.pvh is not expect.pvh:
        return f"the PVH capability is {end.pvh.value}, not {expect.pvh.value}"
    if expect.protocol is not None and end.protocol != expect.protocol:
        return f"the protocol taken is {end.protocol}, not {expect.protocol}"
    return None
