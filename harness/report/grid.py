"""The cases of an architecture as a table, in one order for every output. Pure."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence

from bootproof.dataclass import dataclass
from bootproof.harness.judgement import BAD
from bootproof.harness.results.results import CaseResult


@dataclass(frozen=True, slots=True)
class Cell:
    """What a table shows of a case."""

    case: str
    verdict: str
    outcome: str
    as_expected: bool
    passed: bool
    seconds: float

    @property
    def bad(self) -> bool:
        return self.outcome in BAD


@dataclass(frozen=True, slots=True)
class Grid:
    """A row for each claim, a column for each kernel, whatever order the cases ended in."""

    arch: str
    kernels: Sequence[str]  # by version, as in the catalogue: 6.1, 6.12, newest
    rows: Mapping[str, Mapping[str, Cell]]  # by claim, then by kernel


def grids(cases: Iterable[CaseResult]) -> list[Grid]:
    """A grid for each architecture."""
    of_arch: dict[str, dict[str, dict[str, Cell]]] = {}
    for case in cases:
        row = of_arch.setdefault(case.arch, {}).setdefault(sys.intern(case.claim), {})
        row[sys.intern(case.kernel.name)] = _cell(case)
    return [_grid(arch, rows) for arch, rows in sorted(of_arch.items(), reverse=True)]


def _cell(case: CaseResult) -> Cell:
    return Cell(
        case=case.case,
        verdict=sys.intern(case.verdict),
        outcome=case.outcome,
        as_expected=case.as_expected,
        passed=case.passed,
        seconds=case.seconds,
    )


def _grid(arch: str, rows: Mapping[str, Mapping[str, Cell]]) -> Grid:
    kernels = {kernel for row in rows.values() for kernel in row}
    return Grid(arch, sorted(kernels, key=_by_version), dict(sorted(rows.items())))


def _by_version(kernel: str) -> tuple[list[tuple[bool, int, str]], str]:
    """6.1 before 6.12, numbers before names."""
    parts = kernel.replace("-", ".").split(".")
    key = [(not p.isdigit(), int(p) if p.isdigit() and len(p) < 9 else 0, p) for p in parts]
    return key, kernel
