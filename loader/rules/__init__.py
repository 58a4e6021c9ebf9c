"""What each boot protocol demands at the kernel's first instruction, as checks.

A second opinion, written from the documents and not from the code that makes register states: it
takes any registers and any memory, also those of other loaders. It shares the layout of structures
with that code, and no decision. Pure. One module per document; the protocols say which is theirs.

A *violation* breaks what kernels rely on. *Tolerated* breaks the letter, and kernels boot all the
same: it is reported and fails nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from functools import partial
from typing import Generic, TypeAlias

from bootproof.dataclass import dataclass
from bootproof.loader.address import Range, joined
from bootproof.loader.arch import R
from bootproof.loader.boot_parameters import Read
from bootproof.loader.layout import Region


class Grade(enum.Enum):
    VIOLATION = "violation"
    TOLERATED = "tolerated"


@dataclass(frozen=True, slots=True)
class RuleFinding:
    """A rule that does not hold: a stable code, and what was found in one sentence."""

    grade: Grade
    code: str
    sentence: str
    # The document that asks for it, and where in it.
    section: str = ""
    # Guest-physical, of what is wrong; what was found there, and what would have been allowed.
    address: int | None = None
    value: int | None = None
    limit: int | None = None

    @property
    def forbidden(self) -> bool:
        """Whether kernels rely on what it breaks."""
        return self.grade is Grade.VIOLATION

    def as_dict(self) -> dict[str, str | None]:
        """For programs: numbers are hexadecimal strings, as in a boot image."""
        numbers = {"address": self.address, "value": self.value, "limit": self.limit}
        words = {"code": self.code, "grade": self.grade.value, "sentence": self.sentence}
        found = {name: None if number is None else hex(number) for name, number in numbers.items()}
        return {**words, "section": self.section, **found}


Findings: TypeAlias = Iterator[RuleFinding]


@dataclass(frozen=True, slots=True)
class Hardware(Generic[R]):
    """What a rule may look at: a CPU, and what is in the machine."""

    registers: R
    read: Read
    # The machine's.
    ram: Sequence[Range]
    # The RAM that the kernel uses before it has a memory map, when that is known.
    footprint: Range | None = None
    # System registers by name (aarch64: SCTLR, SCTLR_EL2), as far as they are known.
    system: Mapping[str, int] = field(default_factory=dict)
    # How many CPUs the machine has; rules that need it leave out what is unknown.
    cpus: int | None = None
    # The registers of the CPUs beside the first one, where they are known.
    others: Sequence[R] = ()
    # What the loader says lies where.
    regions: Sequence[Region] = ()
    # RAM where a firmware stays, out of which the kernel has to be kept.
    resident: Sequence[Range] = ()

    def in_ram(self, place: Range) -> bool:
        """Whether all of a guest-physical range is RAM."""
        return any(bank.contains(place) for bank in joined(self.ram))

    @property
    def ram_text(self) -> str:
        """The machine's RAM in words for a finding."""
        return f"; RAM is {', '.join(map(str, joined(self.ram)))}"


violation = partial(RuleFinding, Grade.VIOLATION)
tolerated = partial(RuleFinding, Grade.TOLERATED)
