"""The boot parameters that a configurator writes: a header, sections, modules, and their places.

Owns the lists that sections and modules are collected in, with linux-loader's rules for where the
next one goes. Knows nothing of what the bytes mean. All addresses are guest-physical.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Self, TypeAlias

from bootproof.dataclass import dataclass
from bootproof.loader.address import MIB, U64_MAX, checked_add
from bootproof.loader.declared import Declared
from bootproof.loader.errors import (
    Facts,
    InvalidAddress,
    LoaderError,
    MissingStartAddress,
    Overflow,
)
from bootproof.loader.memory import GuestMemory

Content: TypeAlias = "bytes | bytearray | memoryview | Declared"

# A memory map or a module list has a few KiB. An element far behind the others would have the gap
# filled with zeros, and linux-loader ends the process when there is no memory for them.
LIST_MAX: Final = 16 * MIB


@dataclass(slots=True)
class BootParams:
    """Bytes and guest-physical addresses for `write_bootparams`; fields as in linux-loader.

    `header` is always written, `sections` (the memory map) and `modules` only by pvh.
    """

    header: bytes
    header_start: int
    sections: bytes | None = None
    sections_start: int | None = None
    modules: bytes | None = None
    modules_start: int | None = None

    @classmethod
    def new(cls, header: Content, header_address: int) -> Self:
        """Parameters with nothing but a header, which goes to `header_address`."""
        return cls(_bytes(header), header_address)

    def set_sections(self, sections: Iterable[Content], sections_address: int) -> None:
        """Replaces all sections and their address."""
        self.sections = b"".join(map(_bytes, sections))
        self.sections_start = sections_address

    def set_modules(self, modules: Iterable[Content], modules_address: int) -> None:
        """Replaces all modules and their address."""
        self.modules = b"".join(map(_bytes, modules))
        self.modules_start = modules_address

    def add_section(self, section: Content, section_address: int | None = None) -> int:
        """Puts one section at its address, over what is there, or behind the last; the address.

        Raises MissingStartAddress for the first without one, InvalidAddress for one before the
        first, and Overflow when the list would end beyond 64 bits (or beyond LIST_MAX bytes).
        """
        if self.sections is None:
            self.sections = b""
        if self.sections_start is None:
            self.sections_start = section_address
        start = self.sections_start
        self.sections, address = _added(self.sections, start, _bytes(section), section_address)
        return address

    def add_module(self, module: Content, module_address: int | None = None) -> int:
        """As add_section, for modules."""
        if self.modules is None:
            self.modules = b""
        if self.modules_start is None:
            self.modules_start = module_address
        start = self.modules_start
        self.modules, address = _added(self.modules, start, _bytes(module), module_address)
        return address


# How linux-loader calls a piece that is not all in RAM, and one with no RAM behind it.
Kinds: TypeAlias = tuple[type[LoaderError], type[LoaderError]]


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes to write, and how linux-loader's variants for this piece are called.

    `past_end` is None for a piece whose end linux-loader does not look at.
    """

    name: str
    data: bytes
    address: int
    setup: type[LoaderError]
    past_end: type[LoaderError] | None = None


def write_pieces(memory: GuestMemory, pieces: Iterable[Piece]) -> None:
    """Writes all pieces in their order, or none: every check comes before the first write.

    `pieces` is taken one by one, each checked before the next is asked for.
    """
    checked = []
    for piece in pieces:
        _check(memory, piece)
        checked.append(piece)
    for piece in checked:
        memory.write(piece.address, piece.data)


def _check(memory: GuestMemory, piece: Piece) -> None:
    address, size = piece.address, len(piece.data)
    end = checked_add(address, size)
    what = f"{piece.name} of {size:#x} bytes at {address:#x}"
    ram, last = memory.describe(), memory.last_address
    facts: Facts = {"field": piece.name, "value": address}
    # linux-loader asks whether the byte *after* the piece is RAM (GuestMemory::checked_offset).
    if piece.past_end is not None and (end is None or not memory.contains(end, 1)):
        what += f" needs a byte of RAM behind it; RAM is {ram}"
        raise piece.past_end(what, **facts, limit=last - size, advice="put it lower")
    if not memory.contains(address, size):
        raise piece.setup(f"{what} is not all in RAM; RAM is {ram}", **facts, limit=last)


def _added(
    content: bytes, start: int | None, element: bytes, address: int | None
) -> tuple[bytes, int]:
    """`content`, which lies at `start`, with `element` at `address` or appended; and its address.

    The order of checks is linux-loader's: the end of the list counts also when it is not used.
    """
    if start is None:
        raise MissingStartAddress(field="address")
    end = checked_add(start, len(content))
    if end is None:
        raise Overflow(field="address", value=start, limit=U64_MAX - len(content))
    if address is None:
        address = end
    if address < start:
        raise InvalidAddress(field="address", value=address, limit=start)
    offset = address - start
    if offset + len(element) > LIST_MAX:
        what = f"an element at {address:#x} would make the list from {start:#x} on"
        facts: Facts = {"field": "address", "value": address, "limit": start + LIST_MAX}
        raise Overflow(f"{what} {offset + len(element):#x} bytes long", **facts)
    head = content[:offset].ljust(offset, b"\0")
    return head + element + content[offset + len(element) :], address


def _bytes(content: Content) -> bytes:
    return content.to_bytes() if isinstance(content, Declared) else bytes(content)
