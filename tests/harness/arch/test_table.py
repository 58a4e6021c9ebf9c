"""What the table says of each architecture: command lines, quirks, and RAM that kernels show."""

from __future__ import annotations

import re
import subprocess

import pytest

from bootproof.harness.arch.arch import Arch, Version
from bootproof.harness.arch.profiles import PROFILES
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.qemu.argv import machine_words
from bootproof.harness.qemu.machine import Machine
from bootproof.loader.address import GIB, MIB, Range

X86, ARM64, RISCV = (ARCHES[name] for name in ("x86_64", "aarch64", "riscv64"))


@pytest.mark.parametrize("arch", ARCHES.values(), ids=lambda arch: arch.name)
def test_profiles(arch: Arch) -> None:
    default, fast = (arch.command_line(name) for name in PROFILES)
    assert default == f"console={arch.on(None).serial.name} {arch.cmdline}"
    assert fast.startswith(f"{default} cryptomgr.notests ")
    assert "mitigations=" not in fast  # it costs more than it saves
    assert "quiet" not in fast  # the log tells of a boot that fails
    assert "pci=" not in fast  # x86: reserved ranges are missing from /proc/iomem then
    assert "ipv6." not in fast  # with it kernels crash that use a bridge or a tunnel
    assert (" fw_devlink=off " in fast) == arch.device_tree  # only there devices have an order
    initcalls = fast.rpartition("initcall_blacklist=")[2].split(",")
    assert len(set(initcalls)) == len(initcalls)
    assert len(fast) < 600  # riscv64 kernels read 1024 bytes, with the proof's words and the user's


@pytest.mark.parametrize(
    ("arch", "board", "console", "ram"),
    [
        ("x86_64", None, "ttyS0", 0),
        ("aarch64", None, "ttyAMA0", GIB),
        ("aarch64", "xlnx-zcu102", "ttyPS0", 0),
        ("riscv64", None, "ttyS0", 2 * GIB),
    ],
)
def test_serial_port_and_ram_are_the_boards(
    arch: str, board: str | None, console: str, ram: int
) -> None:
    table = ARCHES[arch]
    assert table.command_line("default", board).split()[0] == f"console={console}"
    assert table.ram_base(board) == ram


def test_quirk_of_cmpxchg16b_ends_with_qemu_10() -> None:
    (quirk,) = X86.quirks
    assert "cmpxchg16b" in quirk.reason
    assert quirk.applies((7, 2, 22))
    assert quirk.applies((9, 99, 99))
    assert not quirk.applies((10, 0, 0))
    assert ARM64.quirks == ()


@pytest.mark.parametrize(
    ("cpus", "version", "release", "applies"),
    [
        (2, (7, 2, 22), "6.1.0-50-cloud-amd64", True),
        (2, (9, 99, 99), "6.11.3", True),
        (2, (7, 2, 22), None, True),
        (2, (7, 2, 22), "6.12.107", False),
        (2, (7, 2, 22), "7.3.4", False),
        (2, (10, 0, 0), "6.1.0", False),
        (1, (7, 2, 22), "6.1.0", False),
    ],
)
def test_quirk_of_several_cpus(
    cpus: int, version: tuple[int, int, int], release: str | None, applies: bool
) -> None:
    (quirk,) = X86.realtime_quirks
    assert quirk.applies(cpus, version, lambda: release) is applies
    assert ARM64.realtime_quirks == ()


@pytest.mark.parametrize(
    ("cpus", "version", "applies"),
    [(2, (7, 2, 22), True), (2, (9, 99, 99), True), (2, (10, 0, 0), False), (1, (7, 2, 22), False)],
)
def test_quirk_of_several_harts(cpus: int, version: tuple[int, int, int], applies: bool) -> None:
    """Whatever the kernel is: it is not asked."""
    (quirk,) = RISCV.realtime_quirks
    assert quirk.applies(cpus, version, pytest.fail) is applies


# --- RAM that a kernel shows -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arch", "banks", "wanted"),
    [
        ("aarch64", [(GIB, MIB)], [(GIB, MIB)]),
        ("riscv64", [(2 * GIB, 4 * MIB)], [(2 * GIB + 2 * MIB, 2 * MIB)]),
        ("riscv64", [(2 * GIB, MIB), (4 * GIB, MIB)], [(4 * GIB, MIB)]),
        ("x86_64", [(0, 16 * MIB)], [(0x1000, 0x9EC00), (MIB, 15 * MIB)]),
        ("x86_64", [(0, MIB)], [(0x1000, 0x9EC00)]),
        ("x86_64", [(0, 0x80000)], [(0x1000, 0x7F000)]),
        ("x86_64", [(0, 0x1000)], []),
        (
            "x86_64",
            [(0, 2 * GIB), (4 * GIB, GIB)],
            [(0x1000, 0x9EC00), (MIB, 2 * GIB - MIB), (4 * GIB, GIB)],
        ),
    ],
)
def test_system_ram(arch: str, banks: list[tuple[int, int]], wanted: list[tuple[int, int]]) -> None:
    found = ARCHES[arch].system_ram([Range(*bank) for bank in banks], None)
    assert found == tuple(Range(*part) for part in wanted)


def test_system_ram_without_acpi_tables() -> None:
    found = ARCHES["x86_64"].system_ram([Range(0, 16 * MIB)], Range(0x9E000, 0x1000))
    parts = [(0x1000, 0x9D000), (0x9F000, 0xC00), (MIB, 15 * MIB)]
    assert found == tuple(Range(*part) for part in parts)


# --- RAM that a machine does not leave alone ---------------------------------------------------


@pytest.mark.parametrize("memory", [4, 64, 129, 512, 1024, 1025, 4096])
def test_what_the_riscv_machine_puts_into_ram_is_reserved(memory: int) -> None:
    """Asked of a real one: `info roms`. It has all of them in RAM, and none elsewhere."""
    machine = Machine.with_defaults("riscv64", memory=memory * MIB)
    words = [*machine_words(machine), "-S", "-display", "none", "-monitor", "stdio"]
    run = subprocess.run(
        words, input="info roms\nquit\n", capture_output=True, text=True, check=True
    )
    found = re.findall(r"addr=(\w+) size=(\w+) mem=ram", run.stdout)
    roms = [Range(int(address, 16), int(size, 16)) for address, size in found]
    assert len(roms) == 2
    kept = [region.range for region in machine.reserved]
    assert [rom for rom in roms if not any(area.contains(rom) for area in kept)] == []


# --- what QEMU must be told ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "told"), [((7, 2, 22), False), ((8, 1, 5), False), ((8, 2, 0), True)]
)
def test_the_sound_of_zcu102_goes_nowhere(version: Version, told: bool) -> None:
    """An older QEMU has no such property; a newer one does not start without it."""
    words = ARCHES["aarch64"].boards["xlnx-zcu102"].words(version)
    assert words[:2] == ("-audiodev", "none,id=none")
    assert (words[2:] == ("-machine", "audiodev=none")) is told
