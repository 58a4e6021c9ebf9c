"""A compressed stream inside a file, and the bounded place its output goes to.

Owns: `Packed` (where the stream lies, and errors that say so) and `Output` (the only way a
decoder hands bytes on; it stops at the limit).  Must not know: any compression format.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bootproof.loader.packing.errors import Unpack, UnpackError
from bootproof.loader.packing.kinds import Packing

WINDOW_LIMIT = 128 << 20
"""Largest history a decoder may be asked to keep: what `zstd -22 --ultra` declares."""

INPUT_SLICE = 256 << 10
"""Compressed bytes handed to a decompressor at a time."""

OUTPUT_SLICE = 1 << 20
"""Most bytes taken from a decompressor at a time."""

MAX_STREAMS = 8192
"""Concatenated streams in one file: pbzip2 makes one per 100 KiB at the least."""


@dataclass(frozen=True, slots=True)
class Packed:
    """One compressed stream: bytes `start` to `end` (file offsets) of the file `name`."""

    name: str
    data: memoryview
    start: int
    end: int
    packing: Packing

    def truncated(self, offset: int) -> UnpackError:
        """The stream needs bytes at file offset `offset`, where it has ended."""
        return Unpack.Truncated(
            f"the {self.packing} stream at {self.start:#x} breaks off at {offset:#x}",
            file=self.name,
            field=str(self.packing),
            offset=offset,
            advice="the file is incomplete: copy or download it again",
        )

    def corrupt(self, offset: int, why: object) -> UnpackError:
        """The decompressor gave up on the bytes at, or shortly behind, file offset `offset`."""
        return Unpack.Corrupt(
            f"the {self.packing} stream at {self.start:#x} is corrupt near {offset:#x}: {why}",
            file=self.name,
            field=str(self.packing),
            offset=offset,
            advice="the file is damaged: copy or download it again",
        )

    def window_too_large(self, offset: int, window: int | None) -> UnpackError:
        """The header at file offset `offset` asks for a history of `window` bytes."""
        asked = "more" if window is None else f"{window >> 20} MiB"
        return Unpack.WindowTooLarge(
            f"the {self.packing} stream at {offset:#x} asks for a window of {asked}; "
            f"at most {WINDOW_LIMIT >> 20} MiB is allowed",
            file=self.name,
            field=str(self.packing),
            offset=offset,
            value=window,
            limit=WINDOW_LIMIT,
        )


class Output:
    """Counts decompressed bytes on their way to `sink` and refuses the one beyond the bound.

    `limit` is the caller's; `declared`, when not None, is the size that is written down for the
    stream at file offset `declared_at`.  All sizes in bytes.
    """

    def __init__(
        self,
        sink: Callable[[bytes], object],
        packed: Packed,
        *,
        limit: int,
        declared: int | None = None,
        declared_at: int | None = None,
    ) -> None:
        self._sink = sink
        self._packed = packed
        self._limit = limit
        self._declared = declared
        self._declared_at = declared_at
        self.total = 0
        if declared is not None and declared > limit:
            raise self._too_large(declared, f" by the size at {declared_at or 0:#x}")

    def write(self, chunk: bytes) -> None:
        """Passes `chunk` on, or raises before the bound is passed."""
        total = self.total + len(chunk)
        if self._declared is not None and total > self._declared:
            raise self._mismatch("holds more", total)
        if total > self._limit:
            raise self._too_large(None)
        self._sink(chunk)
        self.total = total

    def announce(self, size: int, offset: int) -> None:
        """A frame header at file offset `offset` says that `size` more bytes follow."""
        total = self.total + size
        if self._declared is not None and total > self._declared:
            raise self._mismatch(f"has a frame at {offset:#x} with {size} bytes", total)
        if total > self._limit:
            raise self._too_large(total)

    def finish(self) -> None:
        """Raises when the stream ended short of its declared size."""
        if self._declared is not None and self.total != self._declared:
            raise self._mismatch(f"holds {self.total} bytes", self.total)

    def _too_large(self, size: int | None, source: str = "") -> UnpackError:
        packed = self._packed
        unpacks_to = "more" if size is None else f"{size} bytes"
        return Unpack.TooLarge(
            f"the {packed.packing} stream at {packed.start:#x} unpacks to {unpacks_to}{source}, "
            f"where the limit is {self._limit} bytes",
            file=packed.name,
            field=str(packed.packing),
            offset=packed.start,
            value=size,
            limit=self._limit,
            advice="raise the limit if the file can be trusted",
        )

    def _mismatch(self, finding: str, size: int) -> UnpackError:
        packed = self._packed
        return Unpack.SizeMismatch(
            f"the {packed.packing} stream at {packed.start:#x} {finding}, but the size at "
            f"{self._declared_at or 0:#x} says {self._declared} bytes",
            file=packed.name,
            field=str(packed.packing),
            offset=self._declared_at,
            value=size,
            limit=self._declared,
            advice="the file is damaged, or something is appended to it",
        )
