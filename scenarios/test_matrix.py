"""Every claim as a test: `-k "pvh and x86_64"` selects by the words of the ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from harness.case import Case
from harness.plugin import Prove
from scenarios import claims

# The few that `bootproof test` runs: one way into each architecture that fails when anything does.
_SHORT = ("elf-linux64-none", "elf-pvh-none", "bzimage-linux32-at32M", "image-arm64-ram+0")


def cases(arch: str, *groups: Callable[[str], Iterable[Case]]) -> list[object]:
    """One parameter for each case of each group and kernel of the default set."""
    kernels = claims.kernels(arch)
    return [
        pytest.param(case, id=case.id, marks=_marks(case, kernels))
        for kernel in kernels
        for group in groups
        for case in group(kernel)
    ]


def _marks(case: Case, kernels: list[str]) -> list[pytest.MarkDecorator]:
    short = case.kernel == kernels[0] and case.id.endswith(_SHORT)
    return [pytest.mark.short] if short else []


@pytest.mark.parametrize(
    "case",
    cases(
        "x86_64",
        claims.elf_linux64,
        claims.pvh,
        claims.pvh_relocated,
        claims.bzimage,
        claims.x86_64_ways,
    ),
)
def test_boots_x86_64(case: Case, prove: Prove) -> None:
    prove(case)


@pytest.mark.parametrize("case", cases("aarch64", claims.image, claims.aarch64_ways))
def test_boots_aarch64(case: Case, prove: Prove) -> None:
    prove(case)


@pytest.mark.parametrize("case", cases("x86_64", claims.x86_64_refusals))
def test_refused_x86_64(case: Case, prove: Prove) -> None:
    prove(case)


@pytest.mark.parametrize("case", cases("aarch64", claims.aarch64_refusals))
def test_refused_aarch64(case: Case, prove: Prove) -> None:
    prove(case)


@pytest.mark.parametrize("case", cases("x86_64", claims.hangs))
def test_hangs_x86_64(case: Case, prove: Prove) -> None:
    prove(case)
