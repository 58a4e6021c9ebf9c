"""The PVH protocol: hvm_start_info and what hangs on it, read back by offset from start_info.h."""

from __future__ import annotations

import struct

import pytest

from bootproof.loader import Elf
from bootproof.loader.address import GIB, MIB, Range
from bootproof.loader.arch.x86_64 import Segment, X86Registers
from bootproof.loader.layout import Region
from bootproof.loader.memory import GuestMemory
from bootproof.loader.protocols import BootRequest, ProtocolError, pvh
from bootproof.loader.protocols.protocol import Handover
from tests.builders import images

ENTRY = 0x1000370
INITRD = bytes(range(256)) * 32
KERNEL = images.elf(images.load(16 * MIB, b"\xf4" * 0x3000), images.notes(images.pvh_entry(ENTRY)))
SMALL = [(0, 64 * MIB)]


def handed_over(
    memory: GuestMemory, request: BootRequest
) -> tuple[Handover, X86Registers, tuple[int, ...]]:
    """The hand-over, its registers, and the fields of struct hvm_start_info."""
    handover = pvh.configure(memory, Elf().load(memory, KERNEL), request)
    registers = handover.registers
    assert isinstance(registers, X86Registers)
    raw = memory.read(registers.rbx, 56)
    return handover, registers, struct.unpack("<IIIIQQQQII", raw)


def test_start_info() -> None:
    with GuestMemory(SMALL) as memory:
        handover, _, info = handed_over(memory, BootRequest(b"quiet nokaslr", INITRD))
        magic, version, flags, modules, modlist, cmdline, rsdp, memmap, entries, reserved = info
        assert (magic, version, flags, rsdp, reserved) == (0x336EC578, 1, 0, 0, 0)
        assert memory.read(cmdline, 14) == b"quiet nokaslr\0"
        assert modules == 1
        address, size, own_cmdline, zero = struct.unpack("<QQQQ", memory.read(modlist, 32))
        assert (size, own_cmdline, zero) == (len(INITRD), 0, 0)
        assert memory.read(address, size) == INITRD
        assert address == 64 * MIB - len(INITRD)
        table = [struct.unpack("<QQII", memory.read(memmap + 24 * i, 24)) for i in range(entries)]
        assert table == [
            (0, 0x9FC00, 1, 0),
            (0x9FC00, 0x60400, 2, 0),
            (MIB, 63 * MIB, 1, 0),
        ]
    names = {"kernel", "gdt", "start_info", "memmap", "modlist", "cmdline", "initrd"}
    assert {region.name for region in handover.regions} == names
    pieces = sorted(region.range for region in handover.regions)
    assert not any(a.overlaps(b) for a in pieces for b in pieces if a != b)


def test_without_an_initrd_there_is_no_module() -> None:
    with GuestMemory(SMALL) as memory:
        _, _, info = handed_over(memory, BootRequest(b""))
        assert (info[3], info[4]) == (0, 0)
        assert memory.read(info[5], 1) == b"\0"


def test_memory_map_of_two_banks() -> None:
    with GuestMemory([(0, 2 * GIB), (4 * GIB, GIB)]) as memory:
        _, _, info = handed_over(memory, BootRequest(b""))
        assert info[8] == 4
        last = struct.unpack("<QQII", memory.read(info[7] + 72, 24))
        assert last == (4 * GIB, GIB, 1, 0)


def test_registers() -> None:
    with GuestMemory(SMALL) as memory:
        _, r, _ = handed_over(memory, BootRequest(b"x"))
        assert r.rip == ENTRY
        assert (r.cr0, r.cr3, r.cr4, r.efer, r.rflags) == (0x11, 0, 0, 0, 2)
        for segment in (r.cs, r.ds, r.es, r.ss):
            assert (segment.base, segment.limit) == (0, 0xFFFFFFFF)
        assert r.tr == Segment(0x18, 0, 0x67, 0x8B)
        assert not any((r.rax, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp, r.rsp))
        table = memory.read(r.gdtr.base, r.gdtr.limit + 1)
        entries = struct.unpack(f"<{len(table) // 8}Q", table)
        assert entries == (0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x0000890000000067)


def test_reserved_ram_is_left_alone() -> None:
    reserved = (Region("somebody's", Range(0x1000, 0x8000)),)
    with GuestMemory(SMALL) as memory:
        handover, _, _ = handed_over(memory, BootRequest(b"x", INITRD, reserved=reserved))
        assert not any(region.range.overlaps(reserved[0].range) for region in handover.regions)
        assert not any(memory.read(0x1000, 0x8000))


@pytest.mark.parametrize(
    ("offset", "notes", "why"),
    [
        (0, True, "the capability is ignored because an offset was requested"),
        (2 * MIB, True, "the capability is ignored because an offset was requested"),
        (None, False, "the kernel has no PVH note"),
    ],
    ids=["0", "2M", "no note"],
)
def test_kernel_without_a_pvh_entry(offset: int | None, notes: bool, why: str) -> None:
    """None when an offset was asked for, even 0, or when there never was one."""
    kernel = KERNEL if notes else images.elf(images.load(16 * MIB, b"\xf4"))
    with GuestMemory(SMALL) as memory:
        loaded = Elf().load(memory, kernel, kernel_offset=offset)
        with pytest.raises(ProtocolError, match=f"no PVH entry: {why}"):
            pvh.configure(memory, loaded, BootRequest(b"x"))
