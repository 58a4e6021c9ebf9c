"""A matrix run as Markdown for the summary page of a GitHub job. Pure.

What a guest or a stranger's file says stands in fenced blocks or is escaped: it makes no mark-up.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from bootproof.harness.report import failure
from bootproof.harness.report.grid import Cell, Grid, grids
from bootproof.harness.results.results import CaseResult, Check, Results

_LIMIT: Final = 900_000  # bytes; a step's summary may have 1 MiB
_NAMED: Final = 50  # of failures that are alike
_MARKUP: Final = re.compile(r"([\\`*_{}\[\]()#+!|~<>&@-])")


def render(results: Results) -> str:
    """The summary; failures first, then a table for each architecture."""
    parts = [
        f"## bootproof: {'✓' if results.success else '✗'} {results.headline}\n",
        f"{results.counts} as expected in {results.seconds:.0f} s."
        + ("" if results.complete else " **The run did not come to its end.**")
        + "\n",
    ]
    parts += map(_failures, failure.alike(results.wrong))
    parts += map(_table, grids(results.cases))
    return _cut(parts)


def _cut(parts: Sequence[str]) -> str:
    """As many parts as there is room for."""
    kept, size = [], 0
    for part in parts:
        size += len(part.encode()) + 1
        if size > _LIMIT:
            kept.append("… and more, in report.html\n")
            break
        kept.append(part)
    return "\n".join(kept)


def _failures(group: Sequence[CaseResult | Check]) -> str:
    """Failures that are alike: the names of all, and what is said of the first."""
    item = group[0]
    name = item.name if len(group) == 1 else f"{len(group)} cases"
    lines = [f"### {failure.mark(item.outcome)} {_plain(name)}\n"]
    lines += [f"{_plain(item.problem or '')}\n"] if isinstance(item, CaseResult) else []
    if len(group) > 1:
        lines += [f"- {_plain(name)}" for name in failure.names(group[:_NAMED])]
        lines += [f"- and {len(group) - _NAMED} more"] if len(group) > _NAMED else []
        lines += ["\nThe first of them:\n"]
    return "\n".join([*lines, _fenced("\n".join(failure.lines(item))) + "\n"])


def _table(table: Grid) -> str:
    lines = [
        f"<details><summary>{_plain(table.arch)}</summary>\n",
        "| case | " + " | ".join(map(_plain, table.kernels)) + " |",
        "|---" * (len(table.kernels) + 1) + "|",
    ]
    for claim, cells in table.rows.items():
        cases = (_cell(cells.get(kernel)) for kernel in table.kernels)
        lines.append(f"| {_plain(claim)} | " + " | ".join(cases) + " |")
    return "\n".join([*lines, "\n</details>\n"])


def _cell(case: Cell | None) -> str:
    if case is None:
        return ""
    wrong = f"{failure.mark(case.outcome)} **{failure.said(case.outcome)}**"
    mark = wrong if case.bad else "✓"
    return f"{mark} {_plain(case.verdict)} {case.seconds:.1f} s"


def _fenced(text: str) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _plain(text: str) -> str:
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))
