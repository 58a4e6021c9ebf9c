"""Machines as values, held against what real QEMU says of itself."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bootproof.harness.arch.table import ARCHES
from bootproof.harness.errors import UserError
from bootproof.harness.qemu.binary import find_qemu
from bootproof.harness.qemu.machine import Machine
from bootproof.loader.address import GIB, MIB, Banks

SMALL_HOLE = "pc-i440fx-1.7,max-ram-below-4g=3328M"


# --- where RAM is ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arch", "board", "sizes"),
    [
        ("x86_64", "q35", (1, 512, 2815, 2816, 4096, 6000)),
        ("x86_64", "pc", (512, 3071, 3072, 3583, 3584, 6000)),
        ("x86_64", SMALL_HOLE, (512, 3327, 3328, 3329, 6000)),
        ("x86_64", "microvm", (512, 3071, 3072, 3073, 6000)),
        ("aarch64", "virt", (1, 512, 4096, 6000)),
        ("aarch64", "xlnx-zcu102", (1, 512, 2048, 2049, 6000)),
        ("riscv64", "virt", (4, 512, 4096, 6000)),
    ],
)
def test_banks_are_where_qemu_has_its_ram(arch: str, board: str, sizes: tuple[int, ...]) -> None:
    skip_without(board)
    for size in sizes:
        machine = Machine.with_defaults(arch, memory=size * MIB, board=board)
        assert (machine.banks, size) == (real_banks(machine), size)
        assert machine.banks_with(machine.memory) == machine.banks


def skip_without(board: str) -> None:
    """Where the QEMU installed has a board no more."""
    gone = ARCHES["x86_64"].boards[board].gone if board == SMALL_HOLE else None
    if gone and find_qemu("x86_64").version >= gone:
        pytest.skip(f"this QEMU has no {board}")


def real_banks(machine: Machine) -> Banks:
    """From `info mtree`: the aliases of the RAM backend, whose offsets follow one another."""
    command = [machine.qemu.path, "-machine", machine.board, "-cpu", machine.cpu, "-S"]
    command += ["-nodefaults", "-display", "none", "-m", f"{machine.memory // MIB}M"]
    command += ["-monitor", "stdio", *machine.traits.words(machine.qemu.version)]
    asked = "info mtree\nquit\n"
    run = subprocess.run(command, input=asked, capture_output=True, text=True, check=True)
    names = "ram-below-4g|ram-above-4g|ddr-ram-low|ddr-ram-high"
    alias = rf"^ +(\w+)-(\w+) \(prio 0, ram\): alias (?:{names}) @[\w.-]+ (\w+)-"
    plain = r"^ +(\w+)-(\w+) \(prio 0, ram\): (?:mach-virt|riscv_virt_board).ram()"
    found = {
        tuple(int(digits or "0", 16) for digits in match)
        for pattern in (alias, plain)
        for match in re.findall(pattern, run.stdout, re.MULTILINE)
    }
    banks, offset = [], 0
    for start, last, at in sorted(found):
        assert at == offset
        banks.append((start, last + 1 - start))
        offset += last + 1 - start
    return tuple(banks)


def test_every_board_of_the_table_has_been_compared() -> None:
    assert {name: sorted(arch.boards) for name, arch in ARCHES.items()} == {
        "x86_64": ["microvm", "pc", SMALL_HOLE, "q35"],
        "aarch64": [  # options that move no RAM
            "virt",
            "virt,gic-version=3",
            "virt,gic-version=3,virtualization=on",
            "virt,virtualization=on",
            "xlnx-zcu102",
            "xlnx-zcu102,virtualization=on",
        ],
        "riscv64": ["virt"],
    }


# --- machines ----------------------------------------------------------------------------------


def test_defaults_and_quirks() -> None:
    for name, arch in ARCHES.items():
        machine = Machine.with_defaults(name, memory=512 * MIB)
        cures = [quirk.cpu for quirk in arch.quirks if quirk.applies(machine.qemu.version)]
        assert (machine.board, machine.cpu) == (arch.board, (cures or [arch.cpu])[0])
        no_entropy = ",-rdrand,-rdseed" if name == "x86_64" else ""
        assert Machine.with_defaults(name, memory=MIB, cpu="max").cpu == f"max{no_entropy}"


@pytest.mark.parametrize(
    ("size", "asked", "wanted"),
    [
        (None, None, "cortex-a57"),
        ("4K", None, "cortex-a57"),
        ("16K", None, "neoverse-n1"),
        ("64K", None, "cortex-a57"),
        ("16K", "max", "max"),
    ],
)
def test_the_cpu_has_the_page_size_of_the_kernel(
    size: str | None, asked: str | None, wanted: str
) -> None:
    machine = Machine.with_defaults("aarch64", memory=512 * MIB, cpu=asked, page_size=size)
    assert machine.cpu == wanted
    other = Machine.with_defaults("x86_64", memory=512 * MIB, page_size="16K")
    assert other.cpu == Machine.with_defaults("x86_64", memory=512 * MIB).cpu


@pytest.mark.parametrize(
    ("arch", "cpu", "wanted"),
    [
        ("x86_64", "Haswell", "Haswell,-rdrand,-rdseed"),
        ("x86_64", "max,+rdrand", "max,+rdrand,-rdseed"),
        ("x86_64", "max,rdseed=on,-rdrand", "max,rdseed=on,-rdrand"),
        ("aarch64", "max,pauth-impdef=on", "max,pauth-impdef=on"),
    ],
)
def test_no_entropy_from_the_cpu(arch: str, cpu: str, wanted: str) -> None:
    assert Machine.with_defaults(arch, memory=MIB, cpu=cpu).cpu == wanted


@pytest.mark.parametrize(
    ("arch", "cpus", "most"), [("x86_64", 0, 255), ("x86_64", 256, 255), ("aarch64", 9, 8)]
)
def test_cpus_that_no_machine_has(arch: str, cpus: int, most: int) -> None:
    with pytest.raises(UserError, match=f"CPUs: {cpus}; {ARCHES[arch].board} has 1 to {most}"):
        Machine.with_defaults(arch, memory=MIB, cpus=cpus)


def test_more_cpus_on_another_board() -> None:
    with pytest.raises(UserError, match=r"--machine virt,gic-version=3 has 9$"):
        Machine.with_defaults("aarch64", memory=MIB, cpus=9)
    gicv3 = Machine.with_defaults("aarch64", memory=MIB, cpus=16, board="virt,gic-version=3")
    assert (gicv3.cpus, gicv3.hypervisor) == (16, False)


@pytest.mark.parametrize("cpu", ["cortex-a57", "cortex-a53,pmu=off"])
def test_pages_that_a_cpu_lacks(cpu: str) -> None:
    wanted = r"^the kernel has 16K pages, which cortex-a5. has not: take --cpu neoverse-n1, or"
    with pytest.raises(UserError, match=wanted):
        Machine.with_defaults("aarch64", memory=MIB, cpu=cpu, page_size="16K")
    assert Machine.with_defaults("aarch64", memory=MIB, cpu=cpu, page_size="64K").cpu == cpu


@pytest.mark.parametrize(
    ("arch", "cpus", "realtime", "wanted"),
    [
        ("x86_64", 1, "", (True, "deterministic")),
        ("x86_64", 2, "", (False, "nearly deterministic: several CPUs")),
        ("aarch64", 4, "", (True, "deterministic")),
        ("aarch64", 1, "asked for", (False, "real time: asked for")),
    ],
)
def test_what_is_promised(arch: str, cpus: int, realtime: str, wanted: tuple[bool, str]) -> None:
    machine = replace(Machine.with_defaults(arch, memory=MIB, cpus=cpus), realtime=realtime)
    assert (machine.deterministic, machine.mode) == wanted


@pytest.mark.parametrize("memory", [0, 1, MIB - 1, MIB + 1, 64 * GIB + MIB, 1 << 63])
def test_memory_that_no_machine_has(memory: int) -> None:
    with pytest.raises(UserError, match="is not a whole number of MiB from 1 MiB to 64 GiB"):
        Machine.with_defaults("x86_64", memory=memory)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"memory": 34 * GIB + MIB}, "from 1 MiB to 34 GiB, the most of xlnx-zcu102"),
        ({"cpus": 5}, "CPUs: 5; xlnx-zcu102 has 1 to 4 (--smp); --machine virt has 5"),
        ({"cpu": "cortex-a57"}, "xlnx-zcu102 has no other CPU than cortex-a53: leave --cpu out"),
        ({"page_size": "16K"}, "16K pages, which cortex-a53 has not: take --machine virt, as"),
    ],
)
def test_limits_of_a_board(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)):
        Machine.with_defaults("aarch64", board="xlnx-zcu102", **{"memory": MIB, **asked})


def test_board_that_a_newer_qemu_has_no_more(tmp_path: Path) -> None:
    newer = tmp_path / "qemu-system-x86_64"
    newer.write_text("#!/bin/sh\necho QEMU emulator version 10.0.2\n")
    newer.chmod(0o755)
    wanted: dict[str, Any] = {"memory": 4 * GIB, "board": SMALL_HOLE}
    with pytest.raises(
        UserError, match=r"QEMU 8\.2\.0 and later have it no more, and .* is 10\.0\.2"
    ):
        Machine.with_defaults("x86_64", **wanted, binary=str(newer))


def test_a_board_has_what_is_not_above_its_limits() -> None:
    machine = Machine.with_defaults("aarch64", memory=34 * GIB, board="xlnx-zcu102", cpus=4)
    assert (machine.cpu, machine.most_memory) == ("cortex-a53", 34 * GIB)


def test_board_that_is_not_known() -> None:
    with pytest.raises(UserError, match="machine 'virt' is not known for x86_64; known: q35, pc"):
        Machine.with_defaults("x86_64", memory=MIB, board="virt")


@pytest.mark.parametrize(
    ("cpus", "release", "realtime"),
    [(1, "6.1.0", False), (2, "6.1.0", True), (2, "7.3.4", False)],
)
def test_a_kernel_that_boots_in_real_time_only(cpus: int, release: str, realtime: bool) -> None:
    machine = Machine.with_defaults("x86_64", memory=MIB, cpus=cpus)
    machine = replace(machine, qemu=replace(machine.qemu, version=(7, 2, 22)))
    quirk = "quirk smp-bringup: with icount, QEMU before 10.0 never brings up the second CPU of"
    found = machine.for_kernel(lambda: release)
    assert found.realtime.startswith(quirk) is realtime
    assert realtime or found == machine
