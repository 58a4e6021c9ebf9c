"""Zstandard: frames cut at their block boundaries and fed to libzstd in bounded batches.

Owns: the frame and block headers (RFC 8878, 3.1.1), needed because libzstd's Python
streams neither bound the output of one call nor say where a frame ends. Must not know:
where a stream comes from, nor what it holds.
"""

from __future__ import annotations

import zstandard

from bootproof.loader.packing.stream import (
    MAX_STREAMS,
    OUTPUT_SLICE,
    WINDOW_LIMIT,
    Cursor,
    Output,
    Packed,
)

_MAGIC = 0xFD2FB528
_SKIPPABLE = 0x184D2A50  # RFC 8878, 3.1.2: the low four bits are free
_LONGEST_HEADER = 18
_CHECKSUM_SIZE = 4

# RFC 8878, 3.1.1.2: the three-byte block header.
_BLOCK_HEADER_SIZE = 3
_RLE, _COMPRESSED = 1, 2
_LARGEST_BLOCK = 128 << 10

# An encoder makes a block from up to 128 KiB and may split it; 1 GiB in 2 KiB pieces is still
# within this. It bounds the time that a file of empty blocks can take.
_MAX_BLOCKS = 1 << 19


class _Frames(Cursor):
    """Cuts one frame after the other out of a stream."""

    def __init__(self, packed: Packed, output: Output) -> None:
        super().__init__(packed)
        self._output = output
        self._blocks = 0

    def magic(self) -> int:
        """The four bytes at the position, not taken; 0 when there are fewer."""
        head = self.packed.data[self.position : min(self.position + 4, self.packed.end)]
        return int.from_bytes(head, "little") if len(head) == 4 else 0

    def skip_frame(self) -> None:
        """Passes over a skippable frame, as pzstd writes them."""
        self.take(4)
        self.take(int.from_bytes(self.take(4), "little"))

    def frame(self) -> None:
        """Decompresses the frame at the position into the output."""
        packed, start = self.packed, self.position
        parameters = self._header()
        if parameters.window_size > WINDOW_LIMIT:
            raise packed.window_too_large(start, parameters.window_size)
        if parameters.content_size != zstandard.CONTENTSIZE_UNKNOWN:
            self._output.announce(parameters.content_size, start)
        decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_LIMIT).decompressobj()
        batch, last = start, False
        while not last:
            last = self._next_blocks()
            if last and parameters.has_checksum:
                self.take(_CHECKSUM_SIZE)
            try:
                chunk = decompressor.decompress(packed.data[batch : self.position])
            except zstandard.ZstdError as error:
                raise packed.corrupt(batch, error) from error
            self._output.write(chunk)
            batch = self.position

    def _header(self) -> zstandard.FrameParameters:
        packed, start = self.packed, self.position
        head = bytes(packed.data[start : min(start + _LONGEST_HEADER, packed.end)])
        try:
            size = zstandard.frame_header_size(head)
            parameters = zstandard.get_frame_parameters(head)
        except zstandard.ZstdError as error:
            if "too much memory" in str(error):
                raise packed.window_too_large(start, None) from error
            if len(head) < _LONGEST_HEADER:
                raise packed.truncated(packed.end) from error
            raise packed.corrupt(start, error) from error
        self.take(size)
        return parameters

    def _next_blocks(self) -> bool:
        """Moves over blocks that may give up to `OUTPUT_SLICE` bytes; True behind the last."""
        admitted = 0
        while admitted < OUTPUT_SLICE:
            header = int.from_bytes(self.take(_BLOCK_HEADER_SIZE), "little")
            last, kind, size = header & 1, header >> 1 & 3, header >> 3
            self.take(1 if kind == _RLE else size)
            admitted += _LARGEST_BLOCK if kind == _COMPRESSED else size
            self._blocks += 1
            if self._blocks > _MAX_BLOCKS:
                raise self.packed.corrupt(self.position, f"more than {_MAX_BLOCKS} blocks")
            if last:
                return True
        return False


def decode(packed: Packed, output: Output) -> int:
    """Decompresses every frame of the stream into `output`.

    Returns the file offset behind the last frame. Raises `Unpack.Truncated`, `.Corrupt`,
    `.WindowTooLarge`, and what `output` raises.
    """
    frames = _Frames(packed, output)
    frames.frame()
    for _ in range(MAX_STREAMS):
        magic = frames.magic()
        if magic == _MAGIC:
            frames.frame()
        elif magic & ~0xF == _SKIPPABLE:
            frames.skip_frame()
        else:
            return frames.position
    raise packed.corrupt(frames.position, f"more than {MAX_STREAMS} frames in a row")
