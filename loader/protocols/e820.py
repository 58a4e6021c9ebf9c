"""The x86 memory map a kernel is told: E820 entries made from the banks of guest RAM.

Source: Documentation/arch/x86/zero-page.rst (e820_table) and ACPI 6.5 section 15 (types).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from bootproof.loader.address import Range, without
from bootproof.loader.structures.zero_page import E820Entry

E820_RAM: Final = 1
E820_RESERVED: Final = 2
E820_ACPI: Final = 3

FIRST_PAGE: Final = Range(0, 0x1000)  # real-mode vectors; arch/x86/kernel/e820.c leaves it alone
EBDA_START: Final = 0x9FC00
HIGH_MEMORY: Final = 0x100000
LEGACY_HOLE: Final = Range.between(0xA0000, HIGH_MEMORY)  # VGA memory and option ROMs


def memory_map(banks: Sequence[Range], acpi: Range | None = None) -> tuple[E820Entry, ...]:
    """The map of a machine with these banks: low RAM, the reserved legacy area, the rest.

    `acpi` is the part of the RAM that holds ACPI tables: an entry of its own.
    """
    entries = tuple(_entries(banks))
    return entries if acpi is None else tuple(_with_acpi(entries, acpi))


def _with_acpi(entries: Iterable[E820Entry], acpi: Range) -> Iterable[E820Entry]:
    for entry in entries:
        if not entry.range.contains(acpi):
            yield entry
            continue
        parts = [(part, entry.type) for part in without(entry.range, [acpi])]
        yield from (_entry(*part) for part in sorted([*parts, (acpi, E820_ACPI)]))


def _entries(banks: Iterable[Range]) -> Iterable[E820Entry]:
    for bank in banks:
        if bank.start != 0:
            yield _entry(bank, E820_RAM)
            continue
        yield _entry(Range.between(0, min(EBDA_START, bank.end)), E820_RAM)
        if bank.end > EBDA_START:
            reserved_end = min(HIGH_MEMORY, bank.end)
            yield _entry(Range.between(EBDA_START, reserved_end), E820_RESERVED)
        if bank.end > HIGH_MEMORY:
            yield _entry(Range.between(HIGH_MEMORY, bank.end), E820_RAM)


def _entry(place: Range, kind: int) -> E820Entry:
    return E820Entry(place.start, place.size, kind)


def all_ram(entries: Iterable[E820Entry]) -> tuple[Range, ...]:
    """All that a memory map calls RAM, in order."""
    return tuple(sorted(entry.range for entry in entries if entry.type == E820_RAM and entry.size))


def system_ram(entries: Iterable[E820Entry]) -> tuple[Range, ...]:
    """RAM as x86 kernels take it: without page 0, what lies below 1 MiB for VGA and ROMs, and what
    an entry of another type says as well (arch/x86/kernel/e820.c, e820__update_table).
    """
    entries = list(entries)
    holes = [FIRST_PAGE, LEGACY_HOLE, *(e.range for e in entries if e.type != E820_RAM)]
    return tuple(sorted(part for area in all_ram(entries) for part in without(area, holes)))
