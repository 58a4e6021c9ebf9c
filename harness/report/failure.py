"""What a reader of a CI log needs of one failure, the same in every output. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from bootproof.harness.judgement import ERROR
from bootproof.harness.results.results import CaseResult, Check
from bootproof.harness.text import without_numbers
from bootproof.loader.address import counted

_MOST_TESTS: Final = 50  # of a guest, that are named


def lines(item: CaseResult | Check) -> list[str]:
    """The last words of a guest, how to run it again and where all of it is; or a test's text."""
    if isinstance(item, Check):
        return item.text.splitlines()
    words: list[str] = []
    if item.tail:
        words = ["last console lines:", *(f"  | {line}" for line in item.tail)]
    elif item.log:
        words = ["the log buffer in RAM ends:", *(f"  | {line}" for line in item.log.tail)]
    failed = [f"test failed: {test}" for test in item.failed_tests[:_MOST_TESTS]]
    more = len(item.failed_tests) - len(failed)
    failed += [f"and {counted(more, 'more test')}"] if more else []
    return [*failed, *words, f"reproduce: {item.reproduce}", f"run directory: {item.directory}"]


def mark(outcome: str) -> str:
    """The sign of what is not as expected: nobody can tell, or it is wrong."""
    return "?" if outcome == ERROR else "✗"


def said(outcome: str) -> str:
    """What a case is that is not as expected, in three words."""
    return "cannot be told" if outcome == ERROR else "not as expected"


def complaints(item: CaseResult | Check) -> list[str]:
    """What the kernel complained of, a line each."""
    found = item.complaints if isinstance(item, CaseResult) else ()
    return [f"complaint: {complaint.kind}: {complaint}" for complaint in found]


def alike(items: Iterable[CaseResult | Check]) -> list[list[CaseResult | Check]]:
    """Failures by what is wrong, numbers in it aside; each group where its first one is."""
    groups: dict[str, list[CaseResult | Check]] = {}
    for item in items:
        same = _without_its_id(item) if isinstance(item, Check) else item.problem
        key = without_numbers(same or "")
        groups.setdefault(key, []).append(item)
    return list(groups.values())


def _without_its_id(check: Check) -> str:
    """What a test says; of a case that came to no result, all but the case's own name."""
    case = check.name.partition("[")[2].removesuffix("]")
    return check.text.removeprefix(f"{case}: ") or check.name


def names(group: Sequence[CaseResult | Check]) -> list[str]:
    """Each of a group, with its own sentence where its numbers are not those of the first."""
    first = _problem(group[0])
    return [
        item.name if _problem(item) == first else f"{item.name}: {_problem(item)}" for item in group
    ]


def block(group: Sequence[CaseResult | Check]) -> str:
    """All of failures that are alike: what is wrong, with which, and `lines` of the first."""
    first = group[0]
    if len(group) == 1:
        return text(first)
    kinds = {"tests" if isinstance(item, Check) and not item.of_case else "cases" for item in group}
    head = f"{len(group)} {' and '.join(sorted(kinds))}: {_problem(first)}"
    named = [f"  {name}" for name in names(group)]
    return "\n".join([head, *named, "the first of them:", *lines(first)])


def text(item: CaseResult | Check) -> str:
    """All of a failure: what is wrong with which case or test, then `lines`."""
    return "\n".join([f"{item.name}: {_problem(item)}", *lines(item)])


def _problem(item: CaseResult | Check) -> str | None:
    return item.outcome if isinstance(item, Check) else item.problem
