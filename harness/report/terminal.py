"""Results on a terminal: the grid of cases and kernels, and the text of one failure."""

from __future__ import annotations

import io
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from rich.console import Console
from rich.table import Table

from harness.case import Case
from harness.options import MATRIX_COMMAND
from harness.prove import Proven

_WIDTH = 118


@dataclass(frozen=True, slots=True)
class Row:
    """One case's result, small enough to travel between test processes.

    `claim` is the case without architecture and kernel; `harness_seconds` is what it took beyond
    QEMU's own run time.
    """

    case: str
    arch: str
    kernel: str
    claim: str
    verdict: str
    as_expected: bool
    seconds: float
    harness_seconds: float
    instructions: int | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        return cls(**{field.name: data[field.name] for field in fields(cls)})


def row(case: Case, proven: Proven, problem: str | None) -> Row:
    """The result of a case, ready to travel."""
    outcome = proven.outcome
    return Row(
        case=case.id,
        arch=case.arch,
        kernel=case.kernel,
        claim=case.id.removeprefix(f"{case.arch}-{case.kernel}-"),
        verdict=proven.verdict.value,
        as_expected=problem is None,
        seconds=proven.host_seconds,
        harness_seconds=proven.host_seconds - (outcome.costs.qemu_seconds if outcome else 0.0),
        instructions=outcome.costs.instructions if outcome else None,
    )


def problem(case: Case, proven: Proven) -> str | None:
    """What about the result is not as the case expects, in one sentence; None when all is."""
    expect = case.expect
    if proven.verdict is not expect.verdict:
        return f"{proven.verdict.value} instead of {expect.verdict.value}: {proven.reason}"
    if expect.code is not None and proven.code != expect.code:
        return f"refused with {proven.code} instead of {expect.code}: {proven.reason}"
    if expect.reason is not None and expect.reason not in proven.reason:
        return f"the reason does not say {expect.reason!r}: {proven.reason}"
    if proven.assembled is None:
        return None
    state = proven.assembled.kernel.pvh_boot_cap.state
    if expect.pvh is not None and state is not expect.pvh:
        return f"the PVH capability is {state.value}, not {expect.pvh.value}"
    if expect.protocol is not None and proven.assembled.protocol != expect.protocol:
        return f"the protocol taken is {proven.assembled.protocol}, not {expect.protocol}"
    return None


def reproduce(test: str, command: str = MATRIX_COMMAND) -> str:
    """The command that runs one test of a matrix again: no other has this name."""
    return f"{command} -k {shlex.quote(test)}"


def failure(case: Case, proven: Proven, what: str, again: str) -> str:
    """Everything a reader of a CI log needs for one failure; `again` repeats it."""
    lines = [f"{case.id}: {what}"]
    if proven.console_tail:
        lines += ["last console lines:", *(f"  | {line}" for line in proven.console_tail)]
    lines += [f"reproduce: {again}", f"run directory: {proven.directory}"]
    return "\n".join(lines)


def grid(rows: Sequence[Row]) -> str:
    """A table per architecture: a line per claim, a column per kernel, verdict and seconds."""
    out = io.StringIO()
    console = Console(file=out, width=_WIDTH, highlight=False)
    for arch in sorted({row.arch for row in rows}, reverse=True):
        console.print(_table(arch, [row for row in rows if row.arch == arch]))
    wrong = sum(not row.as_expected for row in rows)
    harness = sorted(row.harness_seconds for row in rows if row.instructions is not None)
    summary = f"{len(rows) - wrong} of {len(rows)} cases as expected"
    if harness:
        median, worst = harness[len(harness) // 2], harness[-1]
        summary += f"; beyond QEMU a case took {median:.2f} s (median), {worst:.2f} s at most"
    console.print(summary)
    return out.getvalue()


def _table(arch: str, rows: Sequence[Row]) -> Table:
    kernels = list(dict.fromkeys(row.kernel for row in rows))
    table = Table(title=arch, title_justify="left", box=None, pad_edge=False)
    table.add_column("case", no_wrap=True)
    for kernel in kernels:
        table.add_column(kernel)
    cells = {(row.claim, row.kernel): _cell(row) for row in rows}
    for claim in sorted(dict.fromkeys(row.claim for row in rows)):
        table.add_row(claim, *(cells.get((claim, kernel), "") for kernel in kernels))
    return table


def _cell(row: Row) -> str:
    text = f"{row.verdict} {row.seconds:.1f}s"
    return text if row.as_expected else f"✗ {text} (not as expected)"
