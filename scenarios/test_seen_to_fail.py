"""Each check of a verdict, seen to fail: a real boot that is not the one asked for must be red."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from bootproof.harness.arch.table import ARCHES
from bootproof.harness.case import Case
from bootproof.harness.cases.kernels import default_kernels
from bootproof.harness.expected import CodeAt, Expected, Judgement
from bootproof.harness.prepare import prepare
from bootproof.harness.run import run
from bootproof.harness.verdict import Verdict
from bootproof.loader import bootimage
from bootproof.loader.address import MIB
from bootproof.loader.protocols import acpi

_PVH_TYPE: Final = 0xB0

pytestmark = pytest.mark.beside
RunDirectory = Callable[[str], Path]


def judged(
    case: Case,
    name: str,
    run_directory: RunDirectory,
    change: Callable[[Expected], Expected],
) -> Judgement:
    """Boots `case` for real and judges it by a changed expectation."""
    directory = run_directory(f"seen-to-fail-{name}")
    start = prepare(case, directory).start
    assert isinstance(start.expected, Expected)
    return run(replace(start, expected=change(start.expected)), directory).judgement


def x86_64(protocol: str, offset: int | None = None) -> Case:
    kernel = default_kernels("x86_64")[0]
    return Case("x86_64", kernel, "elf", protocol, offset, profile="fast")


@pytest.mark.short
def test_another_nonce(run_directory: RunDirectory) -> None:
    """A transcript of another case, or of another kernel, is no proof of this one."""
    judgement = judged(
        x86_64("linux64"),
        "nonce",
        run_directory,
        lambda expected: replace(expected, nonce="0" * 32),
    )
    assert judgement.verdict is Verdict.BOOTED_WRONG
    assert judgement.reason == "the proof is not over this case's nonce and this evidence"


@pytest.mark.short
def test_kernel_at_another_address(run_directory: RunDirectory) -> None:
    """A loader that ignores the offset: built at +2 MiB, asked for +16 MiB."""
    judgement = judged(
        x86_64("linux64", 2 * MIB),
        "address",
        run_directory,
        lambda expected: replace(expected, code=CodeAt((0x2000000,))),
    )
    assert judgement.verdict is Verdict.BOOTED_WRONG
    assert judgement.reason == "the kernel runs at 0x1200000, not at 0x2000000"


@pytest.mark.short
def test_pvh_that_went_through_linux64(run_directory: RunDirectory) -> None:
    """A VMM that falls back to the Linux protocol without saying so."""
    judgement = judged(
        x86_64("linux64"),
        "protocol",
        run_directory,
        lambda expected: replace(expected, bootloader_type=_PVH_TYPE),
    )
    assert judgement.verdict is Verdict.BOOTED_WRONG
    assert judgement.reason == "bootloader_type is 255, not 176"


def test_code_that_is_not_where_the_guest_says(run_directory: RunDirectory) -> None:
    """A guest that lies about its address: its RAM there holds something else."""
    kernel = default_kernels("x86_64")[0]
    case = Case("x86_64", kernel, "bzimage", "linux64", profile="fast")
    directory = run_directory("seen-to-fail-code")
    start = prepare(case, directory).start
    assert start.unpacked is not None
    elsewhere = replace(start.unpacked, linked_at=start.unpacked.linked_at - 4 * MIB)
    judgement = run(replace(start, unpacked=elsewhere), directory).judgement
    assert judgement.verdict is Verdict.BOOTED_WRONG
    assert judgement.reason.startswith("the kernel's code is not in RAM where the guest says it is")


def test_memory_that_is_not_there(run_directory: RunDirectory) -> None:
    """A memory map that hides half of the RAM."""

    def twice_the_memory(expected: Expected) -> Expected:
        ram = tuple(replace(bank, size=bank.size * 2) for bank in expected.ram)
        return replace(expected, ram=ram)

    judgement = judged(x86_64("pvh"), "memory", run_directory, twice_the_memory)
    assert judgement.verdict is Verdict.BOOTED_WRONG
    assert "the guest sees RAM 0x1000-0x9fbff, 0x100000-0x1fffffff, not" in judgement.reason


@pytest.mark.parametrize(
    ("probe", "verdict", "reason"),
    [
        (
            *(True, Verdict.PROTOCOL_VIOLATION),
            "cpus: the MADT or MP table tells of 1, but the machine has 2 CPUs",
        ),
        (False, Verdict.BOOTED_WRONG, "the guest has 1 CPU, not 2"),
    ],
)
def test_tables_that_list_fewer_cpus(
    probe: bool, verdict: Verdict, reason: str, run_directory: RunDirectory
) -> None:
    """A VMM that counts from the wrong end: two CPUs, and a MADT for one of them."""
    kernel = default_kernels("x86_64")[1]
    case = Case("x86_64", kernel, "elf", "linux64", smp=2, profile="fast", probe=probe)
    directory = run_directory(f"seen-to-fail-cpus-{probe}")
    prepared = prepare(case, directory)
    tables = prepared.start.image.region("acpi")
    assert tables is not None
    with (directory / bootimage.RAM).open("r+b") as ram:
        ram.seek(tables.start)
        ram.write(acpi.tables(tables.start, 1).ljust(tables.size, b"\0"))
    judgement = run(prepared.start, directory).judgement
    assert (judgement.verdict, judgement.reason) == (verdict, reason)


def test_device_tree_of_another_request(run_directory: RunDirectory) -> None:
    """A stale device tree left in RAM by somebody else."""
    kernel, offset = default_kernels("aarch64")[0], ARCHES["aarch64"].ram_base() + 2 * MIB
    case = Case("aarch64", kernel, "image", "arm64", offset, profile="fast")
    judgement = judged(
        case,
        "device-tree",
        run_directory,
        lambda expected: replace(expected, request="another"),
    )
    assert judgement.verdict is Verdict.BOOTED_WRONG
    assert judgement.reason == f"the device tree is of request '{case.id}', not 'another'"
