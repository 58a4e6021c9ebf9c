"""The x86 memory map a kernel is told: E820 entries made from the banks of guest RAM.

Source: Documentation/arch/x86/zero-page.rst (e820_table) and ACPI 6.5 section 15 (types).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from bootproof.loader.address import Range

E820_RAM: Final = 1
E820_RESERVED: Final = 2
E820_ACPI: Final = 3

EBDA_START: Final = 0x9FC00
HIGH_MEMORY: Final = 0x100000
LEGACY_HOLE: Final = Range.between(0xA0000, HIGH_MEMORY)  # VGA memory and option ROMs


@dataclass(frozen=True, slots=True)
class E820Entry:
    range: Range
    type: int

    def pack(self) -> bytes:
        """struct boot_e820_entry: address, size, type, packed."""
        return struct.pack("<QQI", self.range.start, self.range.size, self.type)


def memory_map(ram: Sequence[Range], acpi: Range | None = None) -> tuple[E820Entry, ...]:
    """The map of a machine with these banks: low RAM, the reserved legacy area, the rest.

    `acpi` is the part of the RAM that holds ACPI tables: an entry of its own.
    """
    entries = tuple(_entries(ram))
    return entries if acpi is None else tuple(_with_acpi(entries, acpi))


def _with_acpi(entries: Iterable[E820Entry], acpi: Range) -> Iterable[E820Entry]:
    for entry in entries:
        whole = entry.range
        if not whole.contains(acpi):
            yield entry
            continue
        if acpi.start > whole.start:
            yield E820Entry(Range.between(whole.start, acpi.start), entry.type)
        yield E820Entry(acpi, E820_ACPI)
        if acpi.end < whole.end:
            yield E820Entry(Range.between(acpi.end, whole.end), entry.type)


def _entries(ram: Iterable[Range]) -> Iterable[E820Entry]:
    for bank in ram:
        if bank.start != 0:
            yield E820Entry(bank, E820_RAM)
            continue
        yield E820Entry(Range.between(0, min(EBDA_START, bank.end)), E820_RAM)
        if bank.end > EBDA_START:
            reserved_end = min(HIGH_MEMORY, bank.end)
            yield E820Entry(Range.between(EBDA_START, reserved_end), E820_RESERVED)
        if bank.end > HIGH_MEMORY:
            yield E820Entry(Range.between(HIGH_MEMORY, bank.end), E820_RAM)
