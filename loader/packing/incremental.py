"""Packings whose library decompresses a bounded piece at a time: gzip, bzip2, xz, lzma and
the LZ4 frame.

Owns: feeding those libraries and turning their exceptions into ours. Must not know: where
a stream comes from, nor what it holds.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Protocol

import lz4.frame

from bootproof.loader.packing.kinds import Packing, sniff
from bootproof.loader.packing.stream import (
    INPUT_SLICE,
    MAX_STREAMS,
    OUTPUT_SLICE,
    WINDOW_LIMIT,
    Output,
    Packed,
)

# liblzma counts its own structures besides the dictionary.
_LZMA_MEMORY = WINDOW_LIMIT + (1 << 20)

# What zlib, lzma, bz2 and lz4 raise for bytes that are not theirs, in this order.
_DECODE_ERRORS = (zlib.error, lzma.LZMAError, OSError, RuntimeError)


class _Decompressor(Protocol):
    """What bz2, lzma and lz4.frame decompressor objects have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes | None: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gunzip:
    """zlib's decompressor object in the shape of the others."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        chunk = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        # Output that zlib still holds comes with the next input: the trailer is always behind it.
        self.needs_input = not self._zlib.unconsumed_tail
        return chunk


def _xz() -> _Decompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY)


def _lzma() -> _Decompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_LZMA_MEMORY)


def _lz4_frame() -> _Decompressor:
    decompressor: _Decompressor = lz4.frame.LZ4FrameDecompressor()
    return decompressor


_LIBRARIES: dict[Packing, Callable[[], _Decompressor]] = {
    Packing.GZIP: _Gunzip,
    Packing.BZIP2: bz2.BZ2Decompressor,
    Packing.XZ: _xz,
    Packing.LZMA: _lzma,
    Packing.LZ4_FRAME: _lz4_frame,
}

# Parallel compressors (pbzip2, pixz, lz4 -B on several inputs) write one stream behind the
# other.  gzip is left out: the kernel's and the boot loaders' gunzip take one member only.
_MAY_REPEAT = (Packing.BZIP2, Packing.XZ, Packing.LZ4_FRAME)


def decode(packed: Packed, output: Output) -> int:
    """Decompresses the stream (and those of its kind behind it) into `output`.

    Returns the file offset behind the last stream. Raises `Unpack.Truncated`, `.Corrupt`,
    `.WindowTooLarge`, and what `output` raises.
    """
    position = _decode_one(packed, packed.start, output)
    if packed.packing not in _MAY_REPEAT:
        return position
    for _ in range(MAX_STREAMS):
        if sniff(packed.data[: packed.end], position) is not packed.packing:
            return position
        position = _decode_one(packed, position, output)
    raise packed.corrupt(position, f"more than {MAX_STREAMS} streams in a row")


def _decode_one(packed: Packed, start: int, output: Output) -> int:
    if packed.packing is Packing.LZ4_FRAME:
        _announce_lz4_size(packed, start, output)
    library = _LIBRARIES[packed.packing]()
    position = start
    while not library.eof:
        feed = b""
        if library.needs_input:
            if position == packed.end:
                raise packed.truncated(position)
            feed = bytes(packed.data[position : min(position + INPUT_SLICE, packed.end)])
        try:
            chunk = library.decompress(feed, OUTPUT_SLICE)
        except _DECODE_ERRORS as error:
            if "Memory usage limit" in str(error):
                raise packed.window_too_large(start, None) from error
            raise packed.corrupt(position, error) from error
        position += len(feed)
        output.write(chunk)
    return position - len(library.unused_data or b"")


def _announce_lz4_size(packed: Packed, start: int, output: Output) -> None:
    """The frame's content size, when it has one, is a bound of its own."""
    try:
        info = lz4.frame.get_frame_info(bytes(packed.data[start : min(start + 32, packed.end)]))
    except RuntimeError as error:
        if packed.end - start < 32:
            raise packed.truncated(packed.end) from error
        raise packed.corrupt(start, error) from error
    if info["content_size"]:
        output.announce(info["content_size"], start)
