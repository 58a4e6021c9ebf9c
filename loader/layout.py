"""Where each piece goes in guest RAM.

Owns one algorithm: given RAM, what is taken and what is wanted, find a place for every piece or say
which one does not fit. It knows nothing of formats, protocols or architectures: those say what they
want through `Wanted`. All addresses are guest-physical.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from bootproof.dataclass import dataclass
from bootproof.loader.address import MIB, U64_MAX, Range, align_down, align_up, format_size
from bootproof.loader.errors import LoaderError


class LayoutError(LoaderError):
    """A piece that has no legal place in guest RAM."""

    code = "Layout::NoRoom"


@dataclass(frozen=True, slots=True)
class Region:
    """A named piece of guest RAM that is in use."""

    name: str
    range: Range

    def __str__(self) -> str:
        return f"{self.name} {self.range}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A piece to place: `size` bytes aligned to `alignment`, wholly inside `window`.

    `within` (a power of two, or 0) forbids crossing a multiple of it. `high` prefers the highest
    place; otherwise the lowest is taken.
    """

    name: str
    size: int
    alignment: int = 16
    window: Range = Range(0, U64_MAX)
    within: int = 0
    high: bool = False


def place(ram: Sequence[Range], taken: Iterable[Region], wanted: Iterable[Wanted]) -> list[Region]:
    """Places every piece in the order given, first fit. The result depends on the input alone.

    Raises LayoutError for the first piece that has no place.
    """
    occupied = list(taken)
    placed = []
    for piece in wanted:
        region = Region(piece.name, _first_fit(ram, occupied, piece))
        occupied.append(region)
        placed.append(region)
    return placed


def check_inside(ram: Sequence[Range], region: Region) -> None:
    """Raises LayoutError unless `region` lies wholly in RAM (banks may be contiguous)."""
    cursor = region.range.start
    while cursor < region.range.end:
        bank = next((bank for bank in ram if bank.start <= cursor < bank.end), None)
        if bank is None:
            what = f"{region.name} needs guest RAM {region.range} but RAM is {_banks(ram)}"
            raise LayoutError(what, field=region.name)
        cursor = bank.end


def smallest_memory(fits: Callable[[int], bool], start: int, limit: int) -> int | None:
    """The smallest guest memory in bytes, a multiple of 1 MiB, for which `fits` holds.

    `fits` is taken to be monotonic from `start` on; None when even `limit` does not do.
    """
    low, high = align_up(start, MIB) // MIB, limit // MIB
    if low > high or not fits(high * MIB):
        return None
    while low < high:
        middle = (low + high) // 2
        if fits(middle * MIB):
            high = middle
        else:
            low = middle + 1
    return high * MIB


def _first_fit(ram: Sequence[Range], occupied: Sequence[Region], piece: Wanted) -> Range:
    candidates = (_fit_in(gap, piece) for gap in _gaps(ram, occupied, reverse=piece.high))
    found = next((candidate for candidate in candidates if candidate), None)
    if found is None:
        what = f"{piece.name}: {format_size(piece.size)} aligned to {piece.alignment:#x}"
        where = f"{piece.window} of RAM {_banks(ram)}"
        beside = ", ".join(map(str, occupied)) or "nothing"
        raise LayoutError(f"no room for {what} in {where}, beside {beside}", field=piece.name)
    return found


def _gaps(ram: Sequence[Range], occupied: Sequence[Region], *, reverse: bool) -> list[Range]:
    gaps = []
    in_order = sorted(occupied, key=lambda region: region.range)
    for bank in ram:
        cursor = bank.start
        for region in in_order:
            if region.range.end <= cursor or region.range.start >= bank.end:
                continue
            if region.range.start > cursor:
                gaps.append(Range.between(cursor, region.range.start))
            cursor = max(cursor, region.range.end)
        if cursor < bank.end:
            gaps.append(Range.between(cursor, bank.end))
    return sorted(gaps, reverse=reverse)


def _fit_in(gap: Range, piece: Wanted) -> Range | None:
    start, end = max(gap.start, piece.window.start), min(gap.end, piece.window.end)
    if piece.high:
        address = align_down(end - piece.size, piece.alignment) if end >= piece.size else -1
        if piece.within and address >= 0 and _crosses(address, piece):
            boundary = align_down(address + piece.size - 1, piece.within)
            address = align_down(boundary - piece.size, piece.alignment)
    else:
        address = align_up(start, piece.alignment)
        if piece.within and _crosses(address, piece):
            address = align_up(align_up(address + 1, piece.within), piece.alignment)
    if address < start or address + piece.size > end:
        return None
    if piece.within and _crosses(address, piece):
        return None
    return Range(address, piece.size)


def _crosses(address: int, piece: Wanted) -> bool:
    return address // piece.within != (address + piece.size - 1) // piece.within


def _banks(ram: Sequence[Range]) -> str:
    return ", ".join(str(bank) for bank in ram)
