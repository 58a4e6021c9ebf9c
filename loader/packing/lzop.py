"""The lzop container around LZO1X blocks, as the kernel build and lzop write it.

Owns: the lzop header, its flags and block headers with their checksums (lzop 1.04; the
kernel's lib/decompress_unlzo.c reads the same with fixed flags). All numbers are
big-endian. Must not know: what the stream holds.
"""

from __future__ import annotations

import zlib

from lzallright import LZOCompressor, LZOError

from bootproof.loader.packing.errors import Unpack
from bootproof.loader.packing.stream import Cursor, Output, Packed

_MAGIC_SIZE = 9
_VERSION_WITH_LEVEL = 0x0940  # since then: version needed, level, and a 64-bit mtime
_METHODS = (1, 2, 3)  # LZO1X-1, LZO1X-1(15), LZO1X-999: one decoder

_ADLER32_D = 0x0001  # checksum of the unpacked block
_ADLER32_C = 0x0002  # checksum of the packed block, when it is packed
_EXTRA_FIELD = 0x0040
_CRC32_D = 0x0100
_CRC32_C = 0x0200
_MULTIPART = 0x0400
_FILTER = 0x0800
_REFUSED = _EXTRA_FIELD | _MULTIPART | _FILTER

# lzop's default block, and the only one that the kernel's decoder takes.
_LARGEST_BLOCK = 256 << 10
# 1 GiB in full blocks is 4096; this bounds the time that a file of tiny blocks can take.
_MAX_BLOCKS = 1 << 16


def _u32(cursor: Cursor) -> int:
    return int.from_bytes(cursor.take(4))


def _read_flags(cursor: Cursor) -> int:
    """Moves `cursor` over the header and returns its flags."""
    packed = cursor.packed
    cursor.take(_MAGIC_SIZE)
    version = int.from_bytes(cursor.take(2))
    cursor.take(2)  # version of the library
    modern = version >= _VERSION_WITH_LEVEL
    if modern:
        cursor.take(2)  # version needed to extract
    method = cursor.take(1)[0]
    if method not in _METHODS:
        raise packed.corrupt(cursor.position, f"unknown method {method}")
    if modern:
        cursor.take(1)  # level
    flags = _u32(cursor)
    if flags & _REFUSED:
        raise Unpack.Unsupported(
            f"the lzop header at {packed.start:#x} has flags {flags:#x}; filters, extra fields "
            "and multi-part files are not taken",
            file=packed.name,
            field="lzop flags",
            offset=cursor.position,
            value=flags,
            advice="pack it again with plain lzop -9",
        )
    cursor.take(12 if modern else 8)  # mode and modification time
    cursor.take(cursor.take(1)[0])  # name
    cursor.take(4)  # header checksum; the kernel does not look at it either
    return flags


def _block_checksums(cursor: Cursor, flags: int, *, stored: bool) -> tuple[int | None, int | None]:
    """The Adler-32 and CRC-32 of the unpacked block; those of the packed one are passed over."""
    adler = _u32(cursor) if flags & _ADLER32_D else None
    crc = _u32(cursor) if flags & _CRC32_D else None
    if not stored:
        cursor.take(4 * bool(flags & _ADLER32_C) + 4 * bool(flags & _CRC32_C))
    return adler, crc


def _unpack_block(cursor: Cursor, size: int, flags: int) -> bytes:
    """The next block, which its header says unpacks to `size` bytes."""
    packed = cursor.packed
    packed_size = _u32(cursor)
    if size > _LARGEST_BLOCK or not 0 < packed_size <= size:
        raise packed.corrupt(cursor.position, f"a block of {packed_size} for {size} bytes")
    adler, crc = _block_checksums(cursor, flags, stored=packed_size == size)
    offset = cursor.position
    block = bytes(cursor.take(packed_size))
    if packed_size < size:
        try:
            block = LZOCompressor.decompress(block, size)
        except LZOError as error:
            raise packed.corrupt(offset, error) from error
    if len(block) != size:
        raise packed.corrupt(offset, f"a block gives {len(block)} bytes, not {size}")
    if adler not in (None, zlib.adler32(block)) or crc not in (None, zlib.crc32(block)):
        raise packed.corrupt(offset, "a block's checksum is wrong")
    return block


def decode(packed: Packed, output: Output) -> int:
    """Decompresses the stream into `output`.

    Returns the file offset behind the end marker. Raises `Unpack.Truncated`, `.Corrupt`,
    `.Unsupported`, and what `output` raises.
    """
    cursor = Cursor(packed)
    flags = _read_flags(cursor)
    for _ in range(_MAX_BLOCKS):
        size = _u32(cursor)
        if size == 0:
            return cursor.position
        output.write(_unpack_block(cursor, size, flags))
    raise packed.corrupt(cursor.position, f"more than {_MAX_BLOCKS} blocks")
