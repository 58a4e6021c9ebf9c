"""The LZ4 legacy frame, which `lz4 -l` writes and the kernel build uses.

Owns: its chunks: a magic, then for each 8 MiB of output a little-endian length and an LZ4
block; no end marker, no checksum (LZ4 frame format description, "Legacy frame", and the
kernel's lib/decompress_unlz4.c). Must not know: what the stream holds.
"""

from __future__ import annotations

import lz4.block

from bootproof.loader.packing.stream import Output, Packed

_MAGIC_SIZE = 4
_LENGTH_SIZE = 4
_CHUNK = 8 << 20
_LARGEST_PACKED_CHUNK = _CHUNK + _CHUNK // 255 + 16  # LZ4_compressBound


def decode(packed: Packed, output: Output) -> int:
    """Decompresses the stream into `output`, up to the chunk that is not full.

    Returns the file offset behind the last chunk; up to four bytes may be left, which is
    where the kernel puts its size word. Raises `Unpack.Truncated`, `.Corrupt`, and what
    `output` raises.
    """
    position = packed.start + _MAGIC_SIZE
    size = _CHUNK
    while size == _CHUNK and (packed.end - position > _LENGTH_SIZE or not output.total):
        body = position + _LENGTH_SIZE
        length = int.from_bytes(packed.data[position : min(body, packed.end)], "little")
        if length > _LARGEST_PACKED_CHUNK:
            raise packed.corrupt(position, f"a chunk of {length} bytes")
        if body + length > packed.end:
            raise packed.truncated(packed.end)
        try:
            chunk = lz4.block.decompress(
                packed.data[body : body + length], uncompressed_size=_CHUNK
            )
        except lz4.block.LZ4BlockError as error:
            raise packed.corrupt(body, error) from error
        output.write(chunk)
        position, size = body + length, len(chunk)
    return position
