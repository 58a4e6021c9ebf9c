"""ACPI tables: read back by offset from the specification and by iasl; what becomes of broken ones.

The offsets are spelled out here once more from ACPI 6.5; iasl is ACPICA's own disassembler.
"""

from __future__ import annotations

import re
import struct
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from bootproof.loader import BzImage, Elf
from bootproof.loader.address import MIB, Range
from bootproof.loader.arch.x86_64 import X86Registers
from bootproof.loader.memory import GuestMemory
from bootproof.loader.protocols import (
    BootRequest,
    ProtocolError,
    acpi,
    linux32,
    linux64,
    pvh,
)
from bootproof.loader.protocols.e820 import memory_map
from bootproof.loader.protocols.table import boot_parameters
from tests.builders import images
from tests.builders.acpi import PLACE, split
from tests.builders.programs import host_program

VMLINUX = images.elf(
    images.load(16 * MIB, b"\xf4" * 0x3000), images.notes(images.pvh_entry(16 * MIB))
)
X86 = [linux64, linux32, pvh]


# --- the tables --------------------------------------------------------------------------------


def test_every_table_is_there_and_sums_up_to_zero() -> None:
    found = split(acpi.tables(PLACE, 2))
    assert set(found) == {"RSDP", "XSDT", "FACP", "FACS", "DSDT", "APIC"}
    assert sum(found["RSDP"][1][:20]) & 0xFF == 0  # section 5.2.5.3: the first 20 bytes
    for name, (_, table) in found.items():
        assert name == "FACS" or sum(table) & 0xFF == 0, name
    assert all(at % 64 == 0 for at, _ in found.values())


def test_rsdp() -> None:
    rsdp = acpi.tables(PLACE, 2)[:36]
    signature, _, _, revision, rsdt, length, xsdt = struct.unpack("<8sB6sBIIQ", rsdp[:32])
    assert (signature, revision, rsdt, length) == (b"RSD PTR ", 2, 0, 36)
    assert xsdt > PLACE


@pytest.mark.parametrize("cpus", [1, 2, 4, 255])
def test_madt_lists_every_cpu(cpus: int) -> None:
    tables = acpi.tables(PLACE, cpus)
    madt = split(tables)["APIC"][1]
    assert struct.unpack_from("<II", madt, 36) == (0xFEE00000, 1)
    entries, at = [], 44
    while at < len(madt):
        entries.append(madt[at : at + madt[at + 1]])
        at += madt[at + 1]
    local = [struct.unpack("<BBBBI", entry) for entry in entries if entry[0] == 0]
    assert local == [(0, 8, cpu, cpu, 1) for cpu in range(cpus)]
    others = [entry for entry in entries if entry[0] != 0]
    assert others == [
        struct.pack("<BBBBII", 1, 12, 0, 0, 0xFEC00000, 0),
        struct.pack("<BBBBIH", 2, 10, 0, 0, 2, 0),
        struct.pack("<BBBBIH", 2, 10, 0, 9, 9, 0xD),
    ]
    assert acpi.size(cpus) % 0x1000 == 0
    assert len(tables) <= acpi.size(cpus)


@pytest.mark.parametrize("cpus", [0, 256])
def test_number_of_cpus_that_no_table_holds(cpus: int) -> None:
    with pytest.raises(ValueError, match=f"{cpus} CPUs; the tables hold 1 to 255"):
        acpi.tables(PLACE, cpus)


def test_fadt_has_the_registers_that_are_required() -> None:
    """Section 4.8.3.1 and .2: status, enable, and control with SCI_EN, here in RAM."""
    tables = acpi.tables(PLACE, 2)
    fadt = split(tables)["FACP"][1]
    assert (len(fadt), fadt[8], fadt[131]) == (276, 6, 5)
    assert (fadt[88], fadt[89]) == (4, 2)
    (flags,) = struct.unpack_from("<I", fadt, 112)
    assert not flags & 1 << 20  # hardware-reduced: Linux would do without PIC and PIT
    event, control = (struct.unpack_from("<BBBBQ", fadt, offset) for offset in (148, 172))
    assert event[:4] == (0, 32, 0, 2)
    assert control[:4] == (0, 16, 0, 2)
    assert tables[event[4] - PLACE : event[4] - PLACE + 4] == bytes(4)
    assert tables[control[4] - PLACE : control[4] - PLACE + 2] == b"\1\0"
    assert not any(fadt[56:88])  # no I/O ports
    assert fadt[76:80] == fadt[208:220][4:8] == bytes(4)  # no PM timer


def test_iasl_finds_nothing_wrong(tmp_path: Path) -> None:
    iasl = host_program("iasl")
    for name, (_, table) in split(acpi.tables(PLACE, 4)).items():
        if name == "RSDP":
            continue
        path = tmp_path / f"{name}.aml"
        path.write_bytes(table)
        run = subprocess.run([iasl, "-d", path], capture_output=True, text=True, check=True)
        source = path.with_suffix(".dsl").read_text()
        said = run.stdout + run.stderr + source
        assert not re.search(r"incorrect|invalid|warning|unknown|error", said, re.IGNORECASE), said
        assert f"[{name}]" in source or f'"{name}"' in source


# --- where they go -----------------------------------------------------------------------------


def guest(protocol: ModuleType, cpus: int, memory: GuestMemory) -> X86Registers:
    kernel = images.bzimage(b"\xf4" * 0x1000) if protocol is linux32 else VMLINUX
    loader = BzImage() if protocol is linux32 else Elf()
    request = BootRequest(b"quiet", cpus=cpus)
    registers = protocol.configure(memory, loader.load(memory, kernel), request).registers
    assert isinstance(registers, X86Registers)
    return registers


def told(protocol: ModuleType, registers: X86Registers, memory: GuestMemory) -> tuple[int, bytes]:
    """The RSDP's address and the memory map as the kernel is given them, by offset."""
    if protocol is pvh:
        info = memory.read(registers.rbx, 56)
        rsdp, memmap, entries = struct.unpack("<QQI", info[32:52])
        table = memory.read(memmap, 24 * entries)
        rows = [table[at : at + 20] for at in range(0, len(table), 24)]
        return rsdp, b"".join(rows)
    page = memory.read(registers.rsi, 4096)
    return int.from_bytes(page[0x70:0x78], "little"), page[0x2D0 : 0x2D0 + 20 * page[0x1E8]]


@pytest.mark.parametrize("protocol", X86)
def test_the_kernel_is_told_where_they_are(protocol: ModuleType) -> None:
    with GuestMemory([(0, 64 * MIB)]) as memory:
        rsdp, table = told(protocol, guest(protocol, 3, memory), memory)
        assert memory.read(rsdp, 1024) == acpi.tables(rsdp, 3).ljust(1024, b"\0")
        assert list(struct.iter_unpack("<QQI", table)) == [
            (0, 0x9E000, 1),
            (0x9E000, 0x1000, 3),
            (0x9F000, 0xC00, 1),
            (0x9FC00, 0x60400, 2),
            (MIB, 63 * MIB, 1),
        ]


@pytest.mark.parametrize("protocol", X86)
def test_one_cpu_needs_none(protocol: ModuleType) -> None:
    with GuestMemory([(0, 64 * MIB)]) as memory:
        rsdp, table = told(protocol, guest(protocol, 1, memory), memory)
        assert rsdp == 0
        assert len(table) == 3 * 20


@pytest.mark.parametrize("protocol", X86)
def test_more_cpus_than_the_tables_hold(protocol: ModuleType) -> None:
    with (
        GuestMemory([(0, 64 * MIB)]) as memory,
        pytest.raises(ProtocolError, match="256 CPUs, but ACPI's local APIC entries hold at most"),
    ):
        guest(protocol, 256, memory)


@pytest.mark.parametrize(
    ("place", "left"),
    [
        ((0, 0x1000), [(0x1000, 0x9EC00)]),
        ((0x9EC00, 0x1000), [(0, 0x9EC00)]),
        ((0x8000, 0x1000), [(0, 0x8000), (0x9000, 0x96C00)]),
    ],
)
def test_memory_map_at_the_edges(place: tuple[int, int], left: list[tuple[int, int]]) -> None:
    entries = memory_map([Range(0, 64 * MIB)], Range(*place))
    by_type = [(e.type, e.range.start, e.range.size) for e in entries if e.range.end < 0x9FC01]
    assert sorted(by_type) == sorted([(3, *place), *((1, *part) for part in left)])


@pytest.mark.parametrize("protocol", X86)
def test_cpus_are_read_back(protocol: ModuleType) -> None:
    for cpus, wanted in ((1, ()), (4, (0, 1, 2, 3))):
        with GuestMemory([(0, 64 * MIB)]) as memory:
            registers = guest(protocol, cpus, memory)
            assert boot_parameters(protocol.NAME, registers, memory).cpus == wanted
