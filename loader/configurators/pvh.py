"""The boot parameters of PVH: start info, memory map, module list.

Source: linux-loader's `configurator::pvh`; Xen's public/arch-x86/hvm/start_info.h for the layouts.
"""

# No deferred annotations here: `Declared` reads the encodings from them.
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bootproof.loader.configurators.params import BootParams, Piece, write_pieces
from bootproof.loader.declared import U32, U64, Declared
from bootproof.loader.errors import Pvh
from bootproof.loader.memory import GuestMemory

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


def write_bootparams(params: BootParams, memory: GuestMemory) -> None:
    """Writes the sections (the memory map), the header (start info) and any modules.

    Raises, in this order, Pvh.MemmapTableMissing, MemmapTableAddressMissing,
    MemmapTablePastRamEnd, MemmapTableSetup, StartInfoPastRamEnd, StartInfoSetup,
    ModulesAddressMissing and ModulesSetup. The two PastRamEnd want the byte after a piece to be
    RAM too. Nothing is written when one is raised.
    """
    write_pieces(memory, _pieces(params))


def _pieces(params: BootParams) -> Iterator[Piece]:
    """Each piece in turn: what is wrong with one is only asked when those before it are right."""
    if params.sections is None:
        raise Pvh.MemmapTableMissing(field="sections", advice="give it with set_sections()")
    if params.sections_start is None:
        raise Pvh.MemmapTableAddressMissing(field="sections_start")
    yield Piece(
        "the memory map",
        params.sections,
        params.sections_start,
        setup=Pvh.MemmapTableSetup,
        past_end=Pvh.MemmapTablePastRamEnd,
    )
    yield Piece(
        "the start info",
        params.header,
        params.header_start,
        setup=Pvh.StartInfoSetup,
        past_end=Pvh.StartInfoPastRamEnd,
    )
    if params.modules is None:
        return
    if params.modules_start is None:
        raise Pvh.ModulesAddressMissing(field="modules_start")
    yield Piece("the module list", params.modules, params.modules_start, setup=Pvh.ModulesSetup)
