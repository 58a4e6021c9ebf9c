"""The zero page of x86 Linux, struct boot_params: written, and read back; the GDT of boot.rst.

Source: Documentation/arch/x86/boot.rst ("The Real-Mode Kernel Header") and zero-page.rst.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from bootproof.loader.address import Range
from bootproof.loader.arch.x86_64 import DescriptorTable, Segment, X86Registers
from bootproof.loader.boot_parameters import BootParameters, Read, decoded, text_at, values
from bootproof.loader.layout import Region
from bootproof.loader.memory import GuestMemory
from bootproof.loader.protocols import BootRequest, placed, region, x86
from bootproof.loader.protocols.e820 import all_ram, system_ram
from bootproof.loader.protocols.protocol import Pointer
from bootproof.loader.result import KernelLoaderResult
from bootproof.loader.setupheader import HDRS_MAGIC
from bootproof.loader.structures.setup_header import SetupHeader
from bootproof.loader.structures.zero_page import E820Entry, SetupData, ZeroPage

BOOT_CS: Final = 0x10
BOOT_DS: Final = 0x18
TYPE_OF_LOADER: Final = 0xFF  # "undefined": no number is assigned to us
WANTED: Final = x86.low_wanted("boot_params", ZeroPage.SIZE, ZeroPage.SIZE)

_MOST_ENTRIES: Final = 128
_NOT_FIELDS: Final = tuple(f"boot_params.{name}" for name in ("_", "hdr", "e820_"))
_E820_EXT: Final = 1  # of a node of setup_data
_MOST_NODES, _MOST_READ = 256, 1 << 16
_EXTENDED_TYPE: Final = 0xE  # type_of_loader: the number is in ext_loader_type


def write(
    memory: GuestMemory, regions: Sequence[Region], kernel: KernelLoaderResult, request: BootRequest
) -> int:
    """Writes command line, initrd, ACPI tables and zero page; gives the zero page's address."""
    rsdp, entries = x86.write_common(memory, regions, request)
    initrd = region(regions, "initrd") or Range(0, 0)
    header = replace(
        kernel.setup_header or x86.VMLINUX_HEADER,
        type_of_loader=TYPE_OF_LOADER,
        cmd_line_ptr=placed(regions, "cmdline").start,
        ramdisk_image=initrd.start,
        ramdisk_size=initrd.size,
    )
    address = placed(regions, "boot_params").start
    memory.write(address, boot_params(header, entries, rsdp))
    return address


def boot_params(header: SetupHeader, entries: Sequence[E820Entry], rsdp: int = 0) -> bytes:
    """The 4096 bytes of struct boot_params: setup header, E820 map, RSDP address; all else zero."""
    entries = entries[:_MOST_ENTRIES]
    page = ZeroPage(
        acpi_rsdp_addr=rsdp,
        e820_entries=len(entries),
        hdr=header.to_bytes(),
        e820_table=b"".join(entry.to_bytes() for entry in entries),
    )
    return page.to_bytes()


POINTER: Final = Pointer(
    "rsi",
    "boot_params",
    HDRS_MAGIC.to_bytes(4, "little"),
    ZeroPage.OFFSETS["hdr"] + SetupHeader.OFFSETS["header"],
)


def state(entry: int, address: int, code_attributes: int) -> X86Registers:
    """Registers with the segments of boot.rst, entered at `entry`; the GDT lies nowhere yet."""
    code, data = Segment(BOOT_CS, attributes=code_attributes), Segment(BOOT_DS)
    table = DescriptorTable(0, BOOT_DS + 7)
    return replace(X86Registers.with_segments(entry, code, data, table), rsi=address)


def with_gdt(
    memory: GuestMemory, regions: Sequence[Region], registers: X86Registers
) -> X86Registers:
    """Writes the GDT for the segments of `state`."""
    return replace(registers, gdtr=x86.write_gdt(memory, regions, [registers.cs, registers.ds]))


def read(address: int, read_: Read) -> BootParameters:
    """What the zero page at a guest-physical address tells."""
    raw = read_(address, ZeroPage.SIZE)
    if raw is None:
        return BootParameters()
    page = ZeroPage.from_bytes(raw)
    header = page.setup_header
    kind = header.type_of_loader
    if kind >> 4 == _EXTENDED_TYPE:
        kind = kind & 0xF | header.ext_loader_type + 0x10 << 4
    initrd = Range(
        header.ramdisk_image | page.ext_ramdisk_image << 32,
        header.ramdisk_size | page.ext_ramdisk_size << 32,
    )
    entries = (*page.memory_map, *_more_entries(header.setup_data, read_))
    return BootParameters(
        cmdline=decoded(text_at(read_, header.cmd_line_ptr | page.ext_cmd_line_ptr << 32)),
        initrd=initrd if initrd.size else None,
        memory_map=entries,
        ram=all_ram(entries),
        system_ram=system_ram(entries),
        bootloader_type=kind,
        unpacks=bool(header.payload_length),
        cpus=x86.cpus_told(read_, page.acpi_rsdp_addr),
    )


def _more_entries(address: int, read_: Read) -> Iterator[E820Entry]:
    """The memory map goes on in nodes of setup_data (boot.rst); `address` is that of the first."""
    for _ in range(_MOST_NODES):
        raw = read_(address, SetupData.SIZE) if address else None
        if raw is None:
            return
        node = SetupData.from_bytes(raw)
        if node.type == _E820_EXT:
            size = min(node.len, _MOST_READ)
            yield from E820Entry.all_from(read_(address + SetupData.SIZE, size) or b"")
        address = node.next


def fields(address: int, read_: Read) -> Iterator[tuple[str, str]]:
    """The fields of the zero page at a guest-physical address, but for those `read` gives."""
    raw = read_(address, ZeroPage.SIZE)
    if raw is None:
        return
    page = ZeroPage.from_bytes(raw)
    for name, value in values(page, "boot_params."):
        if not name.startswith(_NOT_FIELDS):
            yield name, value
    yield from values(page.setup_header, "boot_params.hdr.")
