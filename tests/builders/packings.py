"""Packed kernels, made from scratch: compressors as the kernel build uses them, and the
containers that a payload lies in.

Every builder takes the content and returns the file's bytes; nothing here is bootable.
"""

from __future__ import annotations

import bz2
import gzip as gzip_module
import lzma as lzma_module
import struct
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType

import lz4.block
import lz4.frame
import zstandard
from lzallright import LZOCompressor

from bootproof.loader.address import MIB
from bootproof.loader.packing import Packing
from tests.builders import images

LZO_BLOCK = 256 << 10
LZ4_CHUNK = 8 * MIB

# --- kernels -------------------------------------------------------------------------------------


def kernel_bytes(size: int) -> bytes:
    """`size` bytes that compress to about half, no two KiB alike."""
    words = (struct.pack("<IIQ", i, i * 2654435761 & 0xFFFFFFFF, 0) for i in range(size // 16 + 1))
    return b"".join(words)[:size]


def elf(size: int = 4096, *, machine: int = 62) -> bytes:
    """A file that says it is a little-endian ELF64 executable for `machine`."""
    header = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9) + struct.pack("<HHI", 2, machine, 1)
    return header + kernel_bytes(size - len(header))


def image(size: int = 4096, *, magic: bytes = b"ARM\x64", start: bytes = b"MZ\x40\xfa") -> bytes:
    """A file with the header of an arm64 or riscv64 Image."""
    fields = struct.pack("<IQQQ", 0x14000000, 0, size, 0xA)
    header = (start + fields).ljust(0x38, b"\0") + magic + bytes(4)
    return header + kernel_bytes(size - len(header))


# --- compressors ---------------------------------------------------------------------------------


def gzip(data: bytes) -> bytes:
    return gzip_module.compress(data, 9, mtime=0)


def xz(data: bytes) -> bytes:
    return lzma_module.compress(data, preset=6)


def xz_kernel(data: bytes) -> bytes:
    """As scripts/xz_wrap.sh: x86 branch filter, big dictionary, CRC32."""
    filters = [
        {"id": lzma_module.FILTER_X86},
        {"id": lzma_module.FILTER_LZMA2, "preset": 6, "dict_size": 32 * MIB},
    ]
    return lzma_module.compress(data, check=lzma_module.CHECK_CRC32, filters=filters)


def lzma(data: bytes) -> bytes:
    """As `lzma -9 < data`: the size in the header is left open."""
    return lzma_module.compress(data, format=lzma_module.FORMAT_ALONE, preset=6)


def lz4_legacy(data: bytes) -> bytes:
    """As `lz4 -l`."""
    chunks = [data[i : i + LZ4_CHUNK] for i in range(0, len(data), LZ4_CHUNK)]
    return b"\x02\x21\x4c\x18" + b"".join(lz4_legacy_chunk(chunk) for chunk in chunks)


def lz4_legacy_chunk(data: bytes) -> bytes:
    """One chunk of `lz4_legacy`: a length and a block."""
    block: bytes = lz4.block.compress(data, mode="high_compression", store_size=False)
    return struct.pack("<I", len(block)) + block


def lz4_frame(data: bytes) -> bytes:
    frame: bytes = lz4.frame.compress(data, content_checksum=True)
    return frame


def zstd(data: bytes) -> bytes:
    """As `zstd -19 FILE`: content size and checksum in the frame."""
    return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(data)


def zstd_kernel(data: bytes) -> bytes:
    """As `cat FILE | zstd -22 --ultra`: a checksum, no content size, a window of 128 MiB."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        3, window_log=27, chain_log=16, hash_log=16, write_checksum=True
    )
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return stream.compress(data) + stream.flush()


def lzo(
    data: bytes,
    *,
    flags: int = 0x0300000D,
    version: int = 0x1040,
    method: int = 3,
    name: bytes = b"",
    block: int = LZO_BLOCK,
) -> bytes:
    """As `lzop -9`: its flags are an Adler-32 of each unpacked block, stdin, stdout."""
    blocks = [data[i : i + block] for i in range(0, len(data), block)]
    body = b"".join(lzo_block(content, flags) for content in blocks)
    return lzo_header(flags, version, method, name) + body + bytes(4)


def lzo_header(flags: int, version: int = 0x1040, method: int = 3, name: bytes = b"") -> bytes:
    """The header of an lzop file, with its checksum."""
    modern = version >= 0x0940
    fields = struct.pack(">HH", version, 0x20A0)
    fields += struct.pack(">H", 0x0940) if modern else b""
    fields += bytes([method, 9] if modern else [method]) + struct.pack(">I", flags)
    fields += bytes(12 if modern else 8) + bytes([len(name)]) + name
    return b"\x89LZO\0\r\n\x1a\n" + fields + struct.pack(">I", zlib.adler32(fields))


def lzo_block(data: bytes, flags: int) -> bytes:
    """One block, stored as it is when compressing does not make it smaller."""
    packed = LZOCompressor().compress(data)
    stored = len(packed) >= len(data)
    packed = data if stored else packed
    sums = [zlib.adler32(data)] if flags & 0x001 else []
    sums += [zlib.crc32(data)] if flags & 0x100 else []
    if not stored:
        sums += [zlib.adler32(packed)] if flags & 0x002 else []
        sums += [zlib.crc32(packed)] if flags & 0x200 else []
    return struct.pack(f">II{len(sums)}I", len(data), len(packed), *sums) + packed


COMPRESSORS: dict[str, tuple[Packing, Callable[[bytes], bytes]]] = {
    "gzip": (Packing.GZIP, gzip),
    "bzip2": (Packing.BZIP2, bz2.compress),
    "lzma": (Packing.LZMA, lzma),
    "xz": (Packing.XZ, xz),
    "xz-x86": (Packing.XZ, xz_kernel),
    "lzo": (Packing.LZO, lzo),
    "lz4-legacy": (Packing.LZ4_LEGACY, lz4_legacy),
    "lz4-frame": (Packing.LZ4_FRAME, lz4_frame),
    "zstd": (Packing.ZSTD, zstd),
    "zstd-22": (Packing.ZSTD, zstd_kernel),
}

# --- containers ----------------------------------------------------------------------------------


def with_size(packed: bytes, size: int, packing: Packing) -> bytes:
    """Appends the size word that the kernel build puts behind every stream but gzip's."""
    return packed if packing is Packing.GZIP else packed + struct.pack("<I", size)


def bzimage(
    payload: bytes,
    *,
    setup_sects: int = 4,
    release: bytes = b"6.1.0-test (builder@host) #1 SMP",
    payload_offset: int = 0x40,
    **fields: int,
) -> bytes:
    """A bzImage with `payload` at `payload_offset` of its protected-mode code.

    `fields` are those of `images.bzimage`.
    """
    fields = {"payload_length": len(payload), "kernel_version": 0x400 - 0x200} | fields
    kernel = bytearray(
        images.bzimage(
            bytes(payload_offset) + payload + bytes(64),
            sectors=(setup_sects or 4) + 1,
            setup_sects=setup_sects,
            payload_offset=payload_offset,
            **fields,
        )
    )
    kernel[0x400 : 0x400 + len(release) + 1] = release + b"\0"
    return bytes(kernel)


def zboot(
    payload: bytes,
    compression: bytes,
    *,
    machine: int = 0xAA64,
    size_word: bool = True,
    offset: int = 0x200,
    payload_size: int | None = None,
) -> bytes:
    """An EFI zboot image; `payload` has its size word already, unless `size_word` is False."""
    size = len(payload) - 4 * size_word if payload_size is None else payload_size
    header = struct.pack("<4s4sII8s32s", b"MZ\0\0", b"zimg", offset, size, b"", compression)
    header += b"\xcd\x23\x82\x81" + struct.pack("<I", 0x40)
    return (header + pe_headers([], machine)).ljust(offset, b"\0") + payload + bytes(512)


def uki(
    sections: list[tuple[str, bytes]],
    *,
    machine: int = 0x8664,
    in_memory: Mapping[str, int] = MappingProxyType({}),
) -> bytes:
    """A unified kernel image with `sections` in this order, each padded to 512 bytes.

    `in_memory` gives the virtual size of those sections whose content is not all there is.
    """
    table, body = [], b""
    start = -(-(0x40 + 24 + 40 * len(sections)) // 512) * 512
    for name, content in sections:
        padded = content.ljust(-(-len(content) // 512) * 512, b"\0")
        virtual = in_memory.get(name, len(content))
        table.append((name, virtual, len(padded), start + len(body)))
        body += padded
    head = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40) + pe_headers(table, machine)
    return head.ljust(start, b"\0") + body


def pe_headers(sections: list[tuple[str, int, int, int]], machine: int) -> bytes:
    """PE signature, COFF header and section table; sections are (name, virtual, raw, offset)."""
    coff = struct.pack("<4sHHIIIHH", b"PE\0\0", machine, len(sections), 0, 0, 0, 0, 0x206)
    rows = (
        struct.pack("<8sIIII12sI", name.encode(), virtual, 0x1000, raw, offset, b"", 0x40000040)
        for name, virtual, raw, offset in sections
    )
    return coff + b"".join(rows)
