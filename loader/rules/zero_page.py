"""What the zero page of x86 Linux tells, and everything that it leads to. Pure.

Source: Documentation/arch/x86/zero-page.rst and boot.rst ("The Real-Mode Kernel Header").
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.loader.address import Range
from bootproof.loader.arch.x86_64 import X86Registers
from bootproof.loader.boot_parameters import text_at
from bootproof.loader.rules import (
    Findings,
    Hardware,
    RuleFinding,
    documents,
    firmware,
    initrd,
    memory_map,
    pieces,
    setup_header,
    violation,
)
from bootproof.loader.rules.firmware import Firmware
from bootproof.loader.rules.memory_map import Map
from bootproof.loader.rules.pieces import INITRD, Piece
from bootproof.loader.rules.setup_header import Entered
from bootproof.loader.structures.zero_page import E820Entry, SetupData, ZeroPage

ROM: Final = Range.between(0xA0000, 0x100000)
_MOST_ENTRIES: Final = 128  # that e820_table has room for
_MOST_NODES: Final = 256
_E820_EXT: Final = 1
_MOST_READ: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Told:
    """A zero page that is in RAM, and what is read by way of it."""

    address: int
    page: ZeroPage
    entered: Entered
    firmware: Firmware
    # Without its NUL; None where the pointer leads to no text.
    cmdline: bytes | None

    @property
    def cmdline_ptr(self) -> int:
        return self.entered.header.cmd_line_ptr | self.page.ext_cmd_line_ptr << 32

    @property
    def initrd(self) -> Range:
        header, page = self.entered.header, self.page
        return Range(
            header.ramdisk_image | page.ext_ramdisk_image << 32,
            header.ramdisk_size | page.ext_ramdisk_size << 32,
        )

    def kernel(self, hardware: Hardware[X86Registers]) -> list[Piece]:
        """The memory that the kernel needs for itself."""
        needs = self.entered.needs
        says = ("init_size from where it unpacks itself to", f"{documents.HEADER}, init_size")
        return list(pieces.kernel(hardware, [(needs, *says)] if needs else []))


def look(hardware: Hardware[X86Registers], address: int, *, in_64_bits: bool) -> Told | None:
    """What the zero page at a guest-physical address tells; None when it is not in RAM."""
    raw = hardware.read(address, ZeroPage.SIZE)
    if raw is None:
        return None
    page = ZeroPage.from_bytes(raw)
    entered = Entered.at(page.setup_header, hardware.registers.rip, in_64_bits, hardware.read)
    cmdline = text_at(hardware.read, page.setup_header.cmd_line_ptr | page.ext_cmd_line_ptr << 32)
    tables = firmware.look(hardware.read, page.acpi_rsdp_addr)
    return Told(address, page, entered, tables, cmdline)


def missing(register: str, address: int) -> Findings:
    """For a zero page that is not in RAM."""
    what = f"{register} {address:#x} does not point to 4096 bytes of RAM"
    yield violation("zero-page", what, documents.LINUX64, address=address)


def check(
    hardware: Hardware[X86Registers], told: Told, register: str, others: list[Piece]
) -> Findings:
    """`others` are the pieces that the registers themselves lead to."""
    page, read = told.page, hardware.read
    chain = _setup_data(hardware, told)
    yield from setup_header.check(told.entered, page, told.cmdline)
    yield from _e820_count(told)
    if told.cmdline_ptr and told.cmdline is None:
        what = f"cmd_line_ptr {told.cmdline_ptr:#x} does not point to a string in RAM"
        section = f"{documents.HEADER}, cmd_line_ptr"
        yield violation("cmdline", what, section, address=told.cmdline_ptr)
    if told.initrd.size and hardware.in_ram(told.initrd):
        yield from initrd.check(read, told.initrd, "ramdisk_image")
    yield from chain.broken
    found = [*told.kernel(hardware), *_pieces(told, register), *chain.pieces, *others]
    yield from pieces.check(hardware, found)
    entries = (*page.memory_map, *chain.entries)
    if entries:
        e820 = Map(entries, "the E820 map", f"{documents.ZERO_PAGE}, e820_table", ROM)
        yield from memory_map.check(hardware, e820, found)
    yield from firmware.check(hardware, told.firmware)


def _e820_count(told: Told) -> Findings:
    count, section = told.page.e820_entries, f"{documents.ZERO_PAGE}, e820_entries"
    if not count or not any(told.page.e820_table[: E820Entry.SIZE]):
        what = f"the zero page at {told.address:#x} has no E820 map"
        yield violation("e820", what, section, address=told.address, value=count)
    elif count == 1:
        what = "the E820 map has one entry: of less than two, kernels before 7 take none"
        yield violation("map-count", what, section, value=count, limit=2)
    elif count > _MOST_ENTRIES:
        what = f"e820_entries is {count}, but e820_table has room for {_MOST_ENTRIES}"
        yield violation("map-count", what, section, value=count, limit=_MOST_ENTRIES)


def _pieces(told: Told, register: str) -> Iterator[Piece]:
    page = Range(told.address, ZeroPage.SIZE)
    yield Piece("boot_params", page, register, documents.LINUX64, "zero-page")
    if told.cmdline is not None and told.cmdline_ptr:
        place = Range(told.cmdline_ptr, len(told.cmdline) + 1)
        section = f"{documents.HEADER}, cmd_line_ptr"
        yield Piece("cmdline", place, "cmd_line_ptr", section, "cmdline")
    if told.initrd.size:
        section = f"{documents.HEADER}, ramdisk_image"
        yield Piece(INITRD, told.initrd, "ramdisk_image", section, "ramdisk")
    yield from told.firmware.pieces()


@dataclass(frozen=True, slots=True)
class _Chain:
    """The list of setup_data as far as it can be followed."""

    pieces: tuple[Piece, ...]
    # Of its nodes with more of the memory map.
    entries: tuple[E820Entry, ...]
    # Why it cannot be followed to its end.
    broken: tuple[RuleFinding, ...]


def _setup_data(hardware: Hardware[X86Registers], told: Told) -> _Chain:
    found, entries, broken = list[Piece](), list[E820Entry](), list[RuleFinding]()
    address, seen = told.entered.header.setup_data, set[int]()
    section = f"{documents.HEADER}, setup_data"
    while address:
        raw = hardware.read(address, SetupData.SIZE)
        if raw is None or address in seen or len(seen) >= _MOST_NODES:
            why = "is not in RAM" if raw is None else "is in it twice, or it has too many"
            what = f"the list of setup_data cannot be followed: the node at {address:#x} {why}"
            broken.append(violation("setup-data", what, section, address=address))
            break
        seen.add(address)
        node = SetupData.from_bytes(raw)
        place = Range(address, SetupData.SIZE + node.len)
        name = f"setup_data of type {node.type:#x}"
        found.append(Piece(name, place, "setup_data", section, "setup-data"))
        if node.type == _E820_EXT and node.len <= _MOST_READ:
            entries += E820Entry.all_from(
                hardware.read(place.start + SetupData.SIZE, node.len) or b""
            )
        address = node.next
    return _Chain(tuple(found), tuple(entries), tuple(broken))
