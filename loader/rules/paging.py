"""Page tables of x86 in long mode as the CPU walks them: what is mapped where, and what for.

Four or five levels, as CR4.LA57 says. Reads each table once; trusts nothing in it. Pure.

Source: Intel SDM vol. 3A, 4.5 (4-level and 5-level paging), 4.6 (access rights).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from bootproof.loader.address import Range
from bootproof.loader.arch.x86_64 import X86Registers
from bootproof.loader.boot_parameters import Read
from bootproof.loader.rules import Findings, documents, violation

_PRESENT, _WRITE, _USER, _LARGE = 1 << 0, 1 << 1, 1 << 2, 1 << 7
_NO_EXECUTE: Final = 1 << 63
_ADDRESS: Final = 0x000FFFFFFFFFF000
_TABLE: Final = 0x1000
_LEVELS: Final = {48: "PML5", 39: "PML4", 30: "PDPT", 21: "PD", 12: "PT"}
_WITH_LARGE_PAGES: Final = (30, 21)
_MOST_STEPS: Final = 1 << 18  # pages of one range that are looked at: 1 GiB of small ones
_MOST_TABLES: Final = 1 << 14

_CR0_WP: Final = 1 << 16
_CR4_LA57, _CR4_SMEP, _CR4_SMAP = 1 << 12, 1 << 20, 1 << 21
_EFER_NXE: Final = 1 << 11


@dataclass(frozen=True, slots=True)
class Mapped:
    """What a guest-linear address leads to; `size` is the page's, or what nothing is mapped in."""

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


@dataclass(slots=True)
class Walker:
    """The page tables that a CPU's registers lead to."""

    registers: X86Registers
    read: Read
    _tables: dict[int, bytes] = field(default_factory=dict)

    @property
    def levels(self) -> tuple[int, ...]:
        """How far each level's index is shifted, the highest first."""
        shifts = tuple(_LEVELS)
        return shifts if self.registers.cr4 & _CR4_LA57 else shifts[1:]

    def walk(self, address: int) -> Mapped:
        """Where a guest-linear address leads."""
        table, writable, user, executable = self.registers.cr3 & _ADDRESS, True, True, True
        for shift in self.levels:
            entry = self._entry(table, address >> shift & 0x1FF)
            if entry is None:
                what = f"the {_LEVELS[shift]} at {table:#x} is not in RAM"
                return Mapped(address, 1 << shift, None, what)
            at = f"{_LEVELS[shift]} entry at {table + 8 * (address >> shift & 0x1FF):#x}"
            if wrong := self._wrong(shift, entry):
                return Mapped(address, 1 << shift, None, f"the {at} is {entry:#x}: {wrong}")
            writable &= bool(entry & _WRITE)
            user &= bool(entry & _USER)
            executable &= not entry & _NO_EXECUTE
            table = entry & _ADDRESS
            if shift == 12 or entry & _LARGE:
                size = 1 << shift
                physical = table & ~(size - 1) | address & (size - 1)
                return Mapped(address, size, physical, "", writable, user, executable)
        raise AssertionError("the last level ends the walk")

    def _entry(self, table: int, index: int) -> int | None:
        if table not in self._tables:
            self._tables[table] = self.read(table, _TABLE) or b""
        entry = self._tables[table][8 * index : 8 * index + 8]
        return int.from_bytes(entry, "little") if entry else None

    def _wrong(self, shift: int, entry: int) -> str:
        """Why the CPU does not go on from an entry, which would be a page fault."""
        if not entry & _PRESENT:
            return "not present"
        if entry & _NO_EXECUTE and not self.registers.efer & _EFER_NXE:
            return "bit 63 is reserved while EFER.NXE is 0"
        if shift > 12 and entry & _LARGE:
            if shift not in _WITH_LARGE_PAGES:
                return "bit 7 is reserved here"
            if entry & _ADDRESS & ((1 << shift) - 1) & ~_TABLE:  # bit 12 is PAT
                return "the address of its page is not aligned"
        return ""

    def tables(self) -> tuple[Range, ...]:
        """The guest-physical pages of all tables, those that touch put together."""
        level, found = {self.registers.cr3 & _ADDRESS}, set[int]()
        for shift in self.levels:
            found |= level
            if shift == 12 or len(found) > _MOST_TABLES:
                break
            level = {place for table in level for place in self._below(table, shift)} - found
        return tuple(_joined(sorted(found)))

    def _below(self, table: int, shift: int) -> Iterator[int]:
        self._entry(table, 0)
        raw = self._tables[table]
        for at in range(0, len(raw), 8):
            if raw[at] & _PRESENT:
                entry = int.from_bytes(raw[at : at + 8], "little")
                if not (shift in _WITH_LARGE_PAGES and entry & _LARGE):
                    yield entry & _ADDRESS


def _joined(pages: Iterable[int]) -> Iterator[Range]:
    run: Range | None = None
    for page in pages:
        if run is not None and run.end == page:
            run = Range(run.start, run.size + _TABLE)
            continue
        if run is not None:
            yield run
        run = Range(page, _TABLE)
    if run is not None:
        yield run


@dataclass(frozen=True, slots=True)
class Wanted:
    """A range that has to be mapped to itself, and what for."""

    what: str
    range: Range
    written: bool = True


def check(walker: Walker, wanted: Iterable[Wanted]) -> Findings:
    """The first page of each range that is not mapped as the kernel needs it."""
    seen = set[str]()
    for want in wanted:
        found = next(_faults(walker, want), None)
        if found is not None and found[0] not in seen:
            seen.add(found[0])
            code, sentence, address, section = found
            yield violation(code, sentence, section, address=address)
    yield from _executable(walker)


def _faults(walker: Walker, want: Wanted) -> Iterator[tuple[str, str, int, str]]:
    r, address = walker.registers, want.range.start
    for _ in range(_MOST_STEPS):
        if address >= want.range.end:
            return
        page = walker.walk(address)
        if page.physical != address:
            to = f"nothing: {page.why}" if page.physical is None else f"{page.physical:#x}"
            what = f"{address:#x} ({want.what}) is mapped to {to}"
            yield "identity-map", what, address, documents.LINUX64
        elif want.written and r.cr0 & _CR0_WP and not page.writable:
            what = f"{address:#x} ({want.what}) is mapped read-only, and CR0.WP is set"
            yield "mapped-read-only", what, address, documents.PAGING
        elif page.user and r.cr4 & _CR4_SMAP:
            what = f"{address:#x} ({want.what}) is a user page, and CR4.SMAP is set"
            yield "mapped-for-users", what, address, documents.PAGING
        address = page.end


def _executable(walker: Walker) -> Findings:
    r = walker.registers
    page = walker.walk(r.rip)
    if page.physical is None:
        return  # said already
    if not page.executable:
        what = f"the page of the first instruction, {r.rip:#x}, is mapped as not executable"
        yield violation("mapped-no-execute", what, documents.PAGING, address=r.rip)
    if page.user and r.cr4 & _CR4_SMEP:
        what = f"the page of the first instruction, {r.rip:#x}, is a user page (CR4.SMEP is set)"
        yield violation("mapped-for-users", what, documents.PAGING, address=r.rip)
