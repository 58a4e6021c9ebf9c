"""A device tree blob in guest memory, as a boot parameter of arm64 and riscv64.

Source: linux-loader's `configurator::fdt`. `load_dtb` of bootproof.loader.pe is its other way to do
it.
"""

from __future__ import annotations

from bootproof.loader.configurators.params import BootParams, Piece, write_pieces
from bootproof.loader.errors import Fdt
from bootproof.loader.memory import GuestMemory


def write_bootparams(params: BootParams, memory: GuestMemory) -> None:
    """Writes the header, a device tree blob, unseen; sections and modules are not looked at.

    Raises Fdt.FDTPastRamEnd unless the byte after it is RAM too, and Fdt.WriteFDTToMemory unless
    all of it is. Nothing is written then.
    """
    kinds = Fdt.WriteFDTToMemory, Fdt.FDTPastRamEnd
    write_pieces(memory, [Piece("the device tree", params.header, params.header_start, *kinds)])
