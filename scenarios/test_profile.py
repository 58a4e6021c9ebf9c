"""A real kernel's profile: its own stacks, sums that are exact, and the same each time."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from bootproof.harness.arch.table import ARCHES
from bootproof.harness.case import Case
from bootproof.harness.cases.kernels import default_kernels
from bootproof.harness.prove import prove
from bootproof.harness.record import profile
from bootproof.harness.verdict import Verdict
from bootproof.loader.address import MIB

_SAMPLES: Final = 60
CASE: Final = Case(
    *("aarch64", default_kernels("aarch64")[0], "image", "arm64"),
    ARCHES["aarch64"].ram_base() + 2 * MIB,
    label="profile",
    cmdline="console=ttyAMA0 panic=-1 nokaslr cryptomgr.notests initcall_debug loglevel=8",
)


@pytest.mark.beside
def test_profile_of_a_kernel_with_frame_pointers(tmp_path: Path) -> None:
    proven = prove(CASE, tmp_path / "run")
    assert proven.verdict is Verdict.BOOTED and proven.outcome is not None
    first, second = (profile.profile(tmp_path / "run", _SAMPLES, "a run") for _ in range(2))
    assert first == second
    executed = proven.outcome.costs.instructions
    assert sum(part.instructions for part in first.parts) == executed
    assert sum(count for _, count in first.stages) == executed
    names = [name for name, _ in first.stages]
    assert names[-3:] == ["to init", "to proof", profile.AFTER]
    deep = sum(part.instructions for part in first.parts if len(part.stack) > 4)
    assert deep > 0.7 * first.instructions
    assert dict(first.initcalls)["cubictcp_register"] > 10_000_000
    assert sum(count for _, count in first.initcalls) < first.instructions
