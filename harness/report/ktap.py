"""Results as the kernel's own test tools read them: KTAP version 1, while they come in.

Documentation/dev-tools/ktap.rst: a version line, a plan, then for each test its diagnostic lines
and its result. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bootproof.harness.guest.tap import GuestTest
from bootproof.harness.report import failure
from bootproof.harness.results.results import CaseResult, Check
from bootproof.printable import one_line

_DIRECTIVES: Final = {"error": "ERROR", "skipped": "SKIP"}


def header(total: int) -> str:
    """The version line and the plan."""
    return f"KTAP version 1\n1..{total}"


def result(number: int, name: str, items: Sequence[CaseResult | Check]) -> str:
    """The lines of one test, of which one or more results are known."""
    bad = [item for item in items if item.bad]
    lines = [f"# {line}" for item in bad for line in failure.lines(item)]
    lines += [f"# {line}" for item in items for line in failure.complaints(item)]
    lines += _guest_tests([item for item in items if isinstance(item, CaseResult)])
    shown = [*bad, *items][:1]
    word = "not ok" if bad or not items else "ok"
    said = _said(shown[0]) if shown else "ERROR no result"
    return "\n".join([*lines, f"{word} {number} {_plain(name)} # {_plain(said)}"])


def _guest_tests(cases: Sequence[CaseResult]) -> list[str]:
    """What ran in the guests, as a test of its own inside of this one."""
    tests = [test for case in cases for test in case.tests]
    if not tests:
        return []
    results = (_guest_test(number, test) for number, test in enumerate(tests, start=1))
    return ["  KTAP version 1", f"  1..{len(tests)}", *(f"  {line}" for line in results)]


def _guest_test(number: int, test: GuestTest) -> str:
    word = "not ok" if test.status in ("failed", "expected-failure") else "ok"
    directive = {"skipped": "SKIP ", "expected-failure": "XFAIL "}.get(test.status, "")
    remark = f" # {directive}{_plain(test.why)}" if directive or test.why else ""
    return f"{word} {number} {_plain(test.name)}{remark}".rstrip()


def _said(item: CaseResult | Check) -> str:
    if isinstance(item, CaseResult) and item.outcome not in _DIRECTIVES:
        return item.summary
    word = _DIRECTIVES.get(item.outcome, item.outcome)
    return f"{word} {item.summary}" if item.summary != item.outcome else word


def _plain(text: str) -> str:
    """One line without the sign that begins a directive."""
    return one_line(text).replace("#", "_")
