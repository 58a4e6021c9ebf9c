"""Builder of small .rpm files, as bytes. Reads like the layout it makes; knows no reader."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import zstandard

REGULAR, DIRECTORY, LINK, DEVICE, FIFO = 0o100644, 0o040755, 0o120777, 0o020644, 0o010644
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 1, mtime=0),
    "xz": lambda data: lzma.compress(data, preset=0),
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE, preset=0),
    "zstd": lambda data: zstandard.ZstdCompressor(level=1).compress(data),
    "bzip2": lambda data: bz2.compress(data, 1),
}


@dataclass(frozen=True)
class Entry:
    """A file of the payload; `size` may lie."""

    name: str
    data: bytes = b""
    mode: int = REGULAR
    size: int | None = None


def cpio_of(entries: Iterable[Entry]) -> bytes:
    archive = b""
    for entry in (*entries, Entry("TRAILER!!!", mode=0)):
        name = entry.name.encode() + b"\0"
        size = len(entry.data) if entry.size is None else entry.size
        fields = (1, entry.mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name), 0)
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + name
        archive += head + bytes(-len(head) % 4) + entry.data + bytes(-len(entry.data) % 4)
    return archive


def header_of(texts: Mapping[int, str]) -> bytes:
    data, table = b"", b""
    for tag, text in texts.items():
        table += struct.pack(">IIII", tag, 6, len(data), 1)
        data += text.encode() + b"\0"
    return b"\x8e\xad\xe8\x01" + bytes(4) + struct.pack(">II", len(texts), len(data)) + table + data


def rpm_of(
    entries: Iterable[Entry] | Mapping[str, bytes],
    compressor: str = "zstd",
    *,
    texts: Mapping[int, str] | None = None,
    payload: bytes | None = None,
) -> bytes:
    """A package that holds `entries`; a mapping gives regular files, named as rpm names them."""
    if isinstance(entries, Mapping):
        entries = [Entry(f"./{name}", data) for name, data in entries.items()]
    lead = b"\xed\xab\xee\xdb\x03\x00" + bytes(90)
    signature = header_of({1000: "odd"})
    signature += bytes(-len(signature) % 8)
    known = {1000: "kernel", 1124: "cpio", 1125: compressor}
    packed = COMPRESSORS[compressor](cpio_of(entries)) if payload is None else payload
    return lead + signature + header_of(known if texts is None else texts) + packed
