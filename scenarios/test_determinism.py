"""The same case gives the same transcript, byte for byte, and the same number of instructions."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from bootproof.dataclass import dataclass
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.case import Case
from bootproof.harness.cases.kernels import default_kernels
from bootproof.harness.commands.boot import difference, uncounted
from bootproof.harness.course import Outcome
from bootproof.harness.host.together import at_once, together
from bootproof.harness.prove import Proven, prove
from bootproof.harness.verdict import Verdict
from bootproof.loader.address import MIB

X86_64 = Case("x86_64", default_kernels("x86_64")[0], "elf", "pvh", label="determinism")
AARCH64 = Case(
    "aarch64",
    default_kernels("aarch64")[0],
    "image",
    "arm64",
    ARCHES["aarch64"].ram_base() + 2 * MIB,
    label="determinism",
)
RISCV64 = Case(
    "riscv64",
    default_kernels("riscv64")[0],
    "image",
    "riscv64",
    ARCHES["riscv64"].ram_base(),
    label="determinism",
)
_WITH_KASLR: Final = "console=ttyS0 reboot=t panic=-1"
# Of each architecture, the first of them as many at once as leave each guest a seventh of a core
# where there are two, and the others with half of one each.
_BOOTS, _CROWD, _AT_ONCE = 20, 14, 4

RunDirectory = Callable[[str], Path]


@pytest.mark.beside
@pytest.mark.parametrize(
    "case",
    [
        replace(X86_64, cmdline=_WITH_KASLR),
        AARCH64,
        # RNDR is there, and the kernel takes its seed for KASLR from it.
        replace(AARCH64, cpu="max,pauth-impdef=on", label="determinism-rndr", profile="fast"),
        replace(AARCH64, smp=2, profile="fast"),
        replace(AARCH64, smp=4, profile="fast"),
        replace(AARCH64, board="virt,virtualization=on", profile="fast"),
        RISCV64,
    ],
    ids=lambda case: case.id,
)
def test_the_same_boot_twice(case: Case, run_directory: RunDirectory) -> None:
    one, other = (run_directory(f"{case.id}-{name}") for name in ("first", "second"))
    first, second = together(lambda: prove(case, one), lambda: prove(case, other))
    assert first.verdict is Verdict.BOOTED, first.reason
    outcomes = _outcome(first), _outcome(second)
    assert difference(*outcomes, case.smp) is None
    assert (uncounted(*outcomes, case.smp) is None) == (case.smp == 1)


@pytest.mark.beside
@pytest.mark.parametrize("case", [X86_64, AARCH64, RISCV64], ids=lambda case: case.arch)
def test_the_script_repeats_an_unprobed_boot(
    case: Case, run_directory: RunDirectory, tmp_path: Path
) -> None:
    unprobed = replace(case, probe=False, label="determinism-script", profile="fast")
    directory = run_directory(unprobed.id)
    outcome = _outcome(prove(unprobed, directory))
    again = tmp_path / "again.log"
    subprocess.run(["timeout", "--kill-after=5", "60", directory / "qemu.sh", again], check=True)
    assert again.read_bytes() == outcome.observation.transcript


@pytest.mark.crowd
def test_the_same_boot_on_a_busy_machine(run_directory: RunDirectory) -> None:
    """A host that has no time is no failing guest, and no other one."""
    cases = [
        replace(case, profile="fast", label="determinism-busy")
        for case in (X86_64, AARCH64, RISCV64)
    ]
    boots = [
        partial(_boot, case, run_directory(f"{case.id}-{number}"))
        for number in range(_BOOTS)
        for case in cases
    ]
    runs = [*at_once(boots[:_CROWD], _CROWD), *at_once(boots[_CROWD:], _AT_ONCE)]
    for case in cases:
        same = [run for run in runs if run.case is case]
        assert [run.verdict for run in same] == [Verdict.BOOTED] * _BOOTS
        assert len({run.transcript for run in same}) == 1
        (instructions,) = {run.instructions for run in same}
        assert instructions is not None


@dataclass(frozen=True, slots=True)
class _Run:
    case: Case
    verdict: Verdict
    transcript: bytes
    instructions: int | None


def _boot(case: Case, directory: Path) -> _Run:
    proven = prove(case, directory)
    shutil.rmtree(directory)
    outcome = _outcome(proven)
    transcript, instructions = outcome.observation.transcript, outcome.costs.instructions
    return _Run(case, proven.verdict, transcript, instructions)


def _outcome(proven: Proven) -> Outcome:
    assert proven.outcome is not None, proven.reason
    return proven.outcome
