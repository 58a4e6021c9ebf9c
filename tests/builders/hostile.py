"""Files whose structure lies, and the loader that has to see through each: typed error, no cost.

Each is as large as its lie needs, and none is random: what chance finds is the fuzzer's business.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bootproof.loader import BzImage, Elf, GuestMemory, Pe
from bootproof.loader.address import MIB
from bootproof.loader.identify import identify
from bootproof.loader.image import ImageLike
from bootproof.loader.packing import Packing
from bootproof.loader.unpack import uki_parts, unpack
from tests.builders import packings
from tests.builders.images import (
    PHDR,
    PT_LOAD,
    PT_NOTE,
    ElfFile,
    Segment,
    bss,
    bzimage,
    elf,
    image,
    load,
    note,
    notes,
    pvh_entry,
)

RAM = 64 * MIB
START = 0x10_0000
MOST = 65535  # what e_phnum can say
U64 = (1 << 64) - 1
CODE = bytes(range(256))

Look = Callable[[GuestMemory, ImageLike], object]


@dataclass(frozen=True)
class Lie:
    """A file that one parser has to refuse with the error `code`."""

    name: str
    content: bytes
    look: Look
    code: str


def lies() -> Iterator[Lie]:
    """All of them; built one at a time, for some are several MiB large."""
    yield from _program_headers()
    yield from _notes()
    yield from _bzimages()
    yield from _images()
    yield from _packed()


def table(rows: Iterator[tuple[int, ...]], behind: bytes = b"") -> bytes:
    """An ELF file with these program headers, and `behind` behind them."""
    content = b"".join(struct.pack(PHDR, *row) for row in rows)
    return ElfFile((), entry=START, phnum=len(content) // 56)._header() + content + behind


def small_loads(count: int, memsz: int = 16) -> Iterator[tuple[int, ...]]:
    """Valid PT_LOADs of 16 bytes each, no two alike."""
    for i in range(count):
        yield PT_LOAD, 7, 64 + i, 0, START + i * 16, 16, memsz, 0


def then(rows: Iterator[tuple[int, ...]], *last: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    yield from rows
    yield from last


def _program_headers() -> Iterator[Lie]:
    outside = (PT_LOAD, 7, 64, 0, RAM, 16, 16, 0)
    bss_outside = (PT_LOAD, 7, 64, 0, START, 0, RAM, 0)
    read, overflow = "Elf::ReadKernelImage", "MemoryOverflow"
    yield Lie("e_phnum 65535, short file", elf(load(START, CODE), phnum=MOST), _elf, _TABLE)
    yield Lie("e_phoff near 2^64", elf(load(START, CODE), phoff=U64 - 100), _elf, _TABLE)
    yield Lie("e_phoff 2^64 - 1, offset", elf(load(START, CODE), phoff=U64), _elf_moved, _TABLE)
    content = table(then(small_loads(MOST - 1), outside))
    yield Lie("65535 loads, the last outside RAM", content, _elf, read)
    content = table(then(small_loads(MOST - 1, 4096), outside))
    yield Lie("65535 overlapping loads, the last outside RAM, offset", content, _elf_moved, read)
    content = table(then(small_loads(MOST - 1), bss_outside))
    yield Lie("65535 loads, the last with BSS outside RAM", content, _elf, overflow)
    same = iter([(PT_LOAD, 7, 64, 0, START, MIB, MIB, 0)] * (MOST - 1))
    content = table(then(same, outside))
    yield Lie("65534 times one load, one outside RAM", content, _elf, read)
    for field, value in (("offset", U64), ("filesz", U64), ("memsz", U64)):
        lie = elf(load(START, CODE, **{field: value}))
        yield Lie(f"p_{field} 2^64 - 1", lie, _elf, overflow if field == "memsz" else read)
    lie = elf(load(U64 - 100, CODE))
    yield Lie("p_paddr near 2^64", lie, _elf, read)
    yield Lie("p_paddr near 2^64, offset", lie, _elf_moved, "Elf::InvalidProgramHeaderAddress")
    yield Lie("BSS of 2^64 - 1", elf(bss(START, U64)), _elf, overflow)


def _notes() -> Iterator[Lie]:
    read, invalid = "Elf::ReadNoteHeader", "Elf::InvalidPvhNote"
    four_gib = note(b"GNU\0", 3, b"", descsz=0xFFFF_FFFC)
    yield Lie("note of 4 GiB", elf(notes(four_gib, filesz=1 << 34)), _elf, read)
    padded = note(b"GNU\0", 3, b"", descsz=0xFFFF_FFFF)
    yield Lie("note of 4 GiB and padding", elf(notes(padded)), _elf, "Elf::Overflow")
    claim = note(b"Xen\0", 18, bytes(8), descsz=0xFFFF_FFFC)
    yield Lie("entry note of 4 GiB", elf(notes(claim)), _elf, invalid)
    yield Lie("note segment of 2^64 - 1", elf(notes(pvh_entry(1)[:4], filesz=U64)), _elf, read)
    yield Lie("note segment near 2^64", elf(notes(filesz=8, offset=U64 - 4)), _elf, read)
    zeros = elf(notes(bytes(64 * MIB), filesz=1 << 32))
    yield Lie("64 MiB of empty notes", zeros, _elf, read)
    yield Lie("a million notes", elf(notes(note(b"", 7, b"") * 1_000_000)), _elf, invalid)
    for run in (1, 63, 64, 65):
        mixed = (bytes(12) * run + note(b"", 7, b"")) * 40_000
        yield Lie(f"runs of {run} empty notes", elf(notes(mixed)), _elf, invalid)
    overlapping = ((PT_NOTE, 7, 64 + 56 * MOST + i, 0, 0, 120_000, 0, 0) for i in range(MOST))
    yield Lie("65535 note segments", table(overlapping, bytes(200_000)), _elf, invalid)
    empty = iter([(PT_NOTE, 7, 64, 0, 0, 0, 0, 0)] * MOST)
    yield Lie("65535 empty note segments", table(empty), _elf, invalid)
    rows = then(small_loads(MOST - 1), (PT_NOTE, 7, 64 + 56 * MOST, 0, 0, 1 << 30, 0, 0))
    content = table(rows, note(b"", 7, b"") * 100_000)
    yield Lie("65534 loads and a million notes", content, _elf, invalid)
    segment = Segment(PT_NOTE, pvh_entry(START), offset=120)
    lie = elf(segment, notes(note(b"", 7, b"") * 100_000))
    yield Lie("an entry, then notes without end", lie, _elf, invalid)


def _bzimages() -> Iterator[Lie]:
    short = bzimage(b"", setup_sects=255)
    yield Lie("setup_sects beyond the file", short, _bzimage, "Bzimage::Underflow")
    copy = "Bzimage::ReadBzImageCompressedKernel"
    yield Lie("code32_start 2^32 - 1", bzimage(code32_start=0xFFFF_FFFF), _bzimage, copy)
    yield Lie("kernel at 2^64 - 1", bzimage(), _bzimage_at_the_end, copy)
    for field in ("payload_offset", "payload_length"):
        fields = {"payload_offset": 0x40, "payload_length": 0x100, field: 0xFFFF_FFFF}
        yield Lie(f"{field} 2^32 - 1", bzimage(**fields), _unpack, "Unpack::BadHeader")


def _images() -> Iterator[Lie]:
    yield Lie("text_offset 2^64 - 1", image(text_offset=U64), _pe, "Pe::ReadKernelImage")
    yield Lie("the same at an offset", image(text_offset=U64), _pe_moved, "Pe::InvalidImage")


def _packed() -> Iterator[Lie]:
    kernel = packings.image()
    gz = packings.gzip(kernel)
    bad = "Unpack::BadHeader"
    for name, fields in (
        ("offset", {"offset": 0x200, "payload_size": len(gz)}),
        ("size", {"offset": 0x200, "payload_size": 0xFFFF_FFFF}),
    ):
        zboot = bytearray(packings.zboot(gz, b"gzip", size_word=False, **fields))
        if name == "offset":
            struct.pack_into("<I", zboot, 8, 0xFFFF_FFF0)
        yield Lie(f"zboot payload {name} outside", bytes(zboot), _unpack, bad)
    lie = packings.with_size(packings.xz(kernel), 0xFFFF_FFF0, Packing.XZ)
    yield Lie("zboot unpacked size 4 GiB", packings.zboot(lie, b"xz"), _unpack, _TOO_LARGE)
    uki = bytearray(packings.uki([(".linux", kernel)]))
    struct.pack_into("<II", uki, 0x40 + 24 + 16, 0xFFFF_FFFF, 0xFFFF_FFF0)
    yield Lie("unified kernel image, section outside", bytes(uki), _uki, bad)
    uki = bytearray(packings.uki([(".linux", kernel)]))
    struct.pack_into("<H", uki, 0x40 + 6, 0xFFFF)
    yield Lie("unified kernel image, 65535 sections", bytes(uki), _uki, bad)


_TABLE = "Elf::ReadProgramHeader"
_TOO_LARGE = "Unpack::TooLarge"


def _elf(memory: GuestMemory, content: ImageLike) -> object:
    return Elf().load(memory, content)


def _elf_moved(memory: GuestMemory, content: ImageLike) -> object:
    return Elf().load(memory, content, kernel_offset=2 * MIB)


def _bzimage(memory: GuestMemory, content: ImageLike) -> object:
    return BzImage().load(memory, content)


def _bzimage_at_the_end(memory: GuestMemory, content: ImageLike) -> object:
    return BzImage().load(memory, content, kernel_offset=U64)


def _pe(memory: GuestMemory, content: ImageLike) -> object:
    return Pe().load(memory, content)


def _pe_moved(memory: GuestMemory, content: ImageLike) -> object:
    return Pe().load(memory, content, kernel_offset=2 * MIB)


def _unpack(_memory: GuestMemory, content: ImageLike) -> object:
    identify(content)
    return unpack(content)


def _uki(_memory: GuestMemory, content: ImageLike) -> object:
    identify(content)
    return uki_parts(content)
