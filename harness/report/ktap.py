"""Results as the kernel's own test tools read them: KTAP version 1, while they come in.

Documentation/dev-tools/ktap.rst: a version line, a plan, then for each test its diagnostic lines
and its result. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from bootproof.harness.results.results import CaseResult, Check
from bootproof.loader.errors import one_line


def header(total: int) -> str:
    """The version line and the plan."""
    return f"KTAP version 1\n1..{total}"


def result(number: int, name: str, found: Sequence[CaseResult | Check]) -> str:
    """The lines of one test, of which one or more results are known."""
    bad = [item for item in found if _bad(item)]
    lines = [f"# {line}" for item in bad for line in _details(item)]
    told = bad[0] if bad else found[0] if found else None
    word = "not ok" if bad or told is None else "ok"
    said = "ERROR no result" if told is None else _said(told)
    return "\n".join([*lines, f"{word} {number} {_plain(name)} # {_plain(said)}"])


def _bad(item: CaseResult | Check) -> bool:
    return item.bad if isinstance(item, Check) else not item.as_expected


def _said(item: CaseResult | Check) -> str:
    if isinstance(item, CaseResult):
        return item.verdict if item.as_expected else item.problem or ""
    first = next(iter(item.text.splitlines()), "")
    words = {"error": "ERROR", "skipped": "SKIP", "passed": "passed", "failed": "failed"}
    return f"{words.get(item.outcome, item.outcome)} {first}".strip()


def _details(item: CaseResult | Check) -> list[str]:
    if isinstance(item, Check):
        return item.text.splitlines()
    tail = [f"| {line}" for line in item.tail]
    return [*tail, f"reproduce: {item.reproduce}", f"run directory: {item.directory}"]


def _plain(text: str) -> str:
    """One line without the sign that begins a directive."""
    return one_line(text).replace("#", "_")
