"""The core of a whole machine: its RAM, and the notes that hold the registers of its CPUs.

What QEMU's dump-guest-memory and Cloud Hypervisor's coredump write. Owns where RAM lies in the file
and which notes there are; what a note says of a CPU is its architecture's business. Reading is
bounded, and RAM stays in the file.

Source: System V ABI, "ELF Header", "Program Header" and "Note Section"; QEMU's dump/dump.c.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.loader.address import MIB, U64_MAX, Range, align_up
from bootproof.loader.elf32 import Elf32Header, Elf32ProgramHeader
from bootproof.loader.elfheader import (
    EI_CLASS,
    EI_DATA,
    ELF_MAGIC,
    ELFCLASS32,
    ELFDATA2LSB,
    ElfHeader,
)
from bootproof.loader.elfnotes import NOTE_ALIGNMENT, NoteHeader
from bootproof.loader.errors import GET_AGAIN, LoaderError
from bootproof.loader.image import ImageSource
from bootproof.loader.segments import PT_LOAD, PT_NOTE, ProgramHeader

ET_CORE: Final = 4
_NT_PRSTATUS: Final = 1
_REGISTERS_AT: Final = 112  # of struct elf_prstatus, on 64-bit machines

_COMPRESSED: Final = (b"KDUMP   ", b"makedumpfile")
_MOST_HEADERS: Final = 4096
_MOST_NOTES: Final = 4096
_MOST_NOTE_BYTES: Final = 4 * MIB


class CoreError(LoaderError):
    """A file that is no core of a machine, or a damaged one."""

    code = "Import::Core"


@dataclass(frozen=True, slots=True)
class Load:
    """A part of guest-physical memory; what lies behind its bytes in the file is zero."""

    place: Range
    offset: int
    in_file: int


@dataclass(frozen=True, slots=True)
class Note:
    """A note, without padding."""

    name: bytes
    type: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Core:
    """`machine` is e_machine; `loads` are in order of their addresses."""

    machine: int
    loads: tuple[Load, ...]
    notes: tuple[Note, ...]


def is_core(data: memoryview) -> bool:
    """Whether a file says of itself that it is a core."""
    return bytes(data[:4]) == ELF_MAGIC and bytes(data[16:18]) == ET_CORE.to_bytes(2, "little")


def check_ram_only(data: memoryview) -> None:
    """Raises CoreError for a file that says of itself that it is something else than RAM."""
    head = bytes(data[:16])
    if head.startswith(ELF_MAGIC):
        what = "an ELF file, but no core of a machine"
        advice = "give a core, or a file with nothing but RAM; a kernel is started by `boot`"
        raise CoreError(what, field="e_type", offset=16, advice=advice)
    if head.startswith(_COMPRESSED):
        what = "a compressed dump, which cannot be read"
        raise CoreError(what, field="format", advice="dump it as ELF (dump-guest-memory FILE)")


def read_core(source: ImageSource) -> Core:
    """Raises CoreError naming the field at fault."""
    header, rows = _headers(source)
    loads = sorted(
        (_load(index, row, source.size) for index, row in enumerate(rows) if _has_memory(row)),
        key=lambda load: load.place,
    )
    if not loads:
        raise CoreError("the core has no PT_LOAD: no memory was dumped", field="e_phnum", value=0)
    for low, high in pairwise(loads):
        if low.place.overlaps(high.place):
            what = f"the PT_LOADs {low.place} and {high.place} overlap in guest memory"
            raise CoreError(what, field="p_paddr", value=high.place.start, advice=GET_AGAIN)
    notes = tuple(note for row in rows if row.p_type == PT_NOTE for note in _notes(source, row))
    return Core(header.e_machine, tuple(loads), notes)


def user_registers(notes: Sequence[Note], count: int) -> list[tuple[int, ...]]:
    """Of each CPU, the `count` 64-bit registers of its NT_PRSTATUS, in the order of the
    architecture's struct user_regs_struct. Raises CoreError for a note that ends before them.
    """
    layout = struct.Struct(f"<{count}Q")
    found = []
    for note in notes:
        if (note.name, note.type) != (b"CORE", _NT_PRSTATUS):
            continue
        size, needed = len(note.content), _REGISTERS_AT + layout.size
        if size < needed:
            what = f"the note of a CPU has {size} bytes, as of a 32-bit machine; a 64-bit one's has"
            raise CoreError(f"{what} {needed}", field="n_descsz", value=size, limit=needed)
        found.append(layout.unpack_from(note.content, _REGISTERS_AT))
    return found


def _headers(
    source: ImageSource,
) -> tuple[ElfHeader | Elf32Header, list[ProgramHeader | Elf32ProgramHeader]]:
    data = source.data
    if not is_core(data) or len(data) < ElfHeader.SIZE or data[EI_DATA] != ELFDATA2LSB:
        what = "no ELF core of a little-endian machine"
        advice = "write one with QEMU's dump-guest-memory or your VMM's coredump"
        raise CoreError(what, field="e_type", offset=16, advice=advice)
    wide = data[EI_CLASS] != ELFCLASS32
    header = ElfHeader.from_bytes(data) if wide else Elf32Header.from_bytes(data)
    kind: type[ProgramHeader] | type[Elf32ProgramHeader]
    kind = ProgramHeader if wide else Elf32ProgramHeader
    if header.e_phnum > _MOST_HEADERS or header.e_phentsize != kind.SIZE:
        what = f"the core has {header.e_phnum} program headers of {header.e_phentsize} bytes"
        what += f", at most {_MOST_HEADERS} of {kind.SIZE} can be read"
        raise CoreError(what, field="e_phnum", value=header.e_phnum, limit=_MOST_HEADERS)
    end = header.e_phoff + header.e_phnum * kind.SIZE
    if end > source.size:
        what = f"the program headers end at {end:#x}, but the file at {source.size:#x}"
        raise CoreError(what, field="e_phoff", value=header.e_phoff, advice=GET_AGAIN)
    offsets = range(header.e_phoff, end, kind.SIZE)
    return header, [kind.from_bytes(data, offset) for offset in offsets]


def _has_memory(row: ProgramHeader | Elf32ProgramHeader) -> bool:
    return row.p_type == PT_LOAD and row.p_memsz > 0


def _load(index: int, row: ProgramHeader | Elf32ProgramHeader, size: int) -> Load:
    if row.p_paddr + row.p_memsz > U64_MAX:
        what = f"PT_LOAD[{index}] at {row.p_paddr:#x} with {row.p_memsz:#x} bytes goes beyond"
        raise CoreError(f"{what} 64 bits", field="p_memsz", value=row.p_memsz)
    in_file = min(row.p_filesz, row.p_memsz)
    if row.p_offset + in_file > size:
        what = f"PT_LOAD[{index}] ends at {row.p_offset + in_file:#x} of the file, which has"
        raise CoreError(f"{what} {size:#x} bytes", field="p_filesz", advice=GET_AGAIN)
    return Load(Range(row.p_paddr, row.p_memsz), row.p_offset, in_file)


def _notes(source: ImageSource, row: ProgramHeader | Elf32ProgramHeader) -> Iterator[Note]:
    end = row.p_offset + row.p_filesz
    if row.p_filesz > _MOST_NOTE_BYTES or end > source.size:
        what = f"the notes have {row.p_filesz:#x} bytes at {row.p_offset:#x} of the file"
        raise CoreError(what, field="p_filesz", value=row.p_filesz, limit=_MOST_NOTE_BYTES)
    at, data = row.p_offset, source.data[:end]
    for _ in range(_MOST_NOTES):
        if at + NoteHeader.SIZE > end:
            return
        note = NoteHeader.from_bytes(data, at)
        name = at + NoteHeader.SIZE
        content = name + align_up(note.n_namesz, NOTE_ALIGNMENT)
        if content + note.n_descsz > end:
            what = f"the note at file offset {at:#x} runs to {content + note.n_descsz:#x}, behind"
            raise CoreError(f"{what} the end of its segment", field="n_descsz", advice=GET_AGAIN)
        yield Note(
            bytes(data[name : name + note.n_namesz]).rstrip(b"\0"),
            note.n_type,
            bytes(data[content : content + note.n_descsz]),
        )
        at = content + align_up(note.n_descsz, NOTE_ALIGNMENT)
