"""The order of the kernels in every table of a report, whatever order the cases ended in. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from bootproof.harness.results.results import CaseResult


def kernels(cases: Iterable[CaseResult]) -> list[str]:
    """The names of the kernels by version, as in the catalogue: 6.1, 6.12, newest."""
    return sorted({case.kernel.name for case in cases}, key=_by_version)


def _by_version(kernel: str) -> tuple[list[tuple[bool, int, str]], str]:
    """6.1 before 6.12, numbers before names."""
    parts = kernel.replace("-", ".").split(".")
    key = [(not p.isdigit(), int(p) if p.isdigit() and len(p) < 9 else 0, p) for p in parts]
    return key, kernel
