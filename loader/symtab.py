"""The symbol table of an ELF kernel that was not stripped, and its code. Pure.

Owns reading both within bounds: what lies beyond the file is not there. Must not know what names
are for. Layout: ELF-64 Object File Format 1.5, sections 5 (sections) and 7 (symbol table).
"""

# No deferred annotations here: `Declared` reads the encodings from them.
import struct
from collections.abc import Iterator
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.loader.declared import U8, U16, U32, U64, Declared
from bootproof.loader.elfheader import (
    EI_CLASS,
    EI_DATA,
    ELFCLASS64,
    ELFDATA2LSB,
    ElfHeader,
    SectionHeader,
)
from bootproof.loader.kallsyms import Function
from bootproof.loader.segments import PT_LOAD, ProgramHeader

_SHT_SYMTAB: Final = 2
_NOTYPE, _FUNC = 0, 2  # the lower half of st_info
_UNDEFINED, _ABSOLUTE = 0, 0xFFF1  # st_shndx
_LONGEST: Final = 512  # bytes of a name: KSYM_NAME_LEN


@dataclass(frozen=True, slots=True)
class _Symbol(Declared):
    """Elf64_Sym."""

    st_name: U32
    st_info: U8
    st_other: U8
    st_shndx: U16
    st_value: U64
    st_size: U64


def segments(elf: memoryview) -> tuple[tuple[int, memoryview], ...]:
    """The bytes of each PT_LOAD, by its distance from the first; those below it are left out.

    Nothing of what is no 64-bit ELF file, or a lie: more than there is in the file.
    """
    loads = _loads(elf)
    if sum(load.p_filesz for load in loads) > len(elf):
        return ()
    return tuple(
        (load.p_vaddr - loads[0].p_vaddr, elf[load.p_offset : load.p_offset + load.p_filesz])
        for load in loads
        if load.p_vaddr >= loads[0].p_vaddr
    )


def functions(elf: memoryview) -> list[Function]:
    """The functions of its symbol table; nothing where it has none."""
    loads = _loads(elf)
    try:
        header = ElfHeader.from_bytes(elf)
        at = header.e_shoff
        sections = SectionHeader.all_from(bytes(elf[at : at + header.e_shnum * SectionHeader.SIZE]))
        table = next(section for section in sections if section.sh_type == _SHT_SYMTAB)
        texts = sections[table.sh_link]
    except (struct.error, StopIteration, IndexError):
        return []
    return [*_named(_bytes(elf, table), _bytes(elf, texts), loads[0].p_vaddr)] if loads else []


def _loads(elf: memoryview) -> list[ProgramHeader]:
    """The PT_LOADs with bytes in the file."""
    if len(elf) < ElfHeader.SIZE:
        return []
    header = ElfHeader.from_bytes(elf)
    if (header.e_ident[EI_CLASS], header.e_ident[EI_DATA]) != (ELFCLASS64, ELFDATA2LSB):
        return []
    table = elf[header.e_phoff : header.e_phoff + header.e_phnum * ProgramHeader.SIZE]
    headers = ProgramHeader.all_from(bytes(table))
    return [load for load in headers if load.p_type == PT_LOAD and load.p_filesz]


def _bytes(elf: memoryview, section: SectionHeader) -> bytes:
    return bytes(elf[section.sh_offset : section.sh_offset + section.sh_size])


def _named(table: bytes, texts: bytes, base: int) -> Iterator[Function]:
    """A function comes before what has no type, then a weak one before a global before a local."""
    usable = len(table) - len(table) % _Symbol.SIZE
    for at, info, _, section, value, _ in _Symbol.CODEC.iter_unpack(table[:usable]):
        kind, binding = info & 0xF, info >> 4
        if kind in (_NOTYPE, _FUNC) and section not in (_UNDEFINED, _ABSOLUTE) and value >= base:
            name, ends, _ = texts[at : at + _LONGEST].partition(b"\0")
            if ends:
                yield kind << 4 | binding, value - base, name.decode("ascii", "replace")
