"""Guest memory as bars to scale: positions in percent, for a page to draw. Pure.

One bar for each bank of RAM. Pieces too small to see beside one another in it get a bar of their
own, in which their neighbourhood is enlarged. Addresses are guest-physical.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.harness.results.results import Area, Memory
from bootproof.loader.address import counted, format_size

_SMALL: Final = 0.012  # of a bar: smaller pieces are hard to tell apart
_NEAR: Final = 0.02  # of a bar: small pieces within this of each other are enlarged together
_ROOM: Final = 0.05  # of an enlarged bar: empty at either end
_NAMED: Final = 14.0  # percent that a name needs
_NUMBER_APART: Final = 2.2  # percent that the numbers of two pieces need between them

# What a piece is for the eye; by the first word of its name.
_KINDS: Final = {
    "kernel": "kernel",
    "kernel file": "file",
    "initrd": "initrd",
    "dtb": "tree",
    "reset stub": "stub",
    "staging area": "stub",
}


@dataclass(frozen=True, slots=True)
class Piece:
    """A region in a bar."""

    number: int
    name: str
    kind: str  # for the eye: one of _KINDS
    start: int  # guest-physical
    size: int
    left: float  # percent of the bar
    width: float
    named: bool  # there is room for its name
    numbered: bool  # there is room for its number

    @property
    def end(self) -> int:
        """The last address."""
        return self.start + self.size - 1

    @property
    def middle(self) -> float:
        return min(99.0, max(1.0, self.left + self.width / 2))

    @property
    def text(self) -> str:
        return f"{self.name}: {self.start:#x} to {self.end:#x}, {amount(self.size)}"


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch of RAM."""

    title: str
    start: int  # guest-physical
    end: int  # the last address
    zoom: float  # how many times larger than its bank it is drawn
    pieces: tuple[Piece, ...]


def amount(size: int) -> str:
    """A size for people, with at most one digit after the point."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f}".removesuffix(".0") + f" {name}"
    return counted(size, "byte")


def bars(memory: Memory) -> list[Bar]:
    """The bars of a memory picture, each bank followed by what has to be enlarged of it."""
    regions = sorted(memory.regions, key=lambda area: (area.address, -area.size))
    numbers = {area: number for number, area in enumerate(regions, 1)}
    drawn = []
    for bank in sorted(memory.banks, key=lambda area: area.address):
        inside = [area for area in regions if _overlaps(area, bank)]
        title = f"{bank.name}, {format_size(bank.size)}"
        drawn.append(_bar(title, bank, inside, numbers, 1.0))
        for group in _crowds(inside, bank):
            stretch = _around(group, bank)
            zoom = bank.size / stretch.size
            title = f"enlarged {zoom:,.0f} times: {amount(stretch.size)} at {stretch.address:#x}"
            shown = [area for area in inside if _overlaps(area, stretch)]
            drawn.append(_bar(title, stretch, shown, numbers, zoom))
    return drawn


def _overlaps(area: Area, other: Area) -> bool:
    return area.address < other.address + other.size and other.address < area.address + area.size


def _bar(
    title: str, whole: Area, areas: Sequence[Area], numbers: dict[Area, int], zoom: float
) -> Bar:
    pieces, last = [], -_NUMBER_APART
    for area in areas:
        start = max(area.address, whole.address)
        end = min(area.address + area.size, whole.address + whole.size)
        left, width = ((value * 100 / whole.size) for value in (start - whole.address, end - start))
        numbered = left + width / 2 - last >= _NUMBER_APART
        last = left + width / 2 if numbered else last
        kind = _KINDS.get(area.name, "parameters")
        pieces.append(
            Piece(
                number=numbers[area],
                name=area.name,
                kind=kind,
                start=area.address,
                size=area.size,
                left=round(left, 4),
                width=round(width, 4),
                named=width >= _NAMED,
                numbered=numbered,
            )
        )
    # Large pieces first: what lies in them is drawn over them.
    ordered = sorted(pieces, key=lambda piece: -piece.size)
    return Bar(title, whole.address, whole.address + whole.size - 1, zoom, tuple(ordered))


def _crowds(areas: Sequence[Area], bank: Area) -> Iterator[list[Area]]:
    """Small pieces that lie together, two or more."""
    small = [area for area in areas if area.size < bank.size * _SMALL]
    group: list[Area] = []
    for area in small:
        if group and area.address - (group[-1].address + group[-1].size) > bank.size * _NEAR:
            if len(group) > 1:
                yield group
            group = []
        group.append(area)
    if len(group) > 1:
        yield group


def _around(group: Sequence[Area], bank: Area) -> Area:
    """The stretch of a bank that shows a group with some room at either end."""
    start, end = group[0].address, max(area.address + area.size for area in group)
    room = max(int((end - start) * _ROOM), 64)
    start = max(bank.address, start - room)
    end = min(bank.address + bank.size, end + room)
    return Area("", start, end - start)
