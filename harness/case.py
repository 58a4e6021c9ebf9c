"""Case = kernel x format x protocol x offset x machine -> expectation. Ids; nothing is run here.

Each field says in its metadata how it is written in scenario files and JSON and what it means:
bootproof.harness.cases.schema makes the validation, the errors and docs/scenarios.md from that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bootproof.harness.arch import DEFAULT_PROFILE
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.observation import Placement
from bootproof.harness.verdict import Verdict
from bootproof.loader.address import GIB, MIB
from bootproof.loader.result import PvhState

MIB_512: Final = 512 * MIB
RAM_BASE: Final = {name: arch.ram_base for name, arch in ARCHES.items()}
KEY: Final = "bootproof"  # of a field's metadata
# A kernel may be named by its path: no part of an id may lead somewhere else, or be no text.
_NOT_PLAIN: Final = re.compile(r"[^A-Za-z0-9.+_-]")
_NAME_LIMIT: Final = 120


@dataclass(frozen=True, slots=True)
class Key:
    """How a field is written as data. `name` differs from the field's where users know another
    word; `size` numbers may be written like 16M; `offset` may count from the start of RAM; `plain`
    texts are parts of ids, which are names of directories.
    """

    about: str
    name: str | None = None
    size: bool = False
    offset: bool = False
    plain: bool = False


def key(about: str, **others: Any) -> Mapping[str, Key]:
    """The metadata of a field that may stand in a scenario file."""
    return {KEY: Key(about, **others)}


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a case must end as."""

    verdict: Verdict = field(
        default=Verdict.BOOTED, metadata=key("how the case must end: docs/verdicts.md lists them")
    )
    pvh: PvhState | None = field(
        default=None, metadata=key("what the loader must say of the kernel's PVH entry")
    )
    protocol: str | None = field(
        default=None, metadata=key("the protocol that must be taken, where the case asks for auto")
    )
    code: str | None = field(
        default=None, metadata=key("the loader's error code that a refusal must have")
    )
    reason: str | None = field(
        default=None, metadata=key("text that the verdict's reason must contain", name="says")
    )
    why: str = field(default="", metadata=key("why this is what must happen"))


@dataclass(frozen=True, slots=True)
class Case:
    """One boot. `claim` replaces the protocol in the id where the point of the case is another."""

    arch: str = field(metadata=key("the architecture of the kernel and the guest"))
    kernel: str = field(metadata=key("the kernel: a name of the catalogue, or the path of a file"))
    format: str = field(
        metadata=key("what the kernel is unpacked to before it is loaded; file: as it is")
    )
    protocol: str = field(
        metadata=key("the boot protocol; auto: PVH if the kernel offers it, else the Linux one")
    )
    offset: int | None = field(
        default=None,
        metadata=key("linux-loader's kernel_offset for the format", size=True, offset=True),
    )
    memory: int = field(default=MIB_512, metadata=key("guest RAM", size=True))
    board: str | None = field(default=None, metadata=key("QEMU's machine type", name="machine"))
    cpu: str | None = field(default=None, metadata=key("QEMU's CPU model"))
    placement: Placement = field(
        default=Placement.PIECES,
        metadata=key(
            "how the bytes get into RAM: pieces (a generic loader device for each) or mapped"
            " (ram.img is the RAM)"
        ),
    )
    variant: str | None = field(default=None, metadata=key("a changed copy of the kernel"))
    cmdline: str | None = field(
        default=None, metadata=key("the kernel command line instead of the default")
    )
    unsafe: bool = field(default=False, metadata=key("start what the loader would refuse"))
    pvh_relocate: bool = field(
        default=False,
        metadata=key("enter through PVH at an offset where the kernel's note allows it"),
    )
    claim: str | None = field(
        default=None,
        metadata=key(
            "what the case is about: in its id instead of the protocol", name="label", plain=True
        ),
    )
    init: str = field(default="init", metadata=key("the guest's first process (loader/guest)"))
    damage: str | None = field(
        default=None, metadata=key("a change of the built boot image, to make the guest fail")
    )
    kill_at: str | None = field(
        default=None, metadata=key("console text at which QEMU is killed from outside")
    )
    probe: bool = field(
        default=True,
        metadata=key("stop at the first instruction and check the hand-over; false: run on"),
    )
    budget: int | None = field(
        default=None, metadata=key("guest instructions by which the verdict must be there")
    )
    budget_seconds: float | None = field(
        default=None, metadata=key("CPU seconds of QEMU by which the verdict must be there")
    )
    qemu: str | None = field(
        default=None,
        metadata=key("the name of another QEMU, given with --qemu NAME=PATH", plain=True),
    )
    accel: str = field(default="tcg", metadata=key("QEMU's accelerator; only tcg"))
    kernel_path: str | None = field(
        default=None, metadata=key("where the kernel's file is; `kernel` then only names it")
    )
    initrd: str | None = field(
        default=None, metadata=key("a file of the user's, whose /init runs after the proof")
    )
    smp: int = field(default=1, metadata=key("how many CPUs the guest has"))
    realtime: bool = field(
        default=False, metadata=key("give up determinism: the guest has the host's clock")
    )
    profile: str = field(
        default=DEFAULT_PROFILE,
        metadata=key("which of our own kernel command lines; never together with `cmdline`"),
    )
    expect: Expectation = field(default=Expectation(), metadata=key("what the case must end as"))

    @property
    def kernel_source(self) -> str:
        """What the kernel is found by: its path, else its name in the catalogue."""
        return self.kernel_path or self.kernel

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
        parts += [f"smp{self.smp}"] if self.smp != 1 else []
        parts += ["realtime"] if self.realtime else []
        parts += [self.profile] if self.profile != DEFAULT_PROFILE else []
        parts += [self.qemu] if self.qemu else []
        return _NOT_PLAIN.sub("_", "-".join(parts))  # a label, say, may be a stranger's


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
