"""The cases of an architecture as a table, in one order for every output. Pure."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.harness.judgement import BAD
from bootproof.harness.results.results import CaseResult

_WORDS: Final = re.compile(r"(0x[0-9a-f]+|0|[1-9][0-9]*)([KMGT]?)|(.[^0-9]*)")
_SHIFTS: Final = {"K": 10, "M": 20, "G": 30, "T": 40}


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
    claims = sorted(rows, key=by_size)
    return Grid(arch, sorted(kernels, key=_by_version), {claim: rows[claim] for claim in claims})


def by_size(claim: str) -> tuple[list[tuple[int, str]], str]:
    """The order of claims: by their words, offsets and other numbers by size: 2M before 16M."""
    parts = (match.groups("") for match in _WORDS.finditer(claim))
    key = [(int(number or "0", 0) << _SHIFTS.get(unit, 0), text) for number, unit, text in parts]
    return key, claim


def _by_version(kernel: str) -> tuple[list[tuple[bool, int, str]], str]:
    """6.1 before 6.12, numbers before names."""
    parts = kernel.replace("-", ".").split(".")
    key = [(not p.isdigit(), int(p) if p.isdigit() and len(p) < 9 else 0, p) for p in parts]
    return key, kernel
