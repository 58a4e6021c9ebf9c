"""The boot parameters of PVH: start info, memory map, module list.

Source: linux-loader's `configurator::pvh`. The layouts are in bootproof.loader.structures.
"""

from __future__ import annotations

from collections.abc import Iterator

from bootproof.loader.configurators.params import BootParams, Kinds, Piece, write_pieces
from bootproof.loader.errors import Pvh
from bootproof.loader.memory import GuestMemory
from bootproof.loader.structures.start_info import MemmapEntry, ModlistEntry, StartInfo

__all__ = ["MemmapEntry", "ModlistEntry", "StartInfo", "write_bootparams"]


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
    kinds: Kinds = Pvh.MemmapTableSetup, Pvh.MemmapTablePastRamEnd
    yield Piece("the memory map", params.sections, params.sections_start, *kinds)
    kinds = Pvh.StartInfoSetup, Pvh.StartInfoPastRamEnd
    yield Piece("the start info", params.header, params.header_start, *kinds)
    if params.modules is None:
        return
    if params.modules_start is None:
        raise Pvh.ModulesAddressMissing(field="modules_start")
    yield Piece("the module list", params.modules, params.modules_start, setup=Pvh.ModulesSetup)
