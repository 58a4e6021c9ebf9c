"""Everything that a kernel is pointed to lies in RAM, and no two of it in one place.

Holds for every protocol; which pieces there are is the protocol's to say. A piece is also where the
loader itself says that it is: a pointer that lost its upper half leads to RAM as well. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final

from bootproof.dataclass import dataclass
from bootproof.loader.address import PAGE, Range, align_up
from bootproof.loader.arch import R
from bootproof.loader.rules import Findings, Grade, Hardware, RuleFinding, documents, violation

KERNEL: Final = "kernel"
INITRD: Final = "initrd"
_MOST_OVERLAPS: Final = 64  # that are told
# What has no sign of its own by which a wrong pointer would be seen.
_MUST_BE_TOLD: Final = (INITRD, "cmdline")


@dataclass(frozen=True, slots=True)
class Piece:
    """Guest-physical memory that a kernel is pointed to."""

    # As the region of a boot image is called.
    name: str
    range: Range
    # What leads there.
    pointer: str
    # The document that asks for it to be there.
    section: str
    # Of the finding, when it is not in RAM.
    code: str
    # Kernels boot without it.
    dispensable: bool = False
    # Shares memory with another piece of the same group by design.
    group: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.range} ({self.pointer})"


def check(hardware: Hardware[R], pieces: Iterable[Piece]) -> Findings:
    found = [piece for piece in pieces if piece.range.size]
    for piece in found:
        if not hardware.in_ram(piece.range):
            yield _graded(
                violation(
                    piece.code,
                    f"the {piece} is not all RAM{hardware.ram_text}",
                    piece.section,
                    address=piece.range.start,
                    value=piece.range.size,
                ),
                piece.dispensable,
            )
    overlaps = list(_overlaps(found))
    yield from overlaps
    yield from _regions(hardware, found)
    if not overlaps:
        yield from _regions_overlap(hardware)


def kernel(hardware: Hardware[R], needs: Iterable[tuple[Range, str, str]]) -> Iterator[Piece]:
    """The memory that is the kernel's: what boot.json says, and what its own header `needs`.

    `needs` has the range, what says so, and the document.
    """
    if hardware.footprint is not None:
        says, where = "region kernel of boot.json", documents.BOOT_IMAGE
        yield Piece(KERNEL, hardware.footprint, says, where, "kernel", group=KERNEL)
    for place, says, where in needs:
        yield Piece(KERNEL, place, says, where, "kernel", group=KERNEL)


def _overlaps(pieces: Sequence[Piece]) -> Findings:
    """Each pair that shares memory, once: pieces in the order of their addresses."""
    reaching: list[Piece] = []
    said = set[frozenset[str]]()
    for piece in sorted(pieces, key=lambda piece: piece.range):
        reaching = [other for other in reaching if other.range.end > piece.range.start]
        for other in reaching:
            names = frozenset((other.name, piece.name))
            if names in said or (piece.group and piece.group == other.group):
                continue
            if len(said) >= _MOST_OVERLAPS:
                return
            said.add(names)
            yield _graded(
                violation(
                    "overlap",
                    f"the {piece} lies over the {other}",
                    piece.section,
                    address=piece.range.start,
                ),
                piece.dispensable or other.dispensable,
            )
        reaching.append(piece)


def _regions(hardware: Hardware[R], pieces: Sequence[Piece]) -> Findings:
    """What boot.json says of where things are, against where the kernel is led."""
    told = {piece.name: piece for piece in pieces if piece.name != KERNEL}
    for region in hardware.regions:
        piece = told.get(region.name)
        if piece is None:
            if region.name in _MUST_BE_TOLD:
                yield _graded(_not_told(region.name, region.range), True)
        elif not _same(piece, region.range):
            what = f"{piece.pointer} leads to {piece.range}, but the region {region.name!r} of"
            what += f" boot.json is {region.range}"
            places = {"address": piece.range.start, "limit": region.range.start}
            finding = violation("region", what, documents.BOOT_IMAGE, **places)
            yield _graded(finding, region.name not in _MUST_BE_TOLD)


def _regions_overlap(hardware: Hardware[R]) -> Findings:
    areas = sorted(hardware.regions, key=lambda region: region.range)
    for left, right in pairwise(areas):
        if left.range.overlaps(right.range):
            what = f"the regions {left} and {right} of boot.json overlap"
            finding = violation("regions", what, documents.BOOT_IMAGE, address=right.range.start)
            yield _graded(finding, True)


def _not_told(name: str, place: Range) -> RuleFinding:
    what = f"boot.json has a region {name!r} {place}, but nothing leads the kernel to it"
    return violation("not-told", what, documents.BOOT_IMAGE, address=place.start)


def _same(piece: Piece, place: Range) -> bool:
    """Whether both begin in one place; of an initrd the size counts as well, in whole pages."""
    sizes = [align_up(size, PAGE) for size in (piece.range.size, place.size)]
    return piece.range.start == place.start and (piece.name != INITRD or sizes[0] == sizes[1])


def _graded(finding: RuleFinding, is_tolerated: bool) -> RuleFinding:
    changes: dict[str, Any] = {"grade": Grade.TOLERATED} if is_tolerated else {}
    return replace(finding, **changes)
