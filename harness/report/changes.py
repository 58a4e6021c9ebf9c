"""The changes between two runs as text; the same for `--baseline` and `bootproof report A B`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from bootproof.harness.results.changes import Change, Kind
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
    """One line: `3 cases compared with the run before: 1 regressed, 2 same; others: 1 new`."""
    counts = Counter(change.kind for change in changes)
    compared, others = (
        {kind: counts[kind] for kind in Kind if counts[kind] and kind.compared is wanted}
        for wanted in (True, False)
    )
    rest = _named(others)
    if not compared:
        told = rest if Kind.NOT_COMPARED in others else f"no case in common: {rest}"
        return f"nothing was compared with the run before: {told.removesuffix(': ')}"
    number = counted(sum(compared.values()), "case")
    told = f"{number} compared with the run before: {_named(compared)}"
    return f"{told}; others: {rest}" if rest else told


def _named(counts: Mapping[Kind, int]) -> str:
    return ", ".join(f"{count} {kind.value}" for kind, count in counts.items())
