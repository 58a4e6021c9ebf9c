"""Proof of the address from outside: is this kernel's code in guest RAM where the guest says it is?

Compares pages of the code, as the loader or the kernel's own decompressor put them, with guest RAM
after the boot. Kernels patch their code while they boot (alternatives, static calls, relocations),
so a share of the words may differ; at a wrong address nearly all of them do.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bootproof.harness.observation import TextCheck
from bootproof.loader.address import Range
from bootproof.loader.elf import Elf
from bootproof.loader.memory import GuestMemory

_PAGES: Final = 256
_PAGE: Final = 0x1000


def check(reference: GuestMemory, ram: GuestMemory, code: Range) -> TextCheck:
    """Compares up to 256 pages spread over `code` (guest-physical) in both memories."""
    words = patched = 0
    step = max(_PAGE, code.size // _PAGES & ~(_PAGE - 1))
    for address in range(code.start, code.end - _PAGE + 1, step):
        if not reference.contains(address, _PAGE):
            break
        wanted = memoryview(reference.read(address, _PAGE)).cast("Q")
        if not any(wanted):
            continue  # nothing can be told from a page of zeros
        seen = memoryview(ram.read(address, _PAGE)).cast("Q")
        words += len(wanted)
        patched += sum(map(operator.ne, wanted, seen))
    return TextCheck(words, patched)


def unpacked(vmlinux: Path, offset: int, banks: Sequence[tuple[int, int]]) -> GuestMemory:
    """Guest RAM as the decompressor of a bzImage leaves it, `offset` bytes from where it is linked.

    Raises LoaderError when the kernel does not fit there.
    """
    memory = GuestMemory(banks)
    try:
        Elf().load(memory, vmlinux, kernel_offset=offset)
    except BaseException:
        memory.close()
        raise
    return memory
