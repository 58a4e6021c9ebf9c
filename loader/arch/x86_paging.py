"""The page tables of 64-bit x86: where a linear address leads, and with which rights.

Four or five levels, as CR4.LA57 says. Reads each table once, and trusts nothing in it. Knows no CPU
state but what it is given.

Source: Intel SDM vol. 3A 4.5 (4-level and 5-level paging), 4.6 (rights).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.loader.arch import Read

CR4_LA57: Final = 1 << 12
EFER_NXE: Final = 1 << 11
ADDRESS: Final = 0x000FFFFFFFFFF000  # of the next table or page, in an entry and in CR3

_PRESENT, _WRITE, _USER, _LARGE, _NO_EXECUTE = 1 << 0, 1 << 1, 1 << 2, 1 << 7, 1 << 63
_PAT: Final = 1 << 12  # of a large page's entry
_INDEX: Final = 0x1FF
_TABLE: Final = 0x1000
_NAMES: Final = {1: "PT", 2: "PD", 3: "PDPT", 4: "PML4", 5: "PML5"}
_WITH_LARGE_PAGES: Final = (2, 3)
_MOST_TABLES: Final = 1 << 13  # that are followed


@dataclass(frozen=True, slots=True)
class Mapped:
    """What a linear address leads to; `size` is the page's, or of all that is unmapped with it."""

    address: int
    size: int
    # Guest-physical; None where nothing is mapped, for the reason given.
    physical: int | None
    why: str = ""
    writable: bool = True
    user: bool = True
    executable: bool = True

    @property
    def end(self) -> int:
        """The first address of the next page."""
        return (self.address // self.size + 1) * self.size


def levels(cr4: int) -> int:
    """How many levels of tables a CPU in long mode walks."""
    return 5 if cr4 & CR4_LA57 else 4


def index(address: int, level: int) -> int:
    """Which entry of a table of `level` (1 is the lowest) a linear address selects."""
    return address >> (3 + 9 * level) & _INDEX


@dataclass(slots=True)
class Walker:
    """The tables that control registers lead to.

    `read(address, size)` gives guest-physical RAM, or None outside of it.
    """

    read: Read
    cr3: int
    cr4: int
    efer: int
    _tables: dict[int, bytes] = field(default_factory=dict)

    def walk(self, address: int) -> Mapped:
        """Where a linear address leads."""
        table, writable, user, executable = self.cr3 & ADDRESS, True, True, True
        for level in range(levels(self.cr4), 0, -1):
            size, name = 1 << 3 + 9 * level, _NAMES[level]
            raw = self._table(table)
            if not raw:
                return Mapped(address, size, None, f"the {name} at {table:#x} is not in RAM")
            at = 8 * index(address, level)
            entry = int.from_bytes(raw[at : at + 8], "little")
            if wrong := self._wrong(level, entry):
                why = f"the {name} entry at {table + at:#x} is {entry:#x}: {wrong}"
                return Mapped(address, size, None, why)
            writable &= bool(entry & _WRITE)
            user &= bool(entry & _USER)
            executable &= not entry & _NO_EXECUTE
            table = entry & ADDRESS
            if level == 1 or entry & _LARGE:
                physical = table & ~(size - 1) | address & (size - 1)
                return Mapped(address, size, physical, "", writable, user, executable)
        raise AssertionError("the lowest level ends the walk")

    def tables(self) -> Iterator[int]:
        """The guest-physical pages of all tables, level by level, each once.

        Each level is a set: tables may be shared, or point at themselves.
        """
        level, seen = {self.cr3 & ADDRESS}, set[int]()
        for number in range(levels(self.cr4), 0, -1):
            seen |= level
            yield from level
            if number == 1 or len(seen) > _MOST_TABLES:
                return
            level = {place for table in level for place in self._below(table, number)} - seen

    def _table(self, table: int) -> bytes:
        if table not in self._tables:
            self._tables[table] = self.read(table, _TABLE) or b""
        return self._tables[table]

    def _below(self, table: int, level: int) -> Iterator[int]:
        raw = self._table(table)
        for at in range(0, len(raw), 8):
            if raw[at] & _PRESENT and not (level in _WITH_LARGE_PAGES and raw[at] & _LARGE):
                yield int.from_bytes(raw[at : at + 8], "little") & ADDRESS

    def _wrong(self, level: int, entry: int) -> str:
        """Why the CPU does not go on from an entry, which would be a page fault."""
        if not entry & _PRESENT:
            return "not present"
        if entry & _NO_EXECUTE and not self.efer & EFER_NXE:
            return "bit 63 is reserved while EFER.NXE is 0"
        if level > 1 and entry & _LARGE:
            if level not in _WITH_LARGE_PAGES:
                return "bit 7 is reserved here"
            if entry & ADDRESS & ((1 << 3 + 9 * level) - 1) & ~_PAT:
                return "the address of its page is not aligned"
        return ""
