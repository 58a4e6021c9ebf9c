"""Moving an image's bytes into guest memory, once everything has been checked.

Owns the last step of a load. The kernel copies when the image is a file. When the pieces overlap,
each guest byte is written once, with what the last piece in order has for it: sixty-five thousand
copies of one segment cost no more than one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

from bootproof.dataclass import dataclass
from bootproof.loader.image import ImageSource
from bootproof.loader.memory import GuestMemory


@dataclass(frozen=True, slots=True)
class Copy:
    """`size` bytes at file `offset` of the image go to guest-physical `address`."""

    address: int
    offset: int
    size: int


def copy_all(memory: GuestMemory, image: ImageSource, copies: Sequence[Copy]) -> None:
    """Does all copies; the outcome is that of doing them in order.

    The caller has checked that every source lies in the image and every target in RAM.
    """
    if sum(copy.size for copy in copies) > image.size:
        copies = list(_disjoint(copies))
    fd = image.fileno()
    for copy in copies:
        if fd is None:
            memory.write(copy.address, image.data[copy.offset : copy.offset + copy.size])
        else:
            memory.write_file(copy.address, fd, copy.offset, copy.size)


def _disjoint(copies: Sequence[Copy]) -> Iterator[Copy]:
    """Copies without overlap that have the same outcome: what is already covered is left out."""
    starts: list[int] = []
    ends: list[int] = []
    for copy in reversed(copies):
        low, high = copy.address, copy.address + copy.size
        # The covered runs that touch [low, high); they become one with it.
        first = bisect_right(ends, low - 1)
        last = bisect_right(starts, high)
        at = low
        for start, end in zip(starts[first:last], ends[first:last], strict=True):
            if at < start:
                yield Copy(at, copy.offset + at - low, start - at)
            at = max(at, end)
        if at < high:
            yield Copy(at, copy.offset + at - low, high - at)
        if first < last:
            low, high = min(low, starts[first]), max(high, ends[last - 1])
        starts[first:last] = [low]
        ends[first:last] = [high]
