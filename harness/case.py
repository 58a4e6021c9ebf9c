"""Case = kernel x format x protocol x offset x machine -> expectation. Ids; nothing is run here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from harness.realise import Placement
from harness.verdict import Verdict
from loader.address import GIB, MIB
from loader.result import PvhState

MIB_512: Final = 512 * MIB
RAM_BASE: Final = {"x86_64": 0, "aarch64": GIB}
# A kernel may be named by its path: no part of an id may lead somewhere else, or be no text.
_NOT_PLAIN: Final = re.compile(r"[^A-Za-z0-9.+_-]")
_NAME_LIMIT: Final = 120


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a case must end as. `code` is the loader's error code for a refusal, `reason` a part of
    the verdict's reason; `why` explains an expected failure to the reader.
    """

    verdict: Verdict = Verdict.BOOTED
    pvh: PvhState | None = None
    protocol: str | None = None
    code: str | None = None
    reason: str | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """One boot. `kernel` is a catalogue name or a path; `format` is what it is unpacked to.

    `offset` is linux-loader's kernel_offset for the format; `memory` is in bytes. `variant` names a
    changed copy of the kernel (harness.variants). `unsafe` builds what the loader would refuse;
    `pvh_relocate` enters through PVH at an offset where the kernel's relocation note allows it.
    `claim` replaces the protocol in the id where the point of the case is another.

    What makes a guest fail on purpose: `init` names another first process (loader/guest), `damage`
    a change of the built boot image (harness.damage), `kill_at` console text at which QEMU is
    killed. `probe` off lets a guest run on that is handed over wrongly. `budget` is the guest
    instructions by which the verdict must be there (None: harness.watch.Budget).
    """

    arch: str
    kernel: str
    format: str
    protocol: str
    offset: int | None = None
    memory: int = MIB_512
    board: str | None = None
    cpu: str | None = None
    placement: Placement = Placement.PIECES
    variant: str | None = None
    cmdline: str | None = None
    unsafe: bool = False
    pvh_relocate: bool = False
    claim: str | None = None
    init: str = "init"
    damage: str | None = None
    kill_at: str | None = None
    probe: bool = True
    budget: int | None = None
    expect: Expectation = Expectation()

    @property
    def id(self) -> str:
        """Readable, unique in a matrix, usable with `-k`, and fit for the name of a directory."""
        kernel = _NOT_PLAIN.sub("_", self.kernel)[-_NAME_LIMIT:]
        parts = [self.arch, kernel, self.format, self.claim or self.protocol]
        parts.append(offset_label(self.arch, self.format, self.offset))
        parts += [self.board] if self.board else []
        parts += [self.placement.value] if self.placement is not Placement.PIECES else []
        parts += ["relocate"] if self.pvh_relocate else []
        parts += ["unsafe"] if self.unsafe else []
        parts += [] if self.probe else ["unprobed"]
        return "-".join(parts)


def offset_label(arch: str, format_: str, offset: int | None) -> str:
    """How an offset is written in ids: relative to where it counts from."""
    if offset is None:
        return "none"
    if format_ == "bzimage":
        return f"at{short(offset)}"
    base = RAM_BASE[arch] if format_ == "image" else 0
    if offset < base:
        return f"at{short(offset)}"
    return ("ram+" if base else "+") + short(offset - base)


def short(value: int) -> str:
    """16M, 1G, 4K, 0x1234000: the shortest exact way to write an address or size."""
    for unit, letter in ((GIB, "G"), (MIB, "M"), (1 << 10, "K")):
        if value and value % unit == 0 and value // unit < 10000:
            return f"{value // unit}{letter}"
    return hex(value) if value > 9 else str(value)
