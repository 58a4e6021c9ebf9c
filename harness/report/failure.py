"""What a reader of a CI log needs of one failure, the same in every output. Pure."""

from __future__ import annotations

from bootproof.harness.results.results import CaseResult, Check


def lines(item: CaseResult | Check) -> list[str]:
    """The last words of a guest, how to run it again and where all of it is; or a test's text."""
    if isinstance(item, Check):
        return item.text.splitlines()
    words: list[str] = []
    if item.tail:
        words = ["last console lines:", *(f"  | {line}" for line in item.tail)]
    elif item.log:
        words = ["the log buffer in RAM ends:", *(f"  | {line}" for line in item.log.tail)]
    return [*words, f"reproduce: {item.reproduce}", f"run directory: {item.directory}"]


def text(item: CaseResult | Check) -> str:
    """All of a failure: what is wrong with which case or test, then `lines`."""
    problem = item.outcome if isinstance(item, Check) else item.problem
    return "\n".join([f"{item.name}: {problem}", *lines(item)])
