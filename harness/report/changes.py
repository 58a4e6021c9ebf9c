"""The changes between two runs as text; the same for `--baseline` and `bootproof report A B`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from bootproof.harness.results.changes import Change, Kind, any_compared
from bootproof.loader.address import counted

_MARKS: Final = {
    Kind.NONDETERMINISTIC: "✗",
    Kind.REGRESSED: "✗",
    Kind.NOT_COMPARED: "?",
    Kind.NEW: "?",
    Kind.CHANGED: "~",
    Kind.IMPROVED: "+",
    Kind.GONE: "-",
}


def render(changes: Sequence[Change]) -> str:
    """Every case that is not the same, with what is different, and how many there are of each."""
    lines = [*dict.fromkeys(str(change.role) for change in changes if change.role)]
    for change in changes:
        if change.kind is Kind.SAME:
            continue
        lines.append(f"{_MARKS[change.kind]} {change.kind.value}: {change.case}")
        lines += [f"    {sentence}" for sentence in change.sentences]
    return "\n".join([*lines, summary(changes)]) + "\n"


def summary(changes: Sequence[Change]) -> str:
    """One line: `3 cases compared: 1 regressed, 2 same`."""
    counts = Counter(change.kind for change in changes)
    told = ", ".join(f"{counts[kind]} {kind.value}" for kind in Kind if counts[kind])
    if not any_compared(changes):
        told = f"no case in common{f': {told}' if told else ''}"
        return f"nothing was compared with the run before: {told}"
    return f"{counted(len(changes), 'case')} compared with the run before: {told}"
