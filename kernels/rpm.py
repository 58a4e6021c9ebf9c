"""The files in an .rpm, one after the other (RPM V4 package format: lead, two headers, payload).

Owns the format: the lead, the signature and the main header (tag tables in big-endian order), and
the payload, a cpio archive ("newc") that is compressed as the main header says. Every size is
checked before it is believed. Signatures are not checked: who wants that asks rpm.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from bootproof.kernels import unpacking
from bootproof.kernels.errors import BadPackage
from bootproof.kernels.magic import RPM
from bootproof.kernels.unpacking import CHUNK, Bounded, Member, Readable

_LEAD: Final = 96
_HEADER: Final = struct.Struct(">4s4xII")  # magic and version, reserved, entries, bytes of data
_HEADER_MAGIC: Final = b"\x8e\xad\xe8\x01"
_ENTRY: Final = struct.Struct(">IIII")  # tag, type, offset, count
_MOST_ENTRIES: Final = 0x10000  # rpm's own limits are 64 Ki entries and 256 MiB
_MOST_DATA: Final = 64 << 20
_TAG_FORMAT: Final = 1124
_TAG_COMPRESSOR: Final = 1125
_STRING: Final = 6
_COMPRESSORS: Final = ("gzip", "xz", "lzma", "zstd", "bzip2")

_NEWC: Final = (b"070701", b"070702")  # without and with a checksum
_CPIO_HEADER: Final = 110
_CPIO_FIELDS: Final = 13
_MODE, _FILE_SIZE, _NAME_SIZE = 1, 6, 11
_MOST_NAME: Final = 4096
_TRAILER: Final = "TRAILER!!!"


def members(package: Path) -> Iterator[Member]:
    """Every file of a package, in its order. Raises `BadPackage`, also while one is read."""
    with package.open("rb") as file:
        if _exactly(file, _LEAD, "lead")[:4] != RPM:
            raise BadPackage("it is not an RPM package")
        _header(file, "signature header")
        file.seek(-(file.tell() - _LEAD) % 8, os.SEEK_CUR)  # the only padding between headers
        texts = _texts(_header(file, "header"))
        compressor = texts.get(_TAG_COMPRESSOR, "gzip")
        if texts.get(_TAG_FORMAT, "cpio") != "cpio":
            raise BadPackage(f"its payload is {texts[_TAG_FORMAT]!r}, not cpio")
        stream = unpacking.decompressed(compressor, file) if compressor in _COMPRESSORS else None
        if stream is None:
            raise BadPackage(f"its payload is packed by {compressor!r}, which is not known here")
        yield from _cpio(Bounded("the payload", stream))


def _header(file: BinaryIO, what: str) -> bytes:
    """The table and the data of a header that begins here, behind its first 16 bytes."""
    magic, entries, size = _HEADER.unpack(_exactly(file, _HEADER.size, what))
    assert isinstance(entries, int) and isinstance(size, int)
    if magic != _HEADER_MAGIC:
        raise BadPackage(f"its {what} begins with {magic.hex()}, not {_HEADER_MAGIC.hex()}")
    if entries > _MOST_ENTRIES or size > _MOST_DATA:
        raise BadPackage(f"its {what} has {entries} entries and {size} bytes: more than any has")
    return entries.to_bytes(4) + _exactly(file, entries * _ENTRY.size + size, what)


def _exactly(file: Readable, size: int, what: str) -> bytes:
    """So many bytes of `file`, which may give fewer at a time."""
    data = bytearray()
    while len(data) < size:
        chunk = file.read(min(size - len(data), CHUNK))
        if not chunk:
            raise BadPackage(f"it ends in the middle of its {what}")
        data += chunk
    return bytes(data)


def _texts(header: bytes) -> dict[int, str]:
    """The texts of a header by tag; a text ends at a NUL."""
    entries = int.from_bytes(header[:4])
    data = header[4 + entries * _ENTRY.size :]
    texts: dict[int, str] = {}
    for tag, kind, offset, _ in _ENTRY.iter_unpack(header[4 : 4 + entries * _ENTRY.size]):
        if kind == _STRING and tag in (_TAG_FORMAT, _TAG_COMPRESSOR):
            if offset >= len(data):
                raise BadPackage(f"its header has tag {tag} at {offset:#x}, behind its end")
            texts[tag] = data[offset : offset + 64].partition(b"\0")[0].decode("ascii", "replace")
    return texts


class _Entry:
    """The content of one file: reads no further than its end."""

    def __init__(self, stream: Readable, size: int) -> None:
        self._stream = stream
        self.left = size

    def read(self, size: int) -> bytes:
        data = self._stream.read(min(size, self.left))
        self.left -= len(data)
        return data


def _cpio(stream: Readable) -> Iterator[Member]:
    while True:
        head = _exactly(stream, _CPIO_HEADER, "cpio header")
        if head[:6] not in _NEWC:
            raise BadPackage(f"its cpio archive has {head[:6]!r} where a file should begin")
        numbers = [_number(head[6 + 8 * n : 14 + 8 * n]) for n in range(_CPIO_FIELDS)]
        size, name_size = numbers[_FILE_SIZE], numbers[_NAME_SIZE]
        if not 0 < name_size <= _MOST_NAME:
            raise BadPackage(f"its cpio archive has a file name of {name_size} bytes")
        padded = name_size + -(_CPIO_HEADER + name_size) % 4
        raw = _exactly(stream, padded, "cpio header")[:name_size]
        name = raw.rstrip(b"\0").decode("utf-8", "replace").removeprefix("./").lstrip("/")
        if name == _TRAILER:
            return
        entry = _Entry(stream, size)
        if stat.S_ISREG(numbers[_MODE]):
            yield Member(name, size, lambda entry=entry: entry)  # type: ignore[misc]
        else:
            yield Member(name, 0, None)
        while entry.left:
            if not entry.read(CHUNK):
                raise BadPackage(f"it ends in the middle of {name}")
        _exactly(stream, -size % 4, "cpio padding")


def _number(digits: bytes) -> int:
    try:
        return int(digits, 16)
    except ValueError:
        raise BadPackage(f"its cpio archive has {digits!r} for a number") from None
