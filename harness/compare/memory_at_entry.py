"""What guest memory holds at a kernel's first instruction, so that two loaders can be compared.

Boot parameters by name as text, the memory map, and a checksum for each page of the kernel. How
they are read is the boot protocol's business; judges nothing.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import field
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.harness.compare import firmware_tables
from bootproof.harness.compare.firmware_tables import Table
from bootproof.harness.guest.memory_map import USABLE, MapEntry
from bootproof.loader.address import PAGE, Range
from bootproof.loader.arch import Registers
from bootproof.loader.boot_parameters import Memory, Read, reader
from bootproof.loader.protocols.e820 import E820_ACPI, E820_RAM, E820_RESERVED
from bootproof.loader.protocols.table import PROTOCOLS

_KINDS: Final = {E820_RAM: USABLE, E820_RESERVED: "reserved", E820_ACPI: "ACPI data", 4: "ACPI NVS"}


@dataclass(frozen=True, slots=True)
class MemoryAtEntry:
    """What was handed over in memory."""

    # By name, such as "cmdline" or "/chosen bootargs".
    values: Mapping[str, str] = field(default_factory=dict)
    map: tuple[MapEntry, ...] = ()
    # Where the kernel's file lies, and a checksum for each of its pages.
    kernel: Range | None = None
    pages: tuple[int, ...] = ()
    # What firmware has left for the kernel to find.
    tables: frozenset[Table] = frozenset()


def look(protocol: str, registers: Registers, ram: Memory, kernel: Range) -> MemoryAtEntry:
    """Everything the registers of `protocol` lead to; `kernel` is the guest-physical RAM in which
    the file's bytes were put. What is not in RAM is missing from the result.
    """
    read = reader(ram)
    told = PROTOCOLS[protocol].read(registers, read)
    texts = {"cmdline": told.cmdline or "", "initrd": digest(read, told.initrd)}
    return MemoryAtEntry(
        values=dict(PROTOCOLS[protocol].fields(registers, read)) | texts,
        map=tuple(
            MapEntry(entry.range, _KINDS.get(entry.type, f"type {entry.type}"))
            for entry in told.memory_map or ()
        ),
        kernel=kernel,
        pages=tuple(
            zlib.crc32(ram.read(address, min(PAGE, kernel.end - address)))
            for address in range(kernel.start, kernel.end, PAGE)
        ),
        tables=firmware_tables.left_in(read),
    )


def digest(read: Read, place: Range | None) -> str:
    """Size and the beginning of the SHA-256 of guest-physical memory, as text."""
    if place is None:
        return "none"
    data = read(place.start, place.size)
    if data is None:
        return f"{place.size} bytes outside of RAM"
    return f"{place.size} bytes, sha256 {hashlib.sha256(data).hexdigest()[:16]}"
