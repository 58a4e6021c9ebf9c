"""A way to enter a kernel, as a value: the type, and what it hands over.

All addresses are guest-physical.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic

from bootproof.dataclass import dataclass
from bootproof.loader.arch import R

if TYPE_CHECKING:
    from bootproof.loader.address import Range
    from bootproof.loader.arch import Architecture, Registers
    from bootproof.loader.boot_parameters import BootParameters, Read
    from bootproof.loader.layout import Region
    from bootproof.loader.memory import GuestMemory
    from bootproof.loader.protocols import BootRequest
    from bootproof.loader.result import KernelLoaderResult


@dataclass(frozen=True, slots=True)
class Handover:
    """The state at the kernel's first instruction, and what lies where for it."""

    registers: Registers
    regions: tuple[Region, ...]


@dataclass(frozen=True, slots=True)
class Pointer:
    """The register that leads to what a kernel is told, and how that is known in RAM."""

    # Its field, and where this holds several, which of them.
    register: str
    # What it leads to, and the bytes that this has at an offset.
    what: str
    magic: bytes
    offset: int = 0
    # What its address is a multiple of.
    alignment: int = 4
    index: int | None = None

    def of(self, values: Mapping[str, Any]) -> int | None:
        """Its value, if it is among registers by the names of their fields."""
        found = values.get(self.register)
        return found if found is None or self.index is None else found[self.index]

    @property
    def name(self) -> str:
        return self.register if self.index is None else f"{self.register}{self.index}"


@dataclass(frozen=True, slots=True)
class BootProtocol(Generic[R]):
    """A way to enter a kernel."""

    name: str
    arch: Architecture[R]
    # Where a kernel offers several and nobody says which, the one of the lowest rank is taken.
    rank: int
    # Places every piece beside the kernel. Raises LayoutError or ProtocolError.
    plan: Callable[[Sequence[Range], KernelLoaderResult, BootRequest], list[Region]]
    # Writes every piece and gives the register state. Raises as `plan`; memory is unchanged then.
    configure: Callable[[GuestMemory, KernelLoaderResult, BootRequest], Handover]
    # The state that is demanded at an entry, with what the kernel is told at a place; all other
    # places are 0. Both are guest-physical.
    state: Callable[[int, int], R]
    pointer: Pointer
    # What a kernel that is entered with these registers is told, also by another loader.
    read: Callable[[R, Read], BootParameters]
    # All else in the structures that the registers lead to: names and values as text.
    fields: Callable[[R, Read], Iterator[tuple[str, str]]]
    # The register that leads to a device tree, and a pattern of those that it leaves open, by name.
    tree_register: str | None = None
    left_open: str | None = None
    # How the guest's /proc/sys/kernel/bootloader_type must read after `configure`, if it has one.
    bootloader_type: int | None = None
