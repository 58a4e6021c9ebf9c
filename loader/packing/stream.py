"""A compressed stream inside a file, and the bounded place its output goes to.

Owns: `Packed` (where the stream lies, and errors that say so), `Cursor` (reading it field by
field) and `Output` (the only way a decoder hands bytes on; it stops at the limit). Must not know:
any compression format.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bootproof.dataclass import dataclass
from bootproof.loader.packing.errors import Unpack, UnpackError
from bootproof.loader.packing.kinds import Packing

WINDOW_LIMIT = 128 << 20
"""Largest history a decoder may be asked to keep: what `zstd -22 --ultra` declares."""

INPUT_SLICE = 256 << 10
"""Compressed bytes given to a decompressor at a time."""

OUTPUT_SLICE = 1 << 20
"""Most bytes taken from a decompressor at a time."""

MAX_STREAMS = 8192
"""Concatenated streams in one file: pbzip2 makes one per 100 KiB at the least."""


@dataclass(frozen=True, slots=True)
class Packed:
    """One compressed stream: bytes `start` to `end` (file offsets) of the file `name`.

    `declared` is its unpacked size in bytes where one is written down beside it, which is at file
    offset `declared_at`.
    """

    name: str
    data: memoryview
    start: int
    end: int
    packing: Packing
    declared: int | None = None
    declared_at: int | None = None

    def error(
        self, kind: type[UnpackError], detail: str, offset: int | None, **others: Any
    ) -> UnpackError:
        """An error about the stream: `detail` goes on after "the xz stream at 0x0".

        `offset` is the file offset of what is wrong; `others` are as in `LoaderError`.
        """
        text = f"the {self.packing} stream at {self.start:#x} {detail}"
        return kind(text, file=self.name, field=str(self.packing), offset=offset, **others)

    def truncated(self, offset: int) -> UnpackError:
        """The stream needs bytes at file offset `offset`, where it has ended."""
        advice = "the file is incomplete: copy or download it again"
        return self.error(Unpack.Truncated, f"breaks off at {offset:#x}", offset, advice=advice)

    def corrupt(self, offset: int, why: object) -> UnpackError:
        """The decompressor gave up on the bytes at, or shortly behind, file offset `offset`."""
        advice = "the file is damaged: copy or download it again"
        detail = f"is corrupt near {offset:#x}: {why}"
        return self.error(Unpack.Corrupt, detail, offset, advice=advice)

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


class Cursor:
    """Reads a stream from its start on; `position` is a file offset."""

    def __init__(self, packed: Packed) -> None:
        self.packed = packed
        self.position = packed.start

    def take(self, size: int) -> memoryview:
        """The next `size` bytes. Raises `Unpack.Truncated`."""
        end = self.position + size
        if end > self.packed.end:
            raise self.packed.truncated(self.packed.end)
        view = self.packed.data[self.position : end]
        self.position = end
        return view


class Output:
    """Counts decompressed bytes on their way to `sink` and refuses the one beyond the bound.

    The bound is the caller's `limit` and the size that is written down for `packed`, in bytes.
    """

    def __init__(self, sink: Callable[[bytes], object], packed: Packed, *, limit: int) -> None:
        self._sink = sink
        self._packed = packed
        self._limit = limit
        self.total = 0
        if packed.declared is not None and packed.declared > limit:
            raise self._too_large(packed.declared, f" by the size at {packed.declared_at or 0:#x}")

    def write(self, chunk: bytes) -> None:
        """Passes `chunk` on, or raises before the bound is passed."""
        total = self.total + len(chunk)
        if self._packed.declared is not None and total > self._packed.declared:
            raise self._mismatch("holds more", total)
        if total > self._limit:
            raise self._too_large(None)
        self._sink(chunk)
        self.total = total

    def announce(self, size: int, offset: int) -> None:
        """A frame header at file offset `offset` says that `size` more bytes follow."""
        total = self.total + size
        if self._packed.declared is not None and total > self._packed.declared:
            raise self._mismatch(f"has a frame at {offset:#x} with {size} bytes", total)
        if total > self._limit:
            raise self._too_large(total)

    def finish(self) -> None:
        """Raises when the stream ended short of its declared size."""
        if self._packed.declared not in (None, self.total):
            raise self._mismatch(f"holds {self.total} bytes", self.total)

    def _too_large(self, size: int | None, source: str = "") -> UnpackError:
        unpacks_to = "more" if size is None else f"{size} bytes"
        return self._packed.error(
            Unpack.TooLarge,
            f"unpacks to {unpacks_to}{source}, where the limit is {self._limit} bytes",
            self._packed.start,
            value=size,
            limit=self._limit,
            advice="raise the limit if the file can be trusted",
        )

    def _mismatch(self, finding: str, size: int) -> UnpackError:
        declared, at = self._packed.declared, self._packed.declared_at
        return self._packed.error(
            Unpack.SizeMismatch,
            f"{finding}, but the size at {at or 0:#x} says {declared} bytes",
            at,
            value=size,
            limit=declared,
            advice="the file is damaged, or something is appended to it",
        )
