"""The compressions a kernel can be packed with, and how each is recognised.

Owns: the `Packing` enumeration and the magic numbers. Must not know: kernels,
containers, decompressors.

Spec: RFC 1952 (gzip), the bzip2 file format, XZ Utils' doc/xz-file-format.txt and
doc/lzma-file-format.txt, lzop's header (its `lzop_magic`), the LZ4 frame format
description (frame and legacy frame), RFC 8878 (Zstandard). What kernels leave out of them:
lib/decompress.c, and Documentation/staging/xz.rst.
"""

from __future__ import annotations

from enum import StrEnum


class Packing(StrEnum):
    """A compressed stream's format; the value is the name shown to people."""

    GZIP = "gzip"
    BZIP2 = "bzip2"
    LZMA = "lzma"
    XZ = "xz"
    LZO = "lzo"
    LZ4_LEGACY = "lz4-legacy"
    LZ4_FRAME = "lz4-frame"
    ZSTD = "zstd"


# Longest magic first does not matter here: no magic is a prefix of another. LZMA has no
# magic of its own; 5d 00 00 is the properties byte of lc=3 lp=0 pb=2 and the low half of a
# dictionary size that is a multiple of 64 KiB, which is what the kernel tests for as well
# (lib/decompress.c).
_MAGICS = (
    (b"\x1f\x8b\x08", Packing.GZIP),
    (b"BZh", Packing.BZIP2),
    (b"\xfd7zXZ\x00", Packing.XZ),
    (b"\x89LZO\x00\x0d\x0a\x1a\x0a", Packing.LZO),
    (b"\x02\x21\x4c\x18", Packing.LZ4_LEGACY),
    (b"\x04\x22\x4d\x18", Packing.LZ4_FRAME),
    (b"\x28\xb5\x2f\xfd", Packing.ZSTD),
    (b"\x5d\x00\x00", Packing.LZMA),
)
_XZ_CHECK = 7  # offset of the byte whose lower half says how the content is checked
_XZ_CHECKS_OF_KERNELS = (0, 1)  # not at all, CRC32
LONGEST_MAGIC = max(len(magic) for magic, _ in _MAGICS)


def sniff(data: memoryview, offset: int = 0) -> Packing | None:
    """The packing of the stream that starts at file offset `offset`, or None."""
    head = bytes(data[offset : offset + LONGEST_MAGIC])
    return next((packing for magic, packing in _MAGICS if head.startswith(magic)), None)


def lacking_in_kernels(data: memoryview, offset: int = 0) -> str:
    """What kernels lack to unpack the stream at `offset`, and the way out; "" for nothing."""
    packing, check = sniff(data, offset), bytes(data[offset + _XZ_CHECK : offset + _XZ_CHECK + 1])
    if packing is Packing.LZ4_FRAME:
        return "kernels do not unpack LZ4 frames: pack it with lz4 -l"
    if packing is Packing.XZ and check and check[0] & 0xF not in _XZ_CHECKS_OF_KERNELS:
        return "kernels know no other check of xz than CRC32: pack it with xz --check=crc32"
    return ""
