"""Names for program counters, from a kernel's own symbols.

However a kernel was moved, by its loader, by KASLR or by being mapped elsewhere, it moved by a
multiple of 2 MiB (or by what the loader was asked for): of all places in the image that this leaves
for a program counter, the code that is executed there tells which one it is. Where it tells none,
or more than one, there is no name: none is better than a wrong one.
"""

from __future__ import annotations

import bisect
from pathlib import Path
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.loader import kallsyms, symtab
from bootproof.loader.address import MIB
from bootproof.loader.arch.table import ARCHITECTURES
from bootproof.loader.formats import Format
from bootproof.loader.identify import identify_bytes
from bootproof.loader.image import open_image
from bootproof.loader.kallsyms import Function

_MOVED_BY: Final = 2 * MIB  # x86: CONFIG_PHYSICAL_ALIGN; arm64: MIN_KIMG_ALIGN
_ALIKE: Final = 3 / 4  # of the bytes: kernels patch their code while they boot
_FEWEST_BYTES: Final = 16
_FEWEST_VALUES: Final = 6  # different ones: padding is the same everywhere
_HEAD: Final = 64  # bytes
_MOST_SEGMENTS: Final = 16  # in which kallsyms are looked for; a kernel has five


@dataclass(frozen=True, slots=True)
class Symbols:
    """An image's code and names by address, both relative to the start of its first segment."""

    segments: tuple[tuple[int, bytes], ...]
    addresses: tuple[int, ...]
    names: tuple[str, ...]

    def name(self, pc: int, before: bytes, at: bytes, displacement: int = 0) -> str | None:
        """The name of a program counter, with the code before it and at it: `start_kernel+0x10`.

        `displacement` is how far the image was loaded from where it may move by itself.
        """
        place = self.place(pc, before, at, displacement)
        return None if place is None else self._named(place)

    def place(self, pc: int, before: bytes, at: bytes, displacement: int = 0) -> int | None:
        """Where in the image a program counter is; None where that cannot be told."""
        window = before + at
        if len(window) < _FEWEST_BYTES or len(set(window)) < _FEWEST_VALUES:
            return None
        residues = {pc % _MOVED_BY, (pc - displacement) % _MOVED_BY}
        places = [
            place
            for residue in residues
            for place in range(residue, self._end, _MOVED_BY)
            if self._alike(place - len(before), window)
        ]
        return places[0] if len(places) == 1 else None

    def function(self, place: int) -> str | None:
        """The function at a place in the image; None beside all of it."""
        if not any(start <= place < start + len(data) for start, data in self.segments):
            return None
        index = bisect.bisect_right(self.addresses, place) - 1
        return None if index < 0 else self.names[index]

    @property
    def _end(self) -> int:
        return max((start + len(data) for start, data in self.segments), default=0)

    def _alike(self, address: int, window: bytes) -> bool:
        for start, data in self.segments:
            if start <= address and address + len(window) <= start + len(data):
                code = data[address - start : address - start + len(window)]
                same = sum(one == other for one, other in zip(code, window, strict=True))
                return same >= _ALIKE * len(window)
        return False

    def _named(self, address: int) -> str | None:
        index = bisect.bisect_right(self.addresses, address) - 1
        return None if index < 0 else f"{self.names[index]}+{address - self.addresses[index]:#x}"


def read(path: Path) -> Symbols | None:
    """The symbols of an uncompressed kernel: those of an ELF file's symbol table, else those that
    it carries for itself (kallsyms). None of what has neither.

    Raises LoaderError for a file that cannot be read.
    """
    with open_image(path, allow_empty=True) as image:
        identity = identify_bytes(image.data)
        own: list[Function] = []
        parts: tuple[tuple[int, memoryview], ...] = ()
        if identity.format is Format.ELF:
            parts, own = symtab.segments(image.data), symtab.functions(image.data)
        elif identity.format is Format.IMAGE:
            parts = ((0, image.data),)
        segments = tuple((start, bytes(part)) for start, part in parts)
    named = {
        place: name
        for _, place, name in sorted(own or _carried(segments, identity.arch))
        if name and name.isprintable() and not name.startswith(("$", ".L"))
    }
    if not named or not segments:
        return None
    addresses = tuple(sorted(named))
    return Symbols(segments, addresses, tuple(named[address] for address in addresses))


def _carried(segments: tuple[tuple[int, bytes], ...], arch: str | None) -> list[Function]:
    architecture = ARCHITECTURES.get(arch or "")
    head = segments[0][1][:_HEAD] if segments else b""
    landmark = architecture.landmark(head) if architecture else None
    found = (
        kallsyms.functions(memoryview(part), start, landmark)
        for start, part in segments[:_MOST_SEGMENTS]
    )
    return next(filter(None, found), [])
