"""The list of setup_data that a zero page leads to: its nodes, and what they lead to. Pure.

Source: Documentation/arch/x86/boot.rst ("The Real-Mode Kernel Header", setup_data); what a CC blob
begins with is in arch/x86/include/asm/sev.h, how kernels look for it in arch/x86/coco/sev.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

from bootproof.dataclass import dataclass
from bootproof.loader.address import Range
from bootproof.loader.boot_parameters import Read
from bootproof.loader.rules import Findings, Hardware, RuleFinding, documents, violation
from bootproof.loader.rules.pieces import Piece
from bootproof.loader.structures.zero_page import E820Entry, SetupData, SetupIndirect

_SECTION: Final = f"{documents.HEADER}, setup_data"
_MOST_NODES: Final = 256
_MOST_READ: Final = 1 << 16
_E820_EXT, _CC_BLOB, _IMA, _INDIRECT = 1, 7, 8, 1 << 31
_TWO_NUMBERS: Final = struct.Struct("<QQ")
_BLOB_MAGIC: Final = b"AMDE"

Grade = Callable[..., RuleFinding]


@dataclass(frozen=True, slots=True)
class Chain:
    """The list as far as it can be followed."""

    pieces: tuple[Piece, ...]
    # Of its nodes with more of the memory map.
    entries: tuple[E820Entry, ...]
    # What the first node with a CC blob says of where that is, guest-physical; 0 without any.
    cc_blob: int
    # Why it cannot be followed to its end.
    broken: tuple[RuleFinding, ...]


def follow(hardware: Hardware[Any], first: int) -> Chain:
    """Everything that the node at guest-physical `first` leads to; nothing for 0."""
    found, entries, blobs = list[Piece](), list[E820Entry](), list[int]()
    address, seen, broken = first, set[int](), list[RuleFinding]()
    while address:
        raw = hardware.read(address, SetupData.SIZE)
        if raw is None or address in seen or len(seen) >= _MOST_NODES:
            why = "is not in RAM" if raw is None else "is in it twice, or it has too many"
            what = f"the list of setup_data cannot be followed: the node at {address:#x} {why}"
            broken.append(violation("setup-data", what, _SECTION, address=address))
            break
        seen.add(address)
        node = SetupData.from_bytes(raw)
        place = Range(address, SetupData.SIZE + node.len)
        name = f"setup_data of type {node.type:#x}"
        found.append(Piece(name, place, "setup_data", _SECTION, "setup-data"))
        data = hardware.read(address + SetupData.SIZE, min(node.len, _MOST_READ)) or b""
        if node.type == _E820_EXT and node.len <= _MOST_READ:
            entries += E820Entry.all_from(data)
        elif node.type == _CC_BLOB:
            blobs.append(int.from_bytes(data[:4], "little"))
        elif node.type == _IMA and len(data) >= _TWO_NUMBERS.size:
            place = Range(*_TWO_NUMBERS.unpack_from(data))
            found.append(Piece("IMA buffer", place, "setup_data", _SECTION, "setup-data"))
        elif node.type == _INDIRECT and len(data) >= SetupIndirect.SIZE:
            found.append(_elsewhere(SetupIndirect.from_bytes(data[: SetupIndirect.SIZE])))
        address = node.next
    return Chain(tuple(found), tuple(entries), next(iter(blobs), 0), tuple(broken))


def _elsewhere(indirect: SetupIndirect) -> Piece:
    """Kernels keep off it as off a node; what is in it they read where they know its type."""
    name, place = f"data of type {indirect.type:#x}", Range(indirect.addr, indirect.len)
    return Piece(name, place, "setup_indirect", _SECTION, "setup-data")


def blob(
    read: Read, address: int, pointer: str, section: str, grade: Grade = violation
) -> Findings:
    """Led to something else, a kernel takes its machine for a broken SEV-SNP one, and ends."""
    if address and read(address, len(_BLOB_MAGIC)) != _BLOB_MAGIC:
        what = f"{pointer} leads to {address:#x}, where no CC blob is"
        yield grade("cc-blob", what, section, address=address)
