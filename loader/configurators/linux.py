"""The zero page of x86 Linux: `struct boot_params` in guest memory.

Source: linux-loader's `configurator::linux`; Documentation/arch/x86/zero-page.rst for the bytes,
which the caller makes.
"""

from __future__ import annotations

from bootproof.loader.configurators.params import BootParams, Piece, write_pieces
from bootproof.loader.errors import Linux
from bootproof.loader.memory import GuestMemory


def write_bootparams(params: BootParams, memory: GuestMemory) -> None:
    """Writes the header, a `boot_params`; sections and modules are not looked at.

    Raises Linux.ZeroPagePastRamEnd unless the byte after it is RAM too, and Linux.ZeroPageSetup
    unless all of it is. Nothing is written then.
    """
    kinds = Linux.ZeroPageSetup, Linux.ZeroPagePastRamEnd
    write_pieces(memory, [Piece("the zero page", params.header, params.header_start, *kinds)])
