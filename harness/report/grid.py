"""The cases of an architecture as a table, in one order for every output. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bootproof.harness.results.results import CaseResult


@dataclass(frozen=True, slots=True)
class Grid:
    """A row for each claim, a column for each kernel, whatever order the cases ended in."""

    arch: str
    kernels: Sequence[str]  # by version, as in the catalogue: 6.1, 6.12, newest
    rows: Mapping[str, Mapping[str, CaseResult]]  # by claim, then by kernel


def grids(cases: Iterable[CaseResult]) -> list[Grid]:
    """A grid for each architecture."""
    of_arch: dict[str, list[CaseResult]] = {}
    for case in cases:
        of_arch.setdefault(case.arch, []).append(case)
    return [_grid(arch, members) for arch, members in sorted(of_arch.items(), reverse=True)]


def _grid(arch: str, cases: Sequence[CaseResult]) -> Grid:
    rows: dict[str, dict[str, CaseResult]] = {}
    for case in sorted(cases, key=lambda case: case.claim):
        rows.setdefault(case.claim, {})[case.kernel.name] = case
    return Grid(arch, sorted({case.kernel.name for case in cases}, key=_by_version), rows)


def _by_version(kernel: str) -> tuple[list[tuple[bool, int, str]], str]:
    """6.1 before 6.12, numbers before names."""
    parts = kernel.replace("-", ".").split(".")
    key = [(not p.isdigit(), int(p) if p.isdigit() and len(p) < 9 else 0, p) for p in parts]
    return key, kernel
