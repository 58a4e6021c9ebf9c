"""The 64-bit and the 32-bit Linux protocol: zero page, GDT and page tables, read back by offset.

The offsets of struct boot_params are spelled out here once more from zero-page.rst and boot.rst.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest

from bootproof.loader import BzImage, Elf, KernelLoaderResult
from bootproof.loader.address import GIB, MIB, Range
from bootproof.loader.arch.x86_64 import X86Registers
from bootproof.loader.layout import LayoutError, Region
from bootproof.loader.memory import GuestMemory
from bootproof.loader.protocols import BootRequest, ProtocolError, linux32, linux64
from bootproof.loader.protocols.e820 import memory_map
from bootproof.loader.protocols.linux64 import identity_map
from bootproof.loader.protocols.protocol import Handover
from bootproof.loader.protocols.x86 import VMLINUX_HEADER
from bootproof.loader.protocols.zero_page import boot_params
from tests.builders import images

BOTH = [pytest.param(linux64, id="linux64"), pytest.param(linux32, id="linux32")]
INITRD = bytes(range(256)) * 32
VMLINUX = images.elf(images.load(16 * MIB, b"\xf4" * 0x3000, memsz=0x8000))
SMALL = [(0, 64 * MIB)]
LARGE = [(0, 2 * GIB), (4 * GIB, 3 * GIB)]


def u8(page: bytes, offset: int) -> int:
    return page[offset]


def u16(page: bytes, offset: int) -> int:
    return int.from_bytes(page[offset : offset + 2], "little")


def u32(page: bytes, offset: int) -> int:
    return int.from_bytes(page[offset : offset + 4], "little")


def u64(page: bytes, offset: int) -> int:
    return int.from_bytes(page[offset : offset + 8], "little")


class Guest:
    """A kernel, loaded and handed over in memory of its own."""

    def __init__(
        self,
        protocol: ModuleType,
        banks: list[tuple[int, int]],
        kernel: bytes,
        request: BootRequest,
        offset: int | None = None,
    ) -> None:
        loader = Elf() if kernel.startswith(b"\x7fELF") else BzImage()
        self.memory = GuestMemory(banks)
        self.kernel: KernelLoaderResult = loader.load(self.memory, kernel, kernel_offset=offset)
        self.handover: Handover = protocol.configure(self.memory, self.kernel, request)
        assert isinstance(self.handover.registers, X86Registers)
        self.cpu: X86Registers = self.handover.registers

    @property
    def zero_page(self) -> bytes:
        return self.memory.read(self.cpu.rsi, 4096)

    @property
    def regions(self) -> dict[str, Range]:
        return {region.name: region.range for region in self.handover.regions}

    def cmdline(self) -> bytes:
        return self.memory.read(u32(self.zero_page, 0x228), 2048).partition(b"\0")[0]

    def e820(self) -> list[tuple[int, int, int]]:
        page = self.zero_page
        return [struct.unpack_from("<QQI", page, 0x2D0 + 20 * i) for i in range(u8(page, 0x1E8))]


# --- the zero page -----------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", BOTH)
def test_zero_page_of_a_vmlinux_that_has_none(protocol: ModuleType) -> None:
    kernel = bzimage() if protocol is linux32 else VMLINUX
    guest = Guest(protocol, SMALL, kernel, BootRequest(b"quiet nokaslr", INITRD))
    page = guest.zero_page
    assert u16(page, 0x1FE) == 0xAA55  # boot_flag
    assert page[0x202:0x206] == b"HdrS"
    assert u8(page, 0x210) == 0xFF  # type_of_loader
    assert u8(page, 0x211) & 1  # loadflags: LOADED_HIGH
    assert (u32(page, 0x218), u32(page, 0x21C)) == (64 * MIB - len(INITRD), len(INITRD))
    assert guest.memory.read(u32(page, 0x218), len(INITRD)) == INITRD
    assert guest.cmdline() == b"quiet nokaslr"
    assert u32(page, 0xC0) == u32(page, 0xC4) == u32(page, 0xC8) == 0  # ext_* : all below 4 GiB
    assert guest.e820() == [
        (0, 0x9FC00, 1),
        (0x9FC00, 0x60400, 2),
        (MIB, 63 * MIB, 1),
    ]


def bzimage(**fields: int) -> bytes:
    return images.bzimage(b"\xf4" * 0x1000, **fields)


def test_vmlinux_is_booted_with_the_fields_of_protocol_2_12() -> None:
    page = boot_params(VMLINUX_HEADER, memory_map([Range(0, MIB)]))
    known = {
        0x1FE: 0xAA55,
        0x202: 0x53726448,
        0x206: 0x20C,
        0x211: 1,
        0x22C: 0x7FFFFFFF,
        0x230: 0x200000,
        0x238: 2047,
    }
    found = {
        0x1FE: u16(page, 0x1FE),
        0x202: u32(page, 0x202),
        0x206: u16(page, 0x206),
        0x211: u8(page, 0x211),
        0x22C: u32(page, 0x22C),
        0x230: u32(page, 0x230),
        0x238: u32(page, 0x238),
    }
    assert found == known
    for offset, size in ((0x1FE, 2), (0x202, 4), (0x206, 2), (0x211, 1), (0x22C, 16)):
        page = page[:offset] + bytes(size) + page[offset + size :]
    assert not any(page[:0x1E8]) and not any(page[0x1E9:0x2D0])


def test_setup_header_of_a_bzimage_is_kept_but_for_our_fields() -> None:
    """Byte for byte: type_of_loader, ramdisk, cmd_line_ptr and code32_start are the loader's."""
    file = bzimage(payload_offset=0x11, payload_length=0x22, handover_offset=0x33)
    guest = Guest(linux64, SMALL, file, BootRequest(b"x", INITRD), offset=0x1234000)
    page = guest.zero_page
    ours = {0x210: 1, 0x214: 4, 0x218: 8, 0x228: 4}
    for offset in range(0x1F1, 0x26C):
        if not any(start <= offset < start + size for start, size in ours.items()):
            assert page[offset] == file[offset], hex(offset)
    assert u32(page, 0x214) == 0x1234000
    assert not any(page[0x26C:0x2D0])


@pytest.mark.parametrize("protocol", BOTH)
def test_without_an_initrd_there_is_none(protocol: ModuleType) -> None:
    guest = Guest(protocol, SMALL, bzimage(), BootRequest(b""))
    assert (u32(guest.zero_page, 0x218), u32(guest.zero_page, 0x21C)) == (0, 0)
    assert guest.cmdline() == b""
    assert "initrd" not in guest.regions


def test_e820_of_two_banks() -> None:
    guest = Guest(linux64, LARGE, VMLINUX, BootRequest(b"x", INITRD))
    assert guest.e820() == [
        (0, 0x9FC00, 1),
        (0x9FC00, 0x60400, 2),
        (MIB, 2 * GIB - MIB, 1),
        (4 * GIB, 3 * GIB, 1),
    ]
    # An initrd must lie where the kernel of that protocol version can reach it.
    assert u32(guest.zero_page, 0x218) == 2 * GIB - len(INITRD)


def test_not_more_than_128_entries() -> None:
    banks = [Range(i * 2 * MIB, MIB) for i in range(1, 200)]
    assert boot_params(VMLINUX_HEADER, memory_map(banks))[0x1E8] == 128


# --- placement ---------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", BOTH)
def test_pieces_lie_apart_from_each_other_and_from_the_kernels_footprint(
    protocol: ModuleType,
) -> None:
    request = BootRequest(b"x" * 2047, INITRD, reserved=(Region("mine", Range(0x1000, 0x4000)),))
    guest = Guest(protocol, SMALL, bzimage(), request)
    pieces = sorted(guest.regions.values())
    assert not any(a.overlaps(b) for a, b in pairwise(pieces))
    assert guest.regions["kernel"] == guest.kernel.footprint
    for name, piece in guest.regions.items():
        if name in ("kernel", "initrd"):
            assert piece.start >= MIB
        else:
            assert piece.start >= 0x5000 and piece.end <= 0x9FC00


def test_initrd_stays_out_of_the_decompressors_room() -> None:
    """init_size of a bzImage reaches far beyond its file."""
    kernel = bzimage(init_size=40 * MIB, pref_address=16 * MIB)
    guest = Guest(linux64, SMALL, kernel, BootRequest(b"", bytes(6 * MIB)))
    assert guest.regions["kernel"].end == 56 * MIB
    assert guest.regions["initrd"] == Range(58 * MIB, 6 * MIB)


@pytest.mark.parametrize(
    ("limit", "end"),
    [
        (0x37FFFFFF, 0x38000000),
        (0x7FFFFFFF, 2 * GIB),
        (0xFFFFFFFF, 2 * GIB),
        (0x2000FFE, 0x2000000),
    ],
)
def test_initrd_lies_below_the_address_the_kernel_names(limit: int, end: int) -> None:
    kernel = bzimage(initrd_addr_max=limit)
    guest = Guest(linux64, LARGE, kernel, BootRequest(b"", INITRD))
    assert guest.regions["initrd"].end == end


def test_initrd_of_an_old_protocol() -> None:
    """Before 2.03 there is no initrd_addr_max: what stands there is something else."""
    kernel = bzimage(version=0x202, initrd_addr_max=0xFFFFFFFF, xloadflags=0)
    guest = Guest(linux32, LARGE, kernel, BootRequest(b"", INITRD))
    assert guest.regions["initrd"].end == 0x38000000


# --- command lines -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "limit"),
    [
        (VMLINUX, 2047),
        (bzimage(cmdline_size=100), 100),
        (bzimage(version=0x205, cmdline_size=9999, xloadflags=0), 255),
    ],
)
def test_command_line_as_long_as_the_kernel_takes(kernel: bytes, limit: int) -> None:
    protocol = linux64 if kernel is VMLINUX else linux32
    guest = Guest(protocol, SMALL, kernel, BootRequest(b"x" * limit))
    assert guest.cmdline() == b"x" * limit
    with pytest.raises(ProtocolError) as refused:
        Guest(protocol, SMALL, kernel, BootRequest(b"x" * (limit + 1)))
    assert str(refused.value) == (
        f"the command line has {limit + 1} bytes but the kernel takes at most {limit}"
    )


@pytest.mark.parametrize("protocol", BOTH)
def test_command_line_is_ended_in_ram_that_was_used_before(protocol: ModuleType) -> None:
    with GuestMemory(SMALL) as memory:
        memory.fill(0x1000, 0x90000, 0xFF)
        kernel = BzImage().load(memory, bzimage())
        registers = protocol.configure(memory, kernel, BootRequest(b"quiet")).registers
        page = memory.read(registers.rsi, 4096)
        assert memory.read(u32(page, 0x228), 7) == b"quiet\0\xff"
        assert not any(page[:0x1E8])


@pytest.mark.parametrize("protocol", BOTH)
def test_command_line_with_a_nul_would_be_cut_by_the_kernel(protocol: ModuleType) -> None:
    with pytest.raises(ProtocolError, match="NUL"):
        Guest(protocol, SMALL, bzimage(), BootRequest(b"quiet\0 init=/bin/sh"))


# --- the CPU -----------------------------------------------------------------------------------


def test_registers_of_the_64_bit_protocol() -> None:
    guest = Guest(linux64, SMALL, VMLINUX, BootRequest(b"x"))
    r = guest.cpu
    assert r.rip == guest.kernel.entry_points["linux64"]
    assert r.long_mode
    assert (r.cr0, r.cr4, r.efer, r.rflags) == (0x80000011, 0x20, 0x500, 2)
    assert [r.cs.selector, r.ds.selector, r.es.selector, r.ss.selector] == [16, 24, 24, 24]
    others = (r.rax, r.rbx, r.rcx, r.rdx, r.rdi, r.rbp, r.rsp, r.r8, r.r15)
    assert not any(others)


def test_registers_of_the_32_bit_protocol() -> None:
    guest = Guest(linux32, SMALL, bzimage(), BootRequest(b"x"), offset=0x1100000)
    r = guest.cpu
    assert r.rip == 0x1100000
    assert not r.long_mode
    assert (r.cr0, r.cr3, r.cr4, r.efer, r.rflags) == (0x11, 0, 0, 0, 2)
    assert [r.cs.selector, r.ds.selector, r.es.selector, r.ss.selector] == [16, 24, 24, 24]
    assert (r.rbp, r.rdi, r.rbx) == (0, 0, 0)


@pytest.mark.parametrize("protocol", BOTH)
def test_gdt_in_ram_has_the_segments_of_the_cpu(protocol: ModuleType) -> None:
    guest = Guest(protocol, SMALL, bzimage(), BootRequest(b"x"))
    gdtr = guest.cpu.gdtr
    table = guest.memory.read(gdtr.base, gdtr.limit + 1)
    entries = struct.unpack(f"<{len(table) // 8}Q", table)
    code = 0x00AF9B000000FFFF if protocol is linux64 else 0x00CF9B000000FFFF
    assert entries == (0, 0, code, 0x00CF93000000FFFF)


# --- page tables -------------------------------------------------------------------------------


def walked(read: Callable[[int, int], bytes], cr3: int, address: int) -> int | None:
    """SDM vol. 3A 4.5.4, by hand: PML4, PDPT, page directory with 2 MiB pages; writable all."""
    pml4e = u64(read(cr3 + 8 * (address >> 39 & 511), 8), 0)
    if pml4e & 3 != 3:
        return None
    pdpte = u64(read((pml4e & ~0xFFF) + 8 * (address >> 30 & 511), 8), 0)
    if pdpte & 0x83 != 3:
        return None
    pde = u64(read((pdpte & ~0xFFF) + 8 * (address >> 21 & 511), 8), 0)
    if pde & 0x83 != 0x83:
        return None
    return (pde & ~0x1FFFFF) | address & 0x1FFFFF


@pytest.mark.parametrize(("banks", "gib"), [(SMALL, 4), ([(0, 3 * GIB)], 4), (LARGE, 7)])
def test_identity_map_reaches_all_ram_and_at_least_4_gib(
    banks: list[tuple[int, int]], gib: int
) -> None:
    guest = Guest(linux64, banks, VMLINUX, BootRequest(b"x"))
    for address in range(0, gib * GIB, 2 * MIB):
        assert walked(guest.memory.read, guest.cpu.cr3, address + 0x1234) == address + 0x1234
    assert walked(guest.memory.read, guest.cpu.cr3, gib * GIB) is None
    assert walked(guest.memory.read, guest.cpu.cr3, 512 * GIB) is None
    assert guest.regions["page tables"] == Range(guest.cpu.cr3, (2 + gib) * 4096)


def test_identity_map_at_another_place() -> None:
    tables = identity_map(0x40000, 512)
    assert len(tables) == 514 * 4096

    def read(address: int, size: int) -> bytes:
        return tables[address - 0x40000 : address - 0x40000 + size]

    assert walked(read, 0x40000, 512 * GIB - 1) == 512 * GIB - 1


# --- refusals ----------------------------------------------------------------------------------


def refused(protocol: ModuleType, kernel: bytes, request: BootRequest, **more: Any) -> str:
    """The refusal, after which memory is as the loader left it."""
    banks = more.pop("banks", SMALL)
    loader = Elf() if kernel.startswith(b"\x7fELF") else BzImage()
    with GuestMemory(banks) as memory:
        loaded = loader.load(memory, kernel, kernel_offset=more.pop("offset", None))
        before = {
            extent: memory.read(extent.start, extent.size) for extent in memory.data_extents()
        }
        with pytest.raises((LayoutError, ProtocolError)) as error:
            protocol.configure(memory, loaded, request)
        after = {extent: memory.read(extent.start, extent.size) for extent in memory.data_extents()}
    assert before == after
    return str(error.value)


@pytest.mark.parametrize("protocol", BOTH)
def test_initrd_too_large(protocol: ModuleType) -> None:
    text = refused(protocol, bzimage(), BootRequest(b"", bytes(63 * MIB)))
    assert text.startswith("no room for initrd: 63 MiB aligned to 0x1000 in 0x100000-0x3ffffff")


def test_kernel_that_needs_more_than_there_is() -> None:
    text = refused(linux64, bzimage(init_size=64 * MIB), BootRequest(b""))
    assert text == "kernel needs guest RAM 0x100000-0x4ffffff but RAM is 0x0-0x3ffffff"


def test_vmlinux_moved_by_an_odd_offset() -> None:
    text = refused(linux64, VMLINUX, BootRequest(b""), offset=MIB)
    assert text == (
        "a vmlinux runs only at a multiple of 2 MiB from where it was linked; nearest: 0x1200000"
    )


def test_unsafe_builds_what_is_refused() -> None:
    guest = Guest(linux64, SMALL, VMLINUX, BootRequest(b"", unsafe=True), offset=MIB)
    assert guest.cpu.rip == 17 * MIB
    guest = Guest(linux64, SMALL, bzimage(init_size=64 * MIB), BootRequest(b"", unsafe=True))
    assert guest.regions["kernel"].end == 80 * MIB


def test_entry_that_the_kernel_has_not_got() -> None:
    text = refused(linux64, bzimage(xloadflags=0), BootRequest(b""))
    assert text == "the kernel cannot be entered through linux64; it offers: linux32"
    text = refused(linux32, VMLINUX, BootRequest(b""))
    assert text == "the kernel cannot be entered through linux32; it offers: linux64"


# --- where a kernel may be -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("linked", "offset", "advice"),
    [
        (16 * MIB, None, None),
        (16 * MIB, 2 * MIB, None),
        (0x111_0000, None, None),  # it is where it was linked, wherever that is
        (0x111_0000, 4 * MIB, None),
        (16 * MIB, MIB, "nearest: 0x1200000"),
        (0x111_0000, MIB, "nearest: 0x1310000"),
    ],
)
def test_a_vmlinux_runs_at_a_multiple_of_2_mib_from_where_it_was_linked(
    linked: int, offset: int | None, advice: str | None
) -> None:
    kernel = images.elf(images.load(linked, b"\xf4" * 0x3000), entry=linked)
    if advice is None:
        assert Guest(linux64, SMALL, kernel, BootRequest(), offset).cpu.rip == linked + (
            offset or 0
        )
        return
    with pytest.raises(ProtocolError) as caught:
        Guest(linux64, SMALL, kernel, BootRequest(), offset)
    assert caught.value.advice == advice


def test_a_32_bit_entry_is_not_above_4_gib() -> None:
    """What is written there, no CPU could be entered with."""
    assert Guest(linux64, LARGE, bzimage(), BootRequest(), 5 * GIB).cpu.rip == 5 * GIB + 0x200
    with pytest.raises(ProtocolError, match="entry is at 0x140000000, but the CPU is in 32-bit"):
        Guest(linux32, LARGE, bzimage(), BootRequest(), 5 * GIB)
    unsafe = BootRequest(unsafe=True)
    with pytest.raises(ProtocolError, match="linux32 entry"):
        Guest(linux32, LARGE, bzimage(), unsafe, 5 * GIB)
