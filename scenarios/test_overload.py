"""A host that has no time is no failing guest: every guest still proves its boot."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from bootproof.harness.arch.table import ARCHES
from bootproof.harness.case import Case
from bootproof.harness.cases.kernels import default_kernels
from bootproof.harness.host.together import at_once
from bootproof.harness.prove import prove
from bootproof.harness.verdict import Verdict
from bootproof.loader.address import MIB

_GUESTS: Final = 8
_BUSY_LOOPS: Final = 6  # beside them, on two cores
_X86_64: Final = Case("x86_64", default_kernels("x86_64")[0], "elf", "linux64", profile="fast")
_AARCH64: Final = Case(
    *("aarch64", default_kernels("aarch64")[0], "image", "arm64"),
    offset=ARCHES["aarch64"].ram_base() + 2 * MIB,
    profile="fast",
)
_RISCV64: Final = Case(
    *("riscv64", default_kernels("riscv64")[0], "image", "riscv64"),
    offset=ARCHES["riscv64"].ram_base(),
    profile="fast",
)


@pytest.fixture
def busy_loops() -> Iterator[None]:
    loops = [
        subprocess.Popen(["sh", "-c", "while :; do :; done"], stdin=subprocess.DEVNULL)
        for _ in range(_BUSY_LOOPS)
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


@pytest.mark.crowd
@pytest.mark.usefixtures("busy_loops")
def test_eight_guests_beside_six_busy_loops(run_directory: Callable[[str], Path]) -> None:
    """Some of each architecture, and every boot the same as if it had been alone."""
    each = [replace(case, label="overload") for case in (_X86_64, _AARCH64, _RISCV64)]
    boots = [
        partial(_boot, each[number % len(each)], run_directory(f"overload-{number}"))
        for number in range(_GUESTS)
    ]
    runs = at_once(boots, _GUESTS)
    assert [verdict for _, verdict, _ in runs] == [Verdict.BOOTED] * _GUESTS
    assert len({(arch, transcript) for arch, _, transcript in runs}) == 3


def _boot(case: Case, directory: Path) -> tuple[str, Verdict, bytes]:
    proven = prove(case, directory)
    outcome = proven.outcome
    shutil.rmtree(directory)
    assert outcome is not None, proven.reason
    return case.arch, proven.verdict, outcome.observation.transcript
