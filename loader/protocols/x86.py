"""What the boot protocols of x86 share: where pieces may lie, command line, GDT, ACPI tables.

Source: Documentation/arch/x86/boot.rst ("The Real-Mode Kernel Header").
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from bootproof.loader.address import PAGE, U32_MAX, Range
from bootproof.loader.arch.x86_64 import DescriptorTable, Segment
from bootproof.loader.boot_parameters import Read
from bootproof.loader.layout import Region, Wanted, check_inside, place
from bootproof.loader.memory import GuestMemory
from bootproof.loader.protocols import (
    BootRequest,
    ProtocolError,
    acpi,
    check_cmdline,
    e820,
    placed,
    region,
)
from bootproof.loader.result import KernelLoaderResult
from bootproof.loader.setupheader import HDRS_MAGIC, LOADED_HIGH, PROTOCOL_2_12
from bootproof.loader.structures.setup_header import SetupHeader
from bootproof.loader.structures.zero_page import E820Entry

VMLINUX_ALIGNMENT: Final = 0x200000
# What a loader makes up for a vmlinux, which has no setup header (boot.rst, protocol 2.12).
VMLINUX_HEADER: Final = SetupHeader(
    boot_flag=0xAA55,
    header=HDRS_MAGIC,
    version=PROTOCOL_2_12,
    loadflags=LOADED_HIGH,
    initrd_addr_max=0x7FFFFFFF,
    kernel_alignment=VMLINUX_ALIGNMENT,
    cmdline_size=2047,
)

_LOW: Final = Range.between(e820.FIRST_PAGE.end, e820.EBDA_START)


def plan(
    ram: Sequence[Range], kernel: KernelLoaderResult, request: BootRequest, wanted: Sequence[Wanted]
) -> list[Region]:
    """Kernel, GDT, `wanted`, ACPI tables if they are needed, command line, initrd.

    Raises LayoutError, ProtocolError.
    """
    header = kernel.setup_header or VMLINUX_HEADER
    check_cmdline(request.cmdline, cmdline_limit(header))
    kernel_region = Region("kernel", kernel.footprint)
    if not request.unsafe:
        check_inside(ram, kernel_region)
        _check_alignment(kernel)
    taken = [
        kernel_region,
        Region("first page", e820.FIRST_PAGE),
        Region("legacy hole", e820.LEGACY_HOLE),
        *request.reserved,
    ]
    pieces = [
        low_wanted("gdt", 0x40, 16),
        *wanted,
        *_acpi_wanted(request),
        Wanted("cmdline", len(request.cmdline) + 1, 16, _LOW),
    ]
    if request.initrd is not None:
        end = min(initrd_addr_max(header) + 1, max(bank.end for bank in ram))
        window = Range.between(e820.HIGH_MEMORY, max(end, e820.HIGH_MEMORY))
        pieces.append(Wanted("initrd", len(request.initrd), PAGE, window, high=True))
    return [kernel_region, *place(ram, taken, pieces)]


def _acpi_wanted(request: BootRequest) -> list[Wanted]:
    """One CPU is found without tables; more than one are not: Linux looks in the MADT for them."""
    if request.cpus == 1:
        return []
    if request.cpus > acpi.MOST_CPUS:
        what = f"{request.cpus} CPUs, but ACPI's local APIC entries hold at most {acpi.MOST_CPUS}"
        raise ProtocolError(what, field="cpus", value=request.cpus, limit=acpi.MOST_CPUS)
    return [Wanted("acpi", acpi.size(request.cpus), PAGE, _LOW, high=True)]


def write_common(
    memory: GuestMemory, regions: Sequence[Region], request: BootRequest
) -> tuple[int, tuple[E820Entry, ...]]:
    """Writes command line, initrd and ACPI tables.

    Gives the RSDP's guest-physical address, 0 without tables, and the memory map to be told.
    """
    memory.write(placed(regions, "cmdline").start, request.cmdline + b"\0")
    if request.initrd is not None:
        memory.write(placed(regions, "initrd").start, request.initrd)
    tables = region(regions, "acpi")
    if tables is not None:
        memory.write(tables.start, acpi.tables(tables.start, request.cpus))
    entries = e820.memory_map([bank.range for bank in memory.banks], tables)
    return tables.start if tables else 0, entries


def low_wanted(name: str, size: int, alignment: int) -> Wanted:
    """A piece below the EBDA, where every x86 machine has RAM."""
    return Wanted(name, size, alignment, _LOW)


def cmdline_limit(header: SetupHeader) -> int:
    """Bytes of command line without the NUL (boot.rst: cmdline_size; 255 before 2.06)."""
    return header.cmdline_size if header.version >= 0x0206 else 255


def initrd_addr_max(header: SetupHeader) -> int:
    """Highest guest-physical byte the initrd may use (boot.rst: 0x37ffffff before 2.03)."""
    return header.initrd_addr_max if header.version >= 0x0203 else 0x37FFFFFF


def write_gdt(
    memory: GuestMemory, regions: Sequence[Region], segments: Sequence[Segment]
) -> DescriptorTable:
    """Writes a GDT in which each of `segments` has its descriptor; gives the GDTR for it."""
    address = placed(regions, "gdt").start
    count = max(segment.selector >> 3 for segment in segments) + 1
    entries = [0] * count
    for segment in segments:
        entries[segment.selector >> 3] = segment.descriptor()
    memory.write(address, struct.pack(f"<{count}Q", *entries))
    return DescriptorTable(address, count * 8 - 1)


def _check_alignment(kernel: KernelLoaderResult) -> None:
    """Raises ProtocolError for a vmlinux moved by something else than a multiple of 2 MiB.

    linux-loader accepts it, and the guest then hangs without a word: the kernel's first page tables
    have 2 MiB pages, and it stops when the difference to its link address does not fit them
    (arch/x86: __startup_64).
    """
    start, over = kernel.footprint.start, kernel.moved_by % VMLINUX_ALIGNMENT
    if over:
        what = "a vmlinux runs only at a multiple of 2 MiB from where it was linked"
        nearest = f"nearest: {start - over + VMLINUX_ALIGNMENT:#x}"
        raise ProtocolError(what, field="load address", value=hex(start), advice=nearest)


def below_4_gib(protocol: str, entry: int) -> int:
    """The entry of a protocol that enters the kernel in 32-bit mode.

    Raises ProtocolError for one that no such CPU can be at.
    """
    if entry > U32_MAX:
        raise ProtocolError(
            f"the {protocol} entry is at {entry:#x}, but the CPU is in 32-bit mode there",
            field="entry",
            value=entry,
            limit=U32_MAX,
            advice="load the kernel below 4 GiB (--offset), or enter it through linux64",
        )
    return entry


def cpus_told(read: Read, rsdp: int) -> tuple[int, ...]:
    """The APIC ids that firmware tables tell of: those that a kernel finds which is told this RSDP
    address, or 0; none without tables.
    """
    from bootproof.loader.rules import firmware  # nothing is read back before a kernel is entered

    return firmware.look(read, rsdp).apic_ids
