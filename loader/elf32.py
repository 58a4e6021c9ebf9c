"""What a 32-bit ELF file says of itself. None is ever loaded: it is only told what it is.

Owns the headers, and reading the PVH note by them. Layout and constants: System V ABI, "ELF Header"
and "Program Header" (the 32-bit class).
"""

# No deferred annotations here: `Declared` reads the encodings from them.
from bootproof.dataclass import dataclass
from bootproof.loader.declared import U16, U32, Bytes16, Declared
from bootproof.loader.elfnotes import NoteSegment, PvhNotes
from bootproof.loader.errors import LoaderError
from bootproof.loader.image import ImageSource
from bootproof.loader.result import PvhBootCapability
from bootproof.loader.segments import PT_NOTE


@dataclass(frozen=True, slots=True)
class Elf32Header(Declared):
    """Elf32_Ehdr, at file offset 0."""

    e_ident: Bytes16
    e_type: U16
    e_machine: U16
    e_version: U32
    e_entry: U32
    e_phoff: U32
    e_shoff: U32
    e_flags: U32
    e_ehsize: U16
    e_phentsize: U16
    e_phnum: U16
    e_shentsize: U16
    e_shnum: U16
    e_shstrndx: U16


@dataclass(frozen=True, slots=True)
class Elf32ProgramHeader(Declared):
    """Elf32_Phdr."""

    p_type: U32
    p_offset: U32
    p_vaddr: U32
    p_paddr: U32
    p_filesz: U32
    p_memsz: U32
    p_flags: U32
    p_align: U32


def program_headers(data: memoryview, header: Elf32Header) -> tuple[Elf32ProgramHeader, ...]:
    """Those of the program headers that are in the file."""
    table = bytes(data[header.e_phoff :][: header.e_phnum * Elf32ProgramHeader.SIZE])
    whole = len(table) - len(table) % Elf32ProgramHeader.SIZE
    rows = Elf32ProgramHeader.CODEC.iter_unpack(table[:whole])
    return tuple(Elf32ProgramHeader(*row) for row in rows)


def pvh_entry(image: ImageSource, header: Elf32Header) -> int | None:
    """The entry that a PVH note names, guest-physical; None without one that can be read."""
    notes = PvhNotes(image)
    try:
        for index, row in enumerate(program_headers(image.data, header)):
            if row.p_type == PT_NOTE:
                notes.scan(NoteSegment(index, row.p_offset, row.p_filesz))
        found: PvhBootCapability = notes.capability(0)
    except LoaderError:
        return None
    return found.entry
