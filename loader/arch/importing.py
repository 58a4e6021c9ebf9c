"""What was seen of a CPU of another program, and how that is read: one value an architecture.

Must not know any architecture. All addresses are guest-physical.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any, Generic

from bootproof.dataclass import dataclass
from bootproof.loader.arch import How, R, RamFile
from bootproof.loader.errors import LoaderError

if TYPE_CHECKING:
    from bootproof.loader.corefile import Note


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of a CPU: registers by the names of their fields.

    Of some segment registers only the selector may have been seen.
    """

    values: Mapping[str, Any]
    selectors: Mapping[str, int] = field(default_factory=dict)


class SeenError(LoaderError):
    """Registers that were not seen, and that nothing tells."""

    code = "Import::Registers"


@dataclass(frozen=True, slots=True)
class Conclusion:
    """A register that was not seen."""

    field: str
    value: Any
    how: How
    # What it was derived from; empty when a protocol demands it.
    source: str


@dataclass(frozen=True, slots=True)
class Importing(Generic[R]):
    """How CPUs of other programs are read."""

    # The field of the program counter.
    counter: str
    # The fields that tell the CPU's mode.
    tells_mode: tuple[str, ...]
    # e_machine of their cores.
    machines: tuple[int, ...]
    # The CPUs that a core's notes show.
    from_notes: Callable[[Sequence[Note]], list[Seen]]
    # The registers that every debugger shows, in their order, with their bits.
    debugger: tuple[tuple[str, int], ...]
    # What a debugger shows, by its names.
    from_debugger: Callable[[Mapping[str, int]], Seen]
    # What follows from what was seen, from RAM, and from what a protocol demands.
    conclude: Callable[[Seen, R | None, RamFile], Iterator[Conclusion]]
    # Bits that a CPU shows and that are no part of a hand-over, by their field.
    left_out: Mapping[str, int] = field(default_factory=dict)
