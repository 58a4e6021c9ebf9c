"""The memory map that a kernel is told, against the machine's RAM and against what lies in it.

Takes E820 entries, whichever structure they came in; a device tree's memory nodes become such
entries. Where kernels are known to cope, a finding is tolerated. Pure.

Sources: ACPI Specification 6.5, section 15 (types, overlaps); the documents that the caller names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.loader.address import PAGE, U64_MAX, Range, align_down, align_up, joined, without
from bootproof.loader.arch import R
from bootproof.loader.rules import Findings, Hardware, acpi, documents, tolerated, violation
from bootproof.loader.rules.pieces import INITRD, KERNEL, Piece
from bootproof.loader.structures.zero_page import E820Entry

_RAM: Final = 1
_TYPES: Final = documents.acpi("15")


@dataclass(frozen=True, slots=True)
class Map:
    """A memory map as told: its entries, and the words for a finding."""

    entries: Sequence[E820Entry]
    name: str
    section: str
    # What is no RAM for a kernel although the machine may have some there.
    hole: Range = Range(0, 0)
    # Where kernels need RAM in one piece, and how many bytes.
    low: Range = Range(0, 0)
    low_size: int = 0
    # Kernels copy an initrd that lies outside of its RAM, where there is room above the hole.
    copied: bool = False


def check(hardware: Hardware[R], told: Map, pieces: Iterable[Piece]) -> Findings:
    """What is wrong with the map; `pieces` are what the kernel is pointed to."""
    yield from _entries(hardware, told)
    yield from _overlaps(told)
    pieces = list(pieces)
    if told.low_size:
        yield from _low_memory(told, pieces)
    yield from _pieces(hardware, told, pieces)
    yield from _untold(hardware, told)


def usable(entries: Iterable[E820Entry]) -> tuple[Range, ...]:
    """What is RAM where entries overlap: any other type comes before it."""
    others = [entry.range for entry in entries if entry.type != _RAM]
    found = joined(entry.range for entry in entries if entry.type == _RAM)
    return tuple(part for area in found for part in without(area, others))


def _entries(hardware: Hardware[R], told: Map) -> Findings:
    if not usable(told.entries):
        what = f"{told.name} tells of no RAM: none of its entries is of type {_RAM}"
        yield violation("map-without-ram", what, told.section, value=len(told.entries))
    empty = [number for number, entry in enumerate(told.entries) if not entry.size]
    if empty:
        more = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
        what = f"entry {empty[0]}{more} of {told.name} is empty"
        yield tolerated("map-empty-entry", what, told.section, value=len(empty))
    for number, entry in enumerate(told.entries):
        where = f"entry {number} of {told.name} ({entry.addr:#x}, {entry.size:#x} bytes)"
        if entry.addr + entry.size > U64_MAX:
            what = f"{where} does not end within 64 bits"
            yield violation("map-wraps", what, told.section, address=entry.addr, value=entry.size)
        elif entry.type == _RAM:
            yield from _no_ram(hardware, told, where, entry)


def _no_ram(hardware: Hardware[R], told: Map, where: str, entry: E820Entry) -> Findings:
    """RAM that the machine does not have: kernels use whole pages of it."""
    for part in without(entry.range, hardware.ram):
        whole = align_down(part.end, PAGE) > align_up(part.start, PAGE)
        what = f"{where} says that {part} is RAM, but it is not{hardware.ram_text}"
        grade = violation if whole else tolerated
        yield grade("map-no-ram", what, told.section, address=part.start, value=part.size)
    if entry.range.overlaps(told.hole):
        what = f"{where} has {told.hole} in it, which is for devices and ROM: kernels leave it out"
        yield tolerated("map-hole", what, told.section, address=told.hole.start)


def _overlaps(told: Map) -> Findings:
    entries = sorted((entry for entry in told.entries if entry.size), key=lambda e: e.addr)
    for left, right in pairwise(entries):
        if left.range.overlaps(right.range):
            what = (
                f"two entries of {told.name} overlap: {left.range} of type {left.type} and"
                f" {right.range} of type {right.type}"
            )
            yield tolerated("map-overlap", what, _TYPES, address=right.addr)


def _real_mode(told: Map) -> Range | None:
    """Where kernels put the code that CPUs begin with in real mode: as high as there is room."""
    for area in reversed(usable(told.entries)):
        start = align_up(max(area.start, told.low.start), PAGE)
        end = align_down(min(area.end, told.low.end), PAGE)
        if end - start >= told.low_size:
            return Range(end - told.low_size, told.low_size)
    return None


def _low_memory(told: Map, pieces: Sequence[Piece]) -> Findings:
    """Kernels put that code there before they know of ACPI tables, which RAM is no place for."""
    ram, place = usable(told.entries), _real_mode(told)
    if ram and place is None:
        what = f"{told.name} has no {told.low_size:#x} bytes of RAM in one piece in {told.low},"
        what += " where kernels put the code that CPUs begin with in real mode: they panic"
        yield violation("map-low", what, documents.REAL_MODE, limit=told.low_size)
    tables = [piece for piece in pieces if piece.code == acpi.CODE]
    late = (piece for piece in tables if piece.name not in acpi.READ_FIRST)
    for piece in (piece for piece in late if place and place.overlaps(piece.range)):
        what = (
            f"the {piece} lies in RAM of {told.name} where kernels put code for real mode, {place}"
        )
        yield violation("acpi-in-ram", what, documents.REAL_MODE, address=piece.range.start)
        return
    for piece in (p for p in tables if any(area.overlaps(p.range) for area in ram)):
        what = f"the {piece} lies in what {told.name} says is RAM like any other"
        yield tolerated("acpi-in-ram", what, _TYPES, address=piece.range.start)
        return


def _pieces(hardware: Hardware[R], told: Map, pieces: Sequence[Piece]) -> Findings:
    """The kernel and its initrd lie in RAM of the map; everything else in any of its entries.

    What is no RAM at all is said of the piece.
    """
    nowhere = without(Range(0, U64_MAX + 1), hardware.ram)
    ram = usable(told.entries)
    described = joined(entry.range for entry in told.entries)
    taken = [Range.between(0, told.hole.end), *(piece.range for piece in pieces)]
    room = max((part.size for area in ram for part in without(area, taken)), default=0)
    for piece in pieces:
        wants_ram = piece.name in (KERNEL, INITRD)
        missing = without(piece.range, [*(ram if wants_ram else described), *nowhere])
        if not missing:
            continue
        if wants_ram:
            what = f"the {piece} is not all RAM in {told.name}: {missing[0]} is not"
            copied = told.copied and piece.name == INITRD and piece.range.size <= room
            grade = tolerated if copied else violation
            yield grade("map-misses", what, told.section, address=missing[0].start)
        else:
            what = f"the {piece} lies where {told.name} has no entry: {missing[0]}"
            yield tolerated("map-misses", what, told.section, address=missing[0].start)


def _untold(hardware: Hardware[R], told: Map) -> Findings:
    """RAM of the machine, in whole pages, that the kernel will not know of."""
    described = [entry.range for entry in told.entries] + [told.hole]
    for bank in joined(hardware.ram):
        for part in without(bank, described):
            whole = align_down(part.end, PAGE) - align_up(part.start, PAGE)
            if whole > 0:
                what = f"{told.name} says nothing of the RAM at {part}"
                section = told.section
                yield tolerated("map-less", what, section, address=part.start, value=part.size)
