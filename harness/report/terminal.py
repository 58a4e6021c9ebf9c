"""Results on a terminal: a line for each case, the grid of cases and kernels, failures in full.

Text alone says everything; colour only repeats it. Renders to strings: whoever prints them knows
whether there is a terminal.
"""

from __future__ import annotations

from typing import Final

from rich.table import Table
from rich.text import Text

from bootproof.harness.host.stdout import Coloured
from bootproof.harness.judgement import SKIPPED
from bootproof.harness.report import failure
from bootproof.harness.report.failure import said
from bootproof.harness.report.grid import Cell, Grid, grids
from bootproof.harness.report.rendered import rendered, table
from bootproof.harness.results.results import CaseResult, Check, Results

_WHOLE: Final = 10_000  # columns: who reads lines needs those of the grid whole
_GOOD, _BAD = "green", "bold red"
_MARKS: Final = {
    "passed": ("ok    ", _GOOD),
    "failed": ("FAILED", _BAD),
    "error": ("ERROR ", _BAD),
    "skipped": ("skip  ", "dim"),
}


def line(result: CaseResult | Check, done: int, total: int, *, colour: bool = False) -> Coloured:
    """One case as it ends: `[ 3/20] ok     booted           4.1 s x86_64-…`."""
    text = Text(f"[{done:{len(str(total))}}/{total}] ")
    case = result if isinstance(result, CaseResult) else None
    text.append(*_MARKS[result.outcome])
    text.append(f" {case.verdict if case else '':<20} {result.seconds:6.1f} s {result.name}")
    if case and case.bad:
        same = case.verdict == case.expected.verdict
        why = case.summary.partition(": ")[0] if same else f"instead of {case.expected.verdict}"
        text.append(f"   {said(case.outcome).upper()} ({why})", _BAD)
    elif case and case.complaints_of_boot:
        text.append(f"   the kernel complained: {case.complaints_of_boot[0].text}", _BAD)
    return Coloured(rendered(text, terminal=colour).rstrip("\n"))


def grid(results: Results, *, colour: bool = False) -> Coloured:
    """A table per architecture: a line per claim, a column per kernel, verdict and seconds."""
    return rendered(*map(_table, grids(results.cases)), terminal=colour, width=_WHOLE)


def failures(results: Results) -> str:
    """Everything that is not as expected, in full."""
    return "".join(
        f"\n{failure.mark(group[0].outcome)} {failure.block(group)}\n"
        for group in failure.alike(results.wrong)
    )


def _table(grid: Grid) -> Table:
    """Where names are too long for the width they are folded, never what a case ended as."""
    made = table(grid.arch)
    made.add_column("case", overflow="fold")
    for kernel in grid.kernels:
        verdicts = (row[kernel].verdict for row in grid.rows.values() if kernel in row)
        made.add_column(Text(kernel), overflow="fold", min_width=max(map(len, verdicts)))
    for claim, cells in grid.rows.items():
        made.add_row(Text(claim), *(_cell(cells.get(kernel)) for kernel in grid.kernels))
    return made


def _cell(case: Cell | None) -> Text:
    if case is None:
        return Text("")
    text = f"{case.verdict} {case.seconds:.1f}s"
    return Text(f"{failure.mark(case.outcome)} {text}", _BAD) if case.bad else Text(text, _GOOD)


def summary(results: Results, *, colour: bool = False) -> Coloured:
    """How many cases ended as expected, and the time it took."""
    summary = f"{results.counts} as expected in {results.seconds:.0f} s"
    if results.wrong:
        summary += f": {results.headline}"
    elif not results.complete:
        summary += ", and the run did not come to its end"
    complaining = sum(bool(case.complaints_of_boot) for case in results.cases)
    summary += f"; the kernel complained in {complaining} that booted" if complaining else ""
    skipped = sum(check.outcome == SKIPPED for check in results.checks)
    summary += f"; {skipped} skipped" if skipped else ""
    harness = sorted(c.harness_seconds for c in results.cases if c.instructions is not None)
    if harness:
        median, worst = harness[len(harness) // 2], harness[-1]
        summary += f"; harness time per case besides QEMU: median {median:.2f} s"
        summary += f", at most {worst:.2f} s; {results.totals.words}"
    return rendered(Text(summary, _GOOD if results.success else _BAD), terminal=colour)
