"""A comparison on a terminal: the unexplained differences first, then the known ones by reason."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from rich.table import Table
from rich.text import Text

from bootproof.harness.compare.comparison import Comparison, Cost, ExplainedDifference
from bootproof.harness.guest.stages import Stage
from bootproof.harness.host.stdout import Coloured
from bootproof.harness.report.rendered import rendered, table
from bootproof.loader.address import counted
from bootproof.printable import one_line

_SHOWN: Final = 60  # characters of a value; all of it stands in comparison.json
_PER_CODE: Final = 3
_NOTHING: Final = "-"


def render(comparison: Comparison) -> Coloured:
    """The whole report as text; with colours only when standard output is a terminal."""
    differences = () if comparison.of_host else comparison.differences
    unexplained = [item for item in differences if item.code is None]
    return rendered(
        *([_unexplained(unexplained)] if unexplained else []),
        *([_explained(differences)] if differences else []),
        _costs(comparison.ours, comparison.reference),
        _summary(comparison, len(unexplained)),
        Text(f"run directories: {one_line(str(comparison.directory))}/ours and reference"),
        terminal=sys.stdout.isatty(),
    )


def _unexplained(items: Sequence[ExplainedDifference]) -> Table:
    rows = _table("UNEXPLAINED", "where", "what", "ours", "QEMU -kernel")
    for item in items:
        row = item.difference
        texts = (row.section.value, row.name, row.ours, row.reference)
        rows.add_row(*(Text(_short(text)) for text in texts), style="red")
    return rows


def _explained(items: Sequence[ExplainedDifference]) -> Table:
    """A row per reason and place, with a few examples."""
    groups: dict[tuple[str, str], list[ExplainedDifference]] = {}
    for item in items:
        if item.code is not None:
            groups.setdefault((item.difference.section.value, item.code), []).append(item)
    rows = _table("known differences (docs/compare.md)", "where", "reason", "count", "such as")
    for (section, code), members in groups.items():
        names = dict.fromkeys(_short(member.difference.name, 40) for member in members)
        examples = "; ".join(list(names)[:_PER_CODE])
        more = ", …" if len(names) > _PER_CODE else ""
        rows.add_row(section, code, str(len(members)), Text(examples + more))
    return rows


def _costs(ours: Cost, reference: Cost) -> Table:
    rows = _table("side by side", "", "ours", "QEMU -kernel")
    rows.add_row("verdict", ours.verdict, reference.verdict)
    rows.add_row("entered through", ours.protocol, reference.protocol)
    rows.add_row("guest instructions", *map(_count, (ours.instructions, reference.instructions)))
    rows.add_row("rules not kept", *(", ".join(side.rules) or "none" for side in (ours, reference)))
    sides = [{stage.name: stage for stage in side.stages} for side in (ours, reference)]
    names = dict.fromkeys((*sides[0], *sides[1]))
    for what, text in (("instructions", _instructions), ("seconds", _seconds)):
        for name in names:
            row = [text(side.get(name)) for side in sides]
            if row != [_NOTHING, _NOTHING]:
                rows.add_row(f"guest {what} to: {name}", *row)
    return rows


def _summary(comparison: Comparison, unexplained: int) -> Text:
    total = len(comparison.differences)
    if comparison.of_host:
        text = "✗ not compared: one of the boots says nothing of its guest, see the verdicts"
        return Text(text, style="bold red")
    if unexplained:
        text = f"✗ {unexplained} of {total} differences are unexplained: a bug, or not yet known"
        return Text(text, style="bold red")
    return Text(f"✓ {counted(total, 'difference')}, none unexplained", style="green")


def _table(title: str, *columns: str) -> Table:
    made = table(title)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def _short(text: str, limit: int = _SHOWN) -> str:
    if not text:
        return _NOTHING
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _count(value: int | None) -> str:
    return _NOTHING if value is None else f"{value:,}"


def _instructions(stage: Stage | None) -> str:
    return _count(stage.instructions if stage else None)


def _seconds(stage: Stage | None) -> str:
    value = stage.guest_seconds if stage else None
    return _NOTHING if value is None else f"{value:.3f}"
