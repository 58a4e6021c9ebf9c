"""The header of an ELF file, by which it is told, and those of its sections.

Source: ELF-64 Object File Format 1.5, section 3.
"""

# No deferred annotations here: `Declared` reads the encodings from them.
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.loader.declared import U16, U32, U64, Bytes16, Declared

ELF_MAGIC: Final = b"\x7fELF"
EI_CLASS: Final = 4
EI_DATA: Final = 5
ELFCLASS32: Final = 1
ELFCLASS64: Final = 2
ELFDATA2LSB: Final = 1
E_MACHINES: Final = {3: "i386", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
# gABI e_machine, with those beyond what a loader knows.
ELF_MACHINES: Final = E_MACHINES | {
    8: "mips",
    21: "ppc64",
    22: "s390x",
    40: "arm",
    258: "loongarch64",
}


@dataclass(frozen=True, slots=True)
class ElfHeader(Declared):
    """Elf64_Ehdr, at file offset 0."""

    e_ident: Bytes16
    e_type: U16
    e_machine: U16
    e_version: U32
    e_entry: U64
    e_phoff: U64
    e_shoff: U64
    e_flags: U32
    e_ehsize: U16
    e_phentsize: U16
    e_phnum: U16
    e_shentsize: U16
    e_shnum: U16
    e_shstrndx: U16


@dataclass(frozen=True, slots=True)
class SectionHeader(Declared):
    """Elf64_Shdr, e_shnum of them at file offset e_shoff (section 5)."""

    sh_name: U32
    sh_type: U32
    sh_flags: U64
    sh_addr: U64
    sh_offset: U64
    sh_size: U64
    sh_link: U32
    sh_info: U32
    sh_addralign: U64
    sh_entsize: U64
