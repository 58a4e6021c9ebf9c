"""What a kernel module says of itself, and what a kernel wants of its modules. Pure.

Owns the section `.modinfo` and the version magic. Must not know where modules lie, nor how one is
loaded.

Sources: ELF-64 Object File Format 1.5, section 5 (sections); include/linux/module.h (MODULE_INFO),
include/linux/vermagic.h, kernel/module/main.c (check_modinfo).
"""

from __future__ import annotations

import re
import struct
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.loader.elfheader import (
    E_MACHINES,
    EI_CLASS,
    EI_DATA,
    ELF_MAGIC,
    ELFCLASS64,
    ELFDATA2LSB,
    ElfHeader,
    SectionHeader,
)
from bootproof.loader.errors import GET_AGAIN, LoaderError
from bootproof.loader.ikconfig import find

_ET_REL: Final = 1
_SECTION: Final = b".modinfo"
_LONGEST_NAME: Final = 64
_LONGEST_MAGIC: Final = 256
_MAGIC_WORDS: Final = re.compile(rb"((?:[A-Za-z0-9_]+ )*[A-Za-z0-9_]*)\0")


class ModuleError(LoaderError):
    """This is no kernel module."""

    code = "Module"


@dataclass(frozen=True, slots=True)
class ModuleInfo:
    """What a module says of itself."""

    # With _ where its file may have -; None of one before Linux 4.12.
    name: str | None
    # As bootproof.loader.arch has it, or another one.
    arch: str
    # Of the kernel that it was built for: its release, and what else must be the same.
    vermagic: str
    # The modules that must be loaded before it.
    depends: tuple[str, ...]


def read(data: bytes, file: str) -> ModuleInfo:
    """The information in an unpacked module. Raises ModuleError."""
    try:
        header = ElfHeader.from_bytes(data)
        little64 = (header.e_ident[EI_CLASS], header.e_ident[EI_DATA]) == (ELFCLASS64, ELFDATA2LSB)
        if not header.e_ident.startswith(ELF_MAGIC) or header.e_type != _ET_REL or not little64:
            raise ModuleError("is no kernel module: no relocatable 64-bit ELF file", file=file)
        facts = _facts(_modinfo(data, header))
    except (struct.error, IndexError, OverflowError) as error:  # beyond the file, or beyond any
        raise ModuleError("is cut off", file=file, advice=GET_AGAIN) from error
    if "vermagic" not in facts:
        raise ModuleError("is no kernel module: it has no vermagic in .modinfo", file=file)
    machine = E_MACHINES.get(header.e_machine, f"unknown machine {header.e_machine}")
    depends = tuple(filter(None, facts.get("depends", "").replace("-", "_").split(",")))
    return ModuleInfo(facts.get("name"), machine, facts["vermagic"].strip(), depends)


def _modinfo(data: bytes, header: ElfHeader) -> bytes:
    """The section's bytes; none where there is no such section."""
    sections = [
        SectionHeader.from_bytes(data, header.e_shoff + number * header.e_shentsize)
        for number in range(header.e_shnum)
    ]
    names = sections[header.e_shstrndx].sh_offset
    for section in sections:
        at = names + section.sh_name
        if data[at : at + _LONGEST_NAME].partition(b"\0")[0] == _SECTION:
            return data[section.sh_offset : section.sh_offset + section.sh_size]
    return b""


def _facts(modinfo: bytes) -> dict[str, str]:
    """The first value of each key; keys that may come several times are none of ours."""
    facts: dict[str, str] = {}
    for item in modinfo.split(b"\0"):
        key, _, value = item.decode("utf-8", "backslashreplace").partition("=")
        facts.setdefault(key, value)
    return facts


def vermagic(kernel: memoryview, releases: tuple[str, ...]) -> str | None:
    """What an uncompressed kernel of one of these releases wants its modules to say.

    None of a kernel that loads no modules (without CONFIG_MODULES).
    """
    for release in releases:
        wanted = f"{release} ".encode()
        for at in find(kernel, wanted):
            words = _MAGIC_WORDS.match(kernel[at + len(wanted) :][:_LONGEST_MAGIC])
            if words:
                return f"{release} {words[1].decode()}".strip()
    return None
