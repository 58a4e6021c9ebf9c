"""The page tables of 64-bit x86: where a linear address leads, and with which rights.

Source: Intel SDM vol. 3A 4.5 (4-level and 5-level paging), 4.6 (rights). Knows no CPU state but
what it is given, and trusts nothing that it reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bootproof.loader.address import Range
from bootproof.loader.arch import Read

CR4_LA57: Final = 1 << 12
ADDRESS: Final = 0x000FFFFFFFFFF000  # of the next table or page, in an entry and in CR3

_PRESENT, _WRITE, _LARGE, _NO_EXECUTE = 1 << 0, 1 << 1, 1 << 7, 1 << 63
_INDEX: Final = 0x1FF
_PAGE: Final = 0x1000


@dataclass(frozen=True, slots=True)
class Translation:
    """`physical` is where a linear address leads; `page` is the page it lies in."""

    physical: int
    page: Range
    writable: bool
    executable: bool


def levels(cr4: int) -> int:
    """How many levels of tables a CPU in long mode walks."""
    return 5 if cr4 & CR4_LA57 else 4


def index(address: int, level: int) -> int:
    """Which entry of a table of `level` (1 is the lowest) a linear address selects."""
    return address >> (3 + 9 * level) & _INDEX


def walk(read: Read, cr3: int, cr4: int, address: int) -> Translation | None:
    """What the tables at `cr3` make of a linear address; None where it is not mapped.

    `read(address, size)` gives guest-physical RAM, or None outside of it.
    """
    table, writable, executable = cr3 & ADDRESS, True, True
    for level in range(levels(cr4), 0, -1):
        raw = read(table + 8 * index(address, level), 8)
        entry = int.from_bytes(raw, "little") if raw else 0
        if not entry & _PRESENT:
            return None
        writable = writable and bool(entry & _WRITE)
        executable = executable and not entry & _NO_EXECUTE
        if level == 1 or (level <= 3 and entry & _LARGE):
            size = 1 << 3 + 9 * level
            base = entry & ADDRESS & ~(size - 1)
            inside = address & (size - 1)
            return Translation(base | inside, Range(base, size), writable, executable)
        table = entry & ADDRESS
    return None


def tables(read: Read, cr3: int, cr4: int) -> Iterator[int]:
    """The guest-physical pages of all tables below `cr3`, level by level.

    Each level is a set: tables may be shared, or point at themselves.
    """
    level = {cr3 & ADDRESS}
    for _ in range(levels(cr4)):
        yield from level
        following: set[int] = set()
        for table in level:
            raw = read(table, _PAGE) or b""
            entries = (int.from_bytes(raw[i : i + 8], "little") for i in range(0, len(raw), 8))
            following.update(
                entry & ADDRESS for entry in entries if entry & _PRESENT and not entry & _LARGE
            )
        level = following
