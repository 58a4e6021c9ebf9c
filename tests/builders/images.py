"""Kernel images made from scratch: ELF, bzImage, Image. Nothing here is bootable.

A builder call reads like the layout it makes. Offsets and encodings are spelled out here once
more, independent of the loader's own declarations, so that a slip there cannot hide.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from typing import Any

PT_NULL, PT_LOAD, PT_NOTE = 0, 1, 4
XEN = b"Xen\0"
PHYS32_ENTRY, PHYS32_RELOC = 18, 19

EHDR_SIZE, PHDR_SIZE = 64, 56
EHDR = "<16sHHIQQQIHHHHHH"
PHDR = "<IIQQQQQQ"

# --- ELF -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Segment:
    """A program header and its bytes. Fields left None follow from the bytes and their place."""

    kind: int = PT_LOAD
    data: bytes = b""
    paddr: int = 0
    memsz: int | None = None
    align: int = 0x20_0000
    offset: int | None = None
    filesz: int | None = None
    vaddr: int | None = None
    flags: int = 7

    def header(self, place: int) -> bytes:
        filesz = len(self.data) if self.filesz is None else self.filesz
        return struct.pack(
            PHDR,
            self.kind,
            self.flags,
            place if self.offset is None else self.offset,
            self.paddr if self.vaddr is None else self.vaddr,
            self.paddr,
            filesz,
            filesz if self.memsz is None else self.memsz,
            self.align,
        )


def load(paddr: int, data: bytes, **changes: Any) -> Segment:
    """A PT_LOAD with `data` at `paddr`."""
    return Segment(PT_LOAD, data, paddr, **changes)


def bss(paddr: int, memsz: int, **changes: Any) -> Segment:
    """A PT_LOAD with no bytes in the file."""
    return Segment(PT_LOAD, b"", paddr, memsz, **changes)


def notes(*entries: bytes, **changes: Any) -> Segment:
    """A PT_NOTE with the given notes."""
    return Segment(PT_NOTE, b"".join(entries), align=4, **changes)


def note(
    name: bytes, kind: int, desc: bytes, *, namesz: int | None = None, descsz: int | None = None
) -> bytes:
    """One note: header, name and descriptor, each padded to four bytes."""
    header = struct.pack(
        "<III",
        len(name) if namesz is None else namesz,
        len(desc) if descsz is None else descsz,
        kind,
    )
    return header + _padded(name) + _padded(desc)


def pvh_entry(address: int, size: int = 8) -> bytes:
    """The Xen note with the PVH entry, eight bytes as Linux writes it."""
    return note(XEN, PHYS32_ENTRY, address.to_bytes(8, "little")[:size])


def pvh_reloc(*values: int) -> bytes:
    """The Xen note that makes a PVH kernel relocatable."""
    return note(XEN, PHYS32_RELOC, struct.pack(f"<{len(values)}I", *values))


@dataclass(frozen=True)
class ElfFile:
    """An ELF file: the header's fields, then the program headers, then the segments' bytes."""

    segments: tuple[Segment, ...]
    entry: int = 0x100_0000
    machine: int = 62
    ident: bytes = b"\x7fELF\x02\x01\x01" + bytes(9)
    phoff: int = EHDR_SIZE
    phentsize: int = PHDR_SIZE
    phnum: int | None = None
    type: int = 2

    def build(self) -> bytes:
        table_end = EHDR_SIZE + PHDR_SIZE * len(self.segments)
        table, content = bytearray(), bytearray()
        for segment in self.segments:
            content += bytes(-(table_end + len(content)) % 16)
            table += segment.header(table_end + len(content))
            content += segment.data
        return bytes(self._header() + table + content)

    def _header(self) -> bytes:
        phnum = len(self.segments) if self.phnum is None else self.phnum
        return struct.pack(
            EHDR,
            self.ident,
            self.type,
            self.machine,
            1,
            self.entry,
            self.phoff,
            0,
            0,
            EHDR_SIZE,
            self.phentsize,
            phnum,
            0,
            0,
            0,
        )


def elf(*segments: Segment, **changes: Any) -> bytes:
    """The bytes of an ELF file with these segments; `changes` are header fields of ElfFile."""
    return replace(ElfFile(segments), **changes).build()


def elf32(*segments: tuple[int, int, bytes], entry: int = 0x10_0000, machine: int = 3) -> bytes:
    """A 32-bit ELF file; segments are (p_type, p_paddr, content)."""
    ident = b"\x7fELF\x01\x01\x01" + bytes(9)
    header = struct.pack(
        "<16sHHIIIIIHHHHHH",
        *(ident, 2, machine, 1, entry, 52, 0, 0, 52, 32, len(segments), 0, 0, 0),
    )
    table, content = b"", b""
    for kind, address, data in segments:
        offset, size = 52 + 32 * len(segments) + len(content), len(data)
        table += struct.pack("<8I", kind, offset, address, address, size, size, 5, 4)
        content += data
    return header + table + content


def with_symbols(
    names: dict[int, str], text: bytes = bytes(0x100), base: int = 0xFFFFFFFF81000000
) -> bytes:
    """An ELF file with one segment, .symtab and .strtab (ELF-64 object file format)."""
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in names.values())
    table = bytes(24)
    for address, name in names.items():
        at = strings.index(b"\0" + name.encode() + b"\0") + 1
        table += struct.pack("<IBBHQQ", at, 0x12, 0, 1, base + address, 0)
    sections = b"\0.shstrtab\0.symtab\0.strtab\0.text\0"
    start = 64 + 56
    parts = [text, table, strings, sections]
    offsets = [start + sum(map(len, parts[:number])) for number in range(5)]
    header = b"\x7fELF\2\1\1".ljust(16, b"\0")
    header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base, 64, offsets[4], 0, 64, 56, 1, 64, 5, 4)
    segment = struct.pack("<IIQQQQQQ", 1, 5, start, base, 0x1000000, len(text), len(text), 1 << 20)

    def section(name: bytes, kind: int, part: int, link: int = 0, size: int = 0) -> bytes:
        at = sections.index(b"\0" + name + b"\0") + 1
        where = (offsets[part], len(parts[part]))
        return struct.pack("<IIQQQQIIQQ", at, kind, 0, 0, *where, link, 0, 1, size)

    table_of = bytes(64) + section(b".text", 1, 0) + section(b".symtab", 2, 1, 3, 24)
    table_of += section(b".strtab", 3, 2) + section(b".shstrtab", 3, 3)
    return header + segment + b"".join(parts) + table_of


# --- bzImage -------------------------------------------------------------------------------------

SETUP_HEADER_START, SETUP_HEADER_END = 0x1F1, 0x26C
SETUP_FIELDS = {
    "setup_sects": (0x1F1, "B"),
    "syssize": (0x1F4, "I"),
    "boot_flag": (0x1FE, "H"),
    "jump": (0x200, "H"),
    "header": (0x202, "I"),
    "version": (0x206, "H"),
    "kernel_version": (0x20E, "H"),
    "loadflags": (0x211, "B"),
    "code32_start": (0x214, "I"),
    "initrd_addr_max": (0x22C, "I"),
    "kernel_alignment": (0x230, "I"),
    "relocatable_kernel": (0x234, "B"),
    "min_alignment": (0x235, "B"),
    "xloadflags": (0x236, "H"),
    "cmdline_size": (0x238, "I"),
    "payload_offset": (0x248, "I"),
    "payload_length": (0x24C, "I"),
    "pref_address": (0x258, "Q"),
    "init_size": (0x260, "I"),
    "handover_offset": (0x264, "I"),
    "kernel_info_offset": (0x268, "I"),
}


@dataclass(frozen=True)
class BzImageFile:
    """A bzImage: boot sector and setup code with the header in them, then the kernel."""

    kernel: bytes = bytes(range(256)) * 8
    sectors: int = 5  # of 512 bytes, boot sector included
    fields: dict[str, int] = field(default_factory=dict)

    def build(self) -> bytes:
        fields = {
            "setup_sects": self.sectors - 1,
            "boot_flag": 0xAA55,
            "header": 0x53726448,
            "version": 0x20F,
            "loadflags": 1,
            "code32_start": 0x10_0000,
            "initrd_addr_max": 0x7FFF_FFFF,
            "kernel_alignment": 0x20_0000,
            "relocatable_kernel": 1,
            "min_alignment": 21,
            "xloadflags": 1,
            "cmdline_size": 2047,
            "pref_address": 0x100_0000,
            "init_size": 0x8000,
        } | self.fields
        setup = bytearray(max(self.sectors * 512, SETUP_HEADER_END))
        for name, value in fields.items():
            offset, code = SETUP_FIELDS[name]
            struct.pack_into("<" + code, setup, offset, value)
        return bytes(setup[: self.sectors * 512]) + self.kernel


def bzimage(kernel: bytes | None = None, /, *, sectors: int = 5, **fields: int) -> bytes:
    """The bytes of a bzImage; `fields` are setup header fields by their kernel names."""
    file = BzImageFile(sectors=sectors, fields=fields)
    return (file if kernel is None else replace(file, kernel=kernel)).build()


# --- Image ---------------------------------------------------------------------------------------

ARM64, RISCV64 = b"ARM\x64", b"RSC\x05"


def image(
    magic: bytes = ARM64,
    *,
    text_offset: int = 0,
    image_size: int = 0x3000,
    flags: int = 0xA,
    size: int = 0x2000,
) -> bytes:
    """The bytes of an arm64 or riscv64 Image of `size` bytes."""
    header = b"MZ\x40\xfa" + struct.pack("<IQQQ", 0x14000000, text_offset, image_size, flags)
    header = header.ljust(0x38, b"\0") + magic + bytes(4)
    body = bytes(i * 7 & 0xFF for i in range(max(size - len(header), 0)))
    return (header + body)[:size]


# --- Kernel modules ------------------------------------------------------------------------------

SHDR = "<IIQQQQIIQQ"


def module(name: str, vermagic: str, *, depends: str = "", machine: int = 62) -> bytes:
    """An unpacked kernel module with nothing in it but its information."""
    words = [f"license=GPL\0depends={depends}\0name={name}\0vermagic={vermagic}\0"]
    return sections({".text": b"\xc3", ".modinfo": "".join(words).encode()}, machine)


def sections(contents: dict[str, bytes], machine: int = 62, kind: int = 1) -> bytes:
    """An ELF file of sections: their contents, their names, and the table at its end."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name in [*contents, ".shstrtab"])
    rows, body = [struct.pack(SHDR, *[0] * 10)], b""
    for name, data in {**contents, ".shstrtab": names}.items():
        at = names.index(b"\0" + name.encode() + b"\0") + 1
        rows.append(struct.pack(SHDR, at, 1, 0, 0, EHDR_SIZE + len(body), len(data), 0, 0, 1, 0))
        body += data
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    table = EHDR_SIZE + len(body)
    numbers = (kind, machine, 1, 0, 0, table, 0, EHDR_SIZE, 0, 0, 64, len(rows), len(rows) - 1)
    return struct.pack(EHDR, ident, *numbers) + body + b"".join(rows)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


LINUX = b"Linux version 6.1.0-test (x) \0 serial8250 uart-pl011 no cpio magic loadavg"
"""Texts that a kernel which can prove its boot cannot be without."""
BUILD_ID = note(b"GNU\0", 3, bytes(range(20)))
