"""Proof of the address from outside: is this kernel's code in guest RAM where the guest says it is?

Compares pages of the code, as the loader or the kernel's own decompressor put them, with guest RAM
after the boot. Kernels patch their code while they boot (alternatives, static calls, relocations),
so a share of the words may differ; at a wrong address nearly all of them do.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from bootproof.harness.observation import TextCheck
from bootproof.loader.address import PAGE, Range
from bootproof.loader.elf import Elf
from bootproof.loader.memory import AddressSpace, AnyBank, GuestMemory

_PAGES: Final = 256
_WORDS: Final = PAGE // 8


def check(reference: GuestMemory, ram: GuestMemory, code: Range) -> TextCheck:
    """Compares up to 256 pages spread over `code` (guest-physical) in both memories."""
    words = patched = 0
    step = max(PAGE, code.size // _PAGES & ~(PAGE - 1))
    for address in range(code.start, code.end - PAGE + 1, step):
        if not reference.contains(address, PAGE):
            break
        wanted = int.from_bytes(reference.read(address, PAGE), "little")
        if not wanted:
            continue  # nothing can be told from a page of zeros
        changed = wanted ^ int.from_bytes(ram.read(address, PAGE), "little")
        same = memoryview(changed.to_bytes(PAGE, "little")).cast("Q").tolist().count(0)
        words += _WORDS
        patched += _WORDS - same
    return TextCheck(words, patched)


def unpacked(vmlinux: Path, offset: int, banks: Sequence[tuple[int, int]]) -> GuestMemory:
    """Guest RAM as the decompressor of a bzImage leaves it, `offset` bytes from where it is linked.

    Only to be read, and of a file that stays as it is. Raises LoaderError when the kernel does not
    fit there.
    """
    memory = _InFile(banks)
    try:
        Elf().load(memory, vmlinux, kernel_offset=offset)
    except BaseException:
        memory.close()
        raise
    return memory


class _InFile(AddressSpace):
    """RAM whose bytes are in the file that was loaded: 256 pages are asked for, of 50 MiB."""

    def __init__(self, banks: Iterable[AnyBank]) -> None:
        super().__init__(banks)
        self._parts: list[tuple[Range, int]] = []

    def write_file(self, address: int, fd: int, file_offset: int, size: int) -> None:
        super().write_file(address, fd, file_offset, size)
        self._parts.append((Range(address, size), file_offset))
        if self._fd < 0:
            self._fd = os.dup(fd)

    def read(self, address: int, size: int) -> bytes:
        data = bytearray(size)
        for part, offset in self._parts:
            start, end = max(address, part.start), min(address + size, part.end)
            if start < end:
                found = os.pread(self._fd, end - start, offset + start - part.start)
                data[start - address : end - address] = found
        return bytes(data)
