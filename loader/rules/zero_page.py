"""What the zero page of x86 Linux tells, and everything that it leads to. Pure.

Source: Documentation/arch/x86/zero-page.rst and boot.rst ("The Real-Mode Kernel Header").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.loader.address import Range
from bootproof.loader.arch.x86_64 import X86Registers
from bootproof.loader.boot_parameters import text_at
from bootproof.loader.rules import (
    Findings,
    Hardware,
    documents,
    efi,
    firmware,
    initrd,
    memory_map,
    pieces,
    setup_data,
    setup_header,
    tolerated,
    violation,
)
from bootproof.loader.rules.firmware import Firmware
from bootproof.loader.rules.memory_map import Map
from bootproof.loader.rules.pieces import INITRD, Piece
from bootproof.loader.rules.setup_data import Chain
from bootproof.loader.rules.setup_header import Entered
from bootproof.loader.structures.zero_page import E820Entry, ZeroPage

_ROM: Final = Range.between(0xA0000, 0x100000)
# Kernels keep off the first 64 KiB; how much they need is that of Debian's, 6.1 to 7.3.
_LOW: Final = Range.between(0x10000, 0xA0000)
_REAL_MODE: Final = 0x7000
_MOST_ENTRIES: Final = 128  # that e820_table has room for


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
    chain = setup_data.follow(hardware, told.entered.header.setup_data)
    yield from setup_header.check(told.entered, page, told.cmdline)
    yield from _e820_count(told)
    if told.cmdline_ptr and told.cmdline is None:
        what = f"cmd_line_ptr {told.cmdline_ptr:#x} does not point to a string in RAM"
        section = f"{documents.HEADER}, cmd_line_ptr"
        yield violation("cmdline", what, section, address=told.cmdline_ptr)
    if hardware.in_ram(told.initrd):
        yield from initrd.check(read, told.initrd, "ramdisk_image")
    yield from chain.broken
    yield from _blob(hardware, told, chain)
    tables = efi.look(page)
    yield from efi.check(read, tables)
    led_to = [*_pieces(told, register), *chain.pieces, *efi.pieces(tables)]
    found = [*told.kernel(hardware), *led_to, *others]
    yield from pieces.check(hardware, found)
    entries = (*page.memory_map, *chain.entries)
    if entries:
        e820 = as_kernels_see(entries, "the E820 map", f"{documents.ZERO_PAGE}, e820_table")
        yield from memory_map.check(hardware, e820, found)
    yield from firmware.check(hardware, told.firmware)


def as_kernels_see(entries: Sequence[E820Entry], name: str, section: str) -> Map:
    """A memory map of x86, whichever protocol tells of it."""
    return Map(entries, name, section, _ROM, _LOW, _REAL_MODE, copied=True)


def _e820_count(told: Told) -> Findings:
    count, section = told.page.e820_entries, f"{documents.ZERO_PAGE}, e820_entries"
    if not any(entry.size for entry in told.page.memory_map):
        what = f"the zero page at {told.address:#x} has no E820 map"
        yield violation("e820", what, section, address=told.address, value=count)
    elif count == 1:
        what = "the E820 map has one entry: of less than two, kernels before 7 take none"
        yield violation("map-count", what, section, value=count, limit=2)
    elif count > _MOST_ENTRIES:
        what = f"e820_entries is {count}, but e820_table has room for {_MOST_ENTRIES}"
        yield violation("map-count", what, section, value=count, limit=_MOST_ENTRIES)


def _blob(hardware: Hardware[X86Registers], told: Told, chain: Chain) -> Findings:
    """A kernel's own unpacking code clears the field, and looks for the node again."""
    by_field, is_packed = told.page.cc_blob_address, told.entered.is_bzimage
    where = "cc_blob_address", f"{documents.ZERO_PAGE}, cc_blob_address"
    yield from setup_data.blob(
        hardware.read, by_field, *where, tolerated if is_packed else violation
    )
    if is_packed or not by_field:
        where = "setup_data of type 0x7", f"{documents.HEADER}, setup_data"
        yield from setup_data.blob(hardware.read, chain.cc_blob, *where)


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
