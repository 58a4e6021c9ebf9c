"""What the 64-bit and the 32-bit Linux boot protocol of x86 share: the zero page and the flat GDT.

Source: Documentation/arch/x86/boot.rst ("The Real-Mode Kernel Header", "32-bit Boot Protocol") and
zero-page.rst (offsets within struct boot_params).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from bootproof.loader.address import Range, align_up
from bootproof.loader.arch.x86_64 import DescriptorTable, Segment
from bootproof.loader.layout import Region, Wanted, check_inside, place
from bootproof.loader.memory import GuestMemory
from bootproof.loader.protocols import BootRequest, ProtocolError, acpi, check_cmdline, region
from bootproof.loader.protocols.e820 import (
    EBDA_START,
    HIGH_MEMORY,
    LEGACY_HOLE,
    E820Entry,
    memory_map,
)
from bootproof.loader.result import KernelLoaderResult, SetupHeader

BOOT_CS: Final = 0x10
BOOT_DS: Final = 0x18
TYPE_OF_LOADER: Final = 0xFF  # "undefined": no number is assigned to us
PAGE: Final = 0x1000

# What a vmlinux, which has no setup header of its own, is booted with (boot.rst, protocol 2.12).
VMLINUX_CMDLINE_SIZE: Final = 2047
VMLINUX_INITRD_ADDR_MAX: Final = 0x7FFFFFFF
VMLINUX_ALIGNMENT: Final = 0x200000

_LOADFLAGS_LOADED_HIGH: Final = 0x01
_ACPI_RSDP_ADDR: Final = 0x70
_SETUP_HEADER: Final = 0x1F1
E820_ENTRIES: Final = 0x1E8
RAMDISK_IMAGE: Final = 0x218
_E820_TABLE: Final = 0x2D0
_E820_MAX: Final = 128
_LOW: Final = Range.between(PAGE, EBDA_START)  # page 0 stays free: real-mode vectors, NULL


def plan(
    ram: Sequence[Range],
    kernel: KernelLoaderResult,
    request: BootRequest,
    wanted: Sequence[Wanted],
) -> list[Region]:
    """Kernel, GDT, `wanted`, ACPI tables if they are needed, command line, initrd.

    Raises LayoutError, ProtocolError.
    """
    header = kernel.setup_header
    check_cmdline(request.cmdline, cmdline_limit(header))
    kernel_region = Region("kernel", kernel.footprint)
    if not request.unsafe:
        check_inside(ram, kernel_region)
        _check_alignment(kernel)
    taken = [
        kernel_region,
        Region("first page", Range(0, PAGE)),
        Region("legacy hole", LEGACY_HOLE),
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
        window = Range.between(HIGH_MEMORY, max(end, HIGH_MEMORY))
        pieces.append(Wanted("initrd", len(request.initrd), PAGE, window, high=True))
    return [kernel_region, *place(ram, taken, pieces)]


def _acpi_wanted(request: BootRequest) -> list[Wanted]:
    """One CPU is found without tables; more than one are not: Linux looks in the MADT for them."""
    if request.cpus == 1:
        return []
    if request.cpus > acpi.MOST_CPUS:
        raise ProtocolError(
            f"{request.cpus} CPUs, but ACPI's local APIC entries hold at most {acpi.MOST_CPUS}",
            field="cpus",
            value=request.cpus,
            limit=acpi.MOST_CPUS,
        )
    return [Wanted("acpi", acpi.size(request.cpus), acpi.PAGE, _LOW, high=True)]


def write_acpi(memory: GuestMemory, regions: Sequence[Region], request: BootRequest) -> int:
    """Writes the ACPI tables; gives the guest-physical address of the RSDP, 0 without tables."""
    place_ = region(regions, "acpi")
    if place_ is None:
        return 0
    memory.write(place_.start, acpi.tables(place_.start, request.cpus))
    return place_.start


def zero_page_wanted() -> Wanted:
    return low_wanted("boot_params", PAGE, PAGE)


def low_wanted(name: str, size: int, alignment: int) -> Wanted:
    """A piece below the EBDA, where every x86 machine has RAM."""
    return Wanted(name, size, alignment, _LOW)


def write(
    memory: GuestMemory, regions: Sequence[Region], kernel: KernelLoaderResult, request: BootRequest
) -> int:
    """Writes command line, initrd and zero page; gives the guest-physical zero-page address."""
    cmdline, initrd = region(regions, "cmdline"), region(regions, "initrd")
    zero_page = region(regions, "boot_params")
    assert cmdline is not None and zero_page is not None
    memory.write(cmdline.start, request.cmdline + b"\0")
    if initrd is not None and request.initrd is not None:
        memory.write(initrd.start, request.initrd)
    header = replace(
        kernel.setup_header or vmlinux_setup_header(),
        type_of_loader=TYPE_OF_LOADER,
        cmd_line_ptr=cmdline.start,
        ramdisk_image=initrd.start if initrd else 0,
        ramdisk_size=initrd.size if initrd else 0,
    )
    rsdp = write_acpi(memory, regions, request)
    entries = memory_map([bank.range for bank in memory.banks], region(regions, "acpi"))
    memory.write(zero_page.start, boot_params(header, entries, rsdp))
    return zero_page.start


def boot_params(header: SetupHeader, memory_map_: Sequence[E820Entry], rsdp: int = 0) -> bytes:
    """The 4096 bytes of struct boot_params: setup header, E820 map, RSDP address; all else zero."""
    page = bytearray(PAGE)
    raw = header.to_bytes()
    page[_SETUP_HEADER : _SETUP_HEADER + len(raw)] = raw
    page[_ACPI_RSDP_ADDR : _ACPI_RSDP_ADDR + 8] = struct.pack("<Q", rsdp)
    entries = memory_map_[:_E820_MAX]
    page[E820_ENTRIES] = len(entries)
    table = b"".join(entry.pack() for entry in entries)
    page[_E820_TABLE : _E820_TABLE + len(table)] = table
    return bytes(page)


def vmlinux_setup_header() -> SetupHeader:
    """The setup header a loader makes up for a kernel without one (struct setup_header)."""
    return replace(
        SetupHeader.from_bytes(bytes(SetupHeader.SIZE)),
        boot_flag=0xAA55,
        header=0x53726448,  # "HdrS"
        version=0x020C,
        loadflags=_LOADFLAGS_LOADED_HIGH,
        initrd_addr_max=VMLINUX_INITRD_ADDR_MAX,
        kernel_alignment=VMLINUX_ALIGNMENT,
        cmdline_size=VMLINUX_CMDLINE_SIZE,
    )


def cmdline_limit(header: SetupHeader | None) -> int:
    """Bytes of command line without the NUL (boot.rst: cmdline_size; 255 before 2.06)."""
    if header is None:
        return VMLINUX_CMDLINE_SIZE
    return header.cmdline_size if header.version >= 0x0206 else 255


def initrd_addr_max(header: SetupHeader | None) -> int:
    """Highest guest-physical byte the initrd may use (boot.rst: 0x37ffffff before 2.03)."""
    if header is None:
        return VMLINUX_INITRD_ADDR_MAX
    return header.initrd_addr_max if header.version >= 0x0203 else 0x37FFFFFF


def write_gdt(
    memory: GuestMemory, regions: Sequence[Region], segments: Sequence[Segment]
) -> DescriptorTable:
    """Writes a GDT in which each of `segments` has its descriptor; gives the GDTR for it."""
    place_ = region(regions, "gdt")
    assert place_ is not None
    count = max(segment.selector >> 3 for segment in segments) + 1
    entries = [0] * count
    for segment in segments:
        entries[segment.selector >> 3] = segment.descriptor()
    memory.write(place_.start, struct.pack(f"<{count}Q", *entries))
    return DescriptorTable(place_.start, count * 8 - 1)


def _check_alignment(kernel: KernelLoaderResult) -> None:
    """Raises ProtocolError for a vmlinux moved by something else than a multiple of 2 MiB.

    linux-loader accepts it, and the guest then hangs without a word: the kernel's first page tables
    have 2 MiB pages, and it stops when the difference to its link address does not fit them
    (arch/x86: __startup_64).
    """
    if kernel.setup_header is None and kernel.footprint.start % VMLINUX_ALIGNMENT:
        raise ProtocolError(
            "a vmlinux runs only at a multiple of 2 MiB from where it was linked",
            field="load address",
            value=hex(kernel.footprint.start),
            advice=f"nearest: {align_up(kernel.footprint.start, VMLINUX_ALIGNMENT):#x}",
        )
