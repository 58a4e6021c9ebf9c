"""Arithmetic on guest-physical addresses, and the sizes people type.

Owns the one place where addresses are added: 64 bits, and an overflow is a value (None), never a
wrap; and how sizes and counts are written for people. Knows nothing of memory, images or boot
protocols. Addresses are guest-physical unless a caller says otherwise; sizes are bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from bootproof.dataclass import dataclass

U32_MAX = (1 << 32) - 1
U64_MAX = (1 << 64) - 1

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40

PAGE = 4 * KIB
"""The smallest page of every architecture here, and what a file's holes are made of."""

Banks = tuple[tuple[int, int], ...]
"""Base and size of each bank of RAM, guest-physical."""

_UNITS = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": TIB}
_SIZE = re.compile(r"\s*(0[xX][0-9a-fA-F]+|[0-9]+)\s*(?:([kKmMgGtT])(?:i?[bB])?)?\s*", re.ASCII)


def checked_add(a: int, b: int) -> int | None:
    """The sum of two unsigned 64-bit numbers, or None when an operand or the sum is not one."""
    if a < 0 or b < 0:
        return None
    total = a + b
    return total if total <= U64_MAX else None


def align_up(value: int, alignment: int) -> int:
    """The lowest multiple of `alignment` that is not below `value`.

    Raises ValueError when `alignment` is not positive.
    """
    _positive(alignment)
    return -(-value // alignment) * alignment


def align_down(value: int, alignment: int) -> int:
    """The highest multiple of `alignment` that is not above `value`.

    Raises ValueError when `alignment` is not positive.
    """
    _positive(alignment)
    return value // alignment * alignment


def is_aligned(value: int, alignment: int) -> bool:
    """Whether `value` is a multiple of `alignment`. Raises ValueError as align_up does."""
    _positive(alignment)
    return value % alignment == 0


def _positive(alignment: int) -> None:
    if alignment <= 0:
        raise ValueError(f"an alignment must be positive, not {alignment}")


@dataclass(frozen=True, order=True, slots=True)
class Range:
    """A run of guest-physical addresses: `start` and `size` in bytes; `end` is exclusive."""

    start: int
    size: int

    def __post_init__(self) -> None:
        if self.start < 0 or self.size < 0:
            raise ValueError(f"no range starts at {self.start:#x} with size {self.size:#x}")

    @classmethod
    def between(cls, start: int, end: int) -> Range:
        """The range from `start` up to, not including, `end`. Raises ValueError if end < start."""
        return cls(start, end - start)

    @property
    def end(self) -> int:
        """The first address after the range."""
        return self.start + self.size

    def overlaps(self, other: Range) -> bool:
        """Whether the two share a byte; an empty range shares none."""
        return max(self.start, other.start) < min(self.end, other.end)

    def contains(self, other: Range) -> bool:
        """Whether every byte of `other` is inside; an empty range must lie within the bounds."""
        return self.start <= other.start and other.end <= self.end

    def __str__(self) -> str:
        if not self.size:
            return f"{self.start:#x} (empty)"
        return f"{self.start:#x}-{self.end - 1:#x}"


def joined(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """The ranges in order, those that touch or overlap put together."""
    whole: list[Range] = []
    for part in sorted(ranges):
        if whole and whole[-1].end >= part.start:
            whole[-1] = Range.between(whole[-1].start, max(whole[-1].end, part.end))
        else:
            whole.append(part)
    return tuple(whole)


def without(area: Range, holes: Iterable[Range]) -> list[Range]:
    """What is left of a range, in order."""
    left, cursor = [], area.start
    for hole in sorted(holes):
        if hole.end <= cursor or not hole.size:
            continue
        if hole.start >= area.end:
            break
        if hole.start > cursor:
            left.append(Range.between(cursor, hole.start))
        cursor = hole.end
    if cursor < area.end:
        left.append(Range.between(cursor, area.end))
    return left


def common(areas: Iterable[Range], others: Iterable[Range]) -> list[Range]:
    """What of `areas` is in some of `others` as well; in order where `areas` are."""
    elsewhere = without(Range(0, U64_MAX + 1), others)
    return [part for area in areas for part in without(area, elsewhere)]


def parse_size(text: str) -> int:
    """Bytes (or an address) out of 4096, 0x1000, 4K, 16M, 2G, 512MiB, in either case.

    Units are powers of 1024. Raises ValueError with one sentence fit for a user.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is neither a size nor an address; write it like 4096, 0x1000, 64K, 16M or 2G"
        )
    digits, unit = match.groups()
    value = int(digits, 0 if digits[:2] in ("0x", "0X") else 10) * _UNITS[(unit or "").upper()]
    if value > U64_MAX:
        raise ValueError(f"{text!r} does not fit into 64 bits; the largest value is {U64_MAX:#x}")
    return value


def format_size(size: int) -> str:
    """`size` bytes for people: "512 MiB", "1.5 MiB", "123 bytes"."""
    for name, unit in (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    for name, unit in (("MiB", MIB), ("KiB", KIB)):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return counted(size, "byte")


def counted(number: int, what: str, many: str = "") -> str:
    """How many there are, for people: "1 case", "2 cases"; `many` where an s is not enough."""
    return f"{number} {what}" if number == 1 else f"{number} {many or what + 's'}"
