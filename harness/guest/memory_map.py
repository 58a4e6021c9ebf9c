"""The memory map of a firmware as a guest's kernel logged it, and where two maps differ. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.loader.address import Range

USABLE: Final = "usable"
ABSENT: Final = "absent"
_ENTRY: Final = re.compile(
    rb"BIOS-e820: \[mem 0x(?P<first>[0-9a-f]{16})-0x(?P<last>[0-9a-f]{16})\] {1,40}"
    rb"(?P<kind>[^\r\n]{,80}?)\r?\n"
)
_MOST_ENTRIES: Final = 1024  # a kernel's own table has less (E820_MAX_ENTRIES, without NUMA)
# Linux 7 has other words for the same types.
_KINDS: Final = {"System RAM": USABLE, "device reserved": "reserved"}


@dataclass(frozen=True, order=True, slots=True)
class MapEntry:
    """A guest-physical range and what the kernel calls it."""

    range: Range
    kind: str


@dataclass(frozen=True, slots=True)
class MapDifference:
    """A guest-physical range for which two maps say different things."""

    range: Range
    ours: str
    theirs: str


def logged(transcript: bytes) -> tuple[MapEntry, ...]:
    """The firmware's map ("BIOS-e820") in a kernel's log; empty when there is none.

    Anybody can print such lines: those that are no range, and what no kernel has room for, are left
    out.
    """
    entries = (
        (int(entry["first"], 16), int(entry["last"], 16) + 1, entry["kind"])
        for entry in islice(_ENTRY.finditer(transcript), _MOST_ENTRIES)
    )
    return tuple(
        MapEntry(Range.between(start, end), _KINDS.get(words, words))
        for start, end, kind in entries
        if start < end
        for words in (kind.decode("utf-8", "backslashreplace"),)
    )


def differences(ours: Sequence[MapEntry], theirs: Sequence[MapEntry]) -> Iterator[MapDifference]:
    """Every range that the maps call differently, in order, as long as possible."""
    edges = sorted({edge for e in (*ours, *theirs) for edge in (e.range.start, e.range.end)})
    current: MapDifference | None = None
    for start, end in pairwise(edges):
        left, right = _kind(ours, start), _kind(theirs, start)
        if left == right:
            continue
        if current and (current.range.end, current.ours, current.theirs) == (start, left, right):
            current = MapDifference(Range.between(current.range.start, end), left, right)
            continue
        if current is not None:
            yield current
        current = MapDifference(Range.between(start, end), left, right)
    if current is not None:
        yield current


def _kind(entries: Sequence[MapEntry], address: int) -> str:
    return next((e.kind for e in entries if e.range.start <= address < e.range.end), ABSENT)
