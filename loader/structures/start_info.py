"""What a kernel is told that is entered through PVH. Source: Xen's
public/arch-x86/hvm/start_info.h.
"""

# No deferred annotations here: `Declared` reads the encodings from them.
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.loader.declared import U32, U64, Declared

START_INFO_MAGIC: Final = 0x336E_C578  # "xEn3", bit 7 of E set


@dataclass(frozen=True, slots=True)
class StartInfo(Declared):
    """struct hvm_start_info, version 1."""

    magic: U32 = START_INFO_MAGIC
    version: U32 = 1
    flags: U32 = 0
    nr_modules: U32 = 0
    modlist_paddr: U64 = 0
    cmdline_paddr: U64 = 0
    rsdp_paddr: U64 = 0
    memmap_paddr: U64 = 0
    memmap_entries: U32 = 0
    reserved: U32 = 0


@dataclass(frozen=True, slots=True)
class MemmapEntry(Declared):
    """struct hvm_memmap_table_entry; `type` as in an E820 map."""

    addr: U64
    size: U64
    type: U32
    reserved: U32 = 0


@dataclass(frozen=True, slots=True)
class ModlistEntry(Declared):
    """struct hvm_modlist_entry."""

    paddr: U64
    size: U64
    cmdline_paddr: U64 = 0
    reserved: U64 = 0
