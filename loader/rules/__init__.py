"""What each boot protocol demands at the kernel's first instruction, as checks.

A second opinion, written from the documents and not from the code that makes register states: it
takes any registers and any memory, also those of other loaders. It shares the layout of structures
with that code, and no decision. Pure. One module per document; the protocols say which is theirs.

A *violation* breaks what kernels rely on. *Tolerated* breaks the letter, and kernels boot all the
same: it is reported and fails nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeAlias

from bootproof.loader.address import Range
from bootproof.loader.arch import R
from bootproof.loader.boot_parameters import Read


class Grade(enum.Enum):
    VIOLATION = "violation"
    TOLERATED = "tolerated"


@dataclass(frozen=True, slots=True)
class RuleFinding:
    """A rule that does not hold: a stable code, and what was found in one sentence."""

    code: str
    grade: Grade
    sentence: str


Findings: TypeAlias = Iterator[RuleFinding]


@dataclass(frozen=True, slots=True)
class Hardware(Generic[R]):
    """What a rule may look at.

    `footprint` is the RAM the kernel uses before it has a memory map, when that is known; `system`
    holds system registers by name (aarch64: SCTLR, SCTLR_EL2), as far as they are known.
    """

    registers: R
    read: Read
    footprint: Range | None = None
    system: Mapping[str, int] = field(default_factory=dict)


def violation(code: str, sentence: str) -> RuleFinding:
    return RuleFinding(code, Grade.VIOLATION, sentence)


def tolerated(code: str, sentence: str) -> RuleFinding:
    return RuleFinding(code, Grade.TOLERATED, sentence)
