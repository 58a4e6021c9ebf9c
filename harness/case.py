"""Case = kernel x format x protocol x offset x machine -> expectation. Ids; nothing is run here.

Each field says in its metadata how it is written and what it means: bootproof.harness.cases.schema
makes keys of scenario files and of JSON from that, options of commands and words of the fixtures,
what validates them, and docs/scenarios.md. This is the one table of options.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import Any, Final

from bootproof.dataclass import dataclass
from bootproof.harness.arch.profiles import DEFAULT_PROFILE
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.terms import Budget, Placement
from bootproof.harness.verdict import Verdict
from bootproof.loader.address import GIB, MIB
from bootproof.loader.formats import PvhState

MIB_512: Final = 512 * MIB
KEY: Final = "bootproof"  # of a field's metadata
# A kernel may be named by its path: no part of an id may lead somewhere else, or be no text.
_NOT_PLAIN: Final = re.compile(r"[^A-Za-z0-9.+_-]")
_NAME_LIMIT: Final = 120
_VALUE_LIMIT: Final = 40
_SHOWN: Final = frozenset(
    ("arch", "kernel", "format", "protocol", "label", "offset", "board", "placement", "unsafe")
) | {"pvh_relocate", "virtual_offset", "kaslr_seed", "probe", "smp", "realtime", "profile", "qemu"}


# The commands that have options of a case. `matrix` gives them to every guest of `--kernel`.
BOOT, IMAGE, COMPARE, MATRIX, RUN = "boot", "image", "compare", "matrix", "run"
INSPECT = "inspect"
COMMANDS: Final = (BOOT, IMAGE, COMPARE, MATRIX, RUN, INSPECT)
_OUR_LOADER: Final = (BOOT, IMAGE)
_OUR_GUESTS: Final = (BOOT, MATRIX)
_MACHINES: Final = (BOOT, IMAGE, COMPARE, MATRIX, RUN)
_KERNELS: Final = (BOOT, IMAGE, COMPARE, MATRIX)


@dataclass(frozen=True, slots=True)
class Key:
    """How a field is written: in scenario files, in JSON, on the command line and in the docs."""

    # What it means; what --help and docs/scenarios.md say of it.
    about: str
    # Where users know another word than the field's.
    name: str | None = None
    # Which commands have it as an option; with `_` written as `-` there.
    commands: tuple[str, ...] = ()
    # What --help says instead, where users of a command line need other words.
    help: str | None = None
    # How --help calls its value.
    metavar: str | None = None
    # A number of bytes, which may be written like 16M.
    size: bool = False
    # A size that may count from the start of RAM, like ram+2M.
    offset: bool = False
    # A file: any bytes may be in its name, and no scenario file may name it.
    path: bool = False
    # A text of any bytes, as a console may show.
    raw: bool = False
    # A text that is a part of ids, which are names of directories.
    plain: bool = False
    # A number of guest instructions, which may be written like 2G or 60s.
    instructions: bool = False
    # What users of a command line call it as well.
    alias: str | None = None
    # A text of a line for each time that the option is given.
    lines: bool = False
    # A text that may say nothing.
    empty: bool = False
    # Seldom needed: --help only names it.
    rare: bool = False
    # Follows from other keys, or is of boot images; no scenario file may name it.
    derived: bool = False


def key(about: str, *commands: str, **others: Any) -> Mapping[str, Key]:
    """The metadata of a field that may be written."""
    return {KEY: Key(about, commands=commands, **others)}


def optional(about: str, *commands: str, default: Any = None, **others: Any) -> Any:
    """A field that need not be written."""
    return field(default=default, metadata=key(about, *commands, **others))


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a case must end as."""

    verdict: Verdict = optional(
        "how the case must end: docs/verdicts.md lists them", default=Verdict.BOOTED
    )
    pvh: PvhState | None = optional("what the loader must say of the kernel's PVH entry")
    protocol: str | None = optional("the protocol that must be taken, where the case asks for auto")
    code: str | None = optional("the loader's error code that a refusal must have")
    reason: str | None = optional("text that the verdict's reason must contain", name="says")
    why: str = optional("why this is what must happen", default="", empty=True)


@dataclass(frozen=True, slots=True)
class Case:
    """One boot. A field with commands is an option of theirs: nothing else has to name it."""

    arch: str = field(metadata=key("the architecture of the kernel and the guest"))
    kernel: str = field(
        metadata=key("the kernel: a name of the catalogue, NAME=PATH, or the path of a file")
    )
    format: str = field(
        metadata=key(
            "what the kernel is unpacked to before it is loaded; file: as it is",
            *(*_OUR_LOADER, COMPARE),
            help="{words}: unpack to this first",
        )
    )
    protocol: str = field(
        metadata=key(
            "the boot protocol; auto: PVH if the kernel offers it, else the Linux one",
            *(*_OUR_LOADER, COMPARE),
            help="{words} (default: PVH if offered, else Linux's own)",
        )
    )
    offset: int | None = optional(
        "linux-loader's kernel_offset for the format",
        *(*_OUR_LOADER, INSPECT),
        help="added to a vmlinux's addresses, load address of a bzImage, base of an Image"
        " (default: none; for an Image ram+2M)",
        size=True,
        offset=True,
    )
    memory: int = optional("guest RAM", *_MACHINES, default=MIB_512, size=True)
    board: str | None = optional("QEMU's machine type", *_MACHINES, name="machine")
    cpu: str | None = optional("QEMU's CPU model", *_MACHINES)
    placement: Placement = optional(
        "how the boot image gets into guest RAM: devices (QEMU has a generic loader device for"
        " each region of data) or mapped (its file ram.img is used as the RAM, and stays as it"
        " is)",
        *_OUR_GUESTS,
        default=Placement.DEVICES,
        help="devices: QEMU's loader devices fill the RAM; mapped: the image's ram.img is it",
        metavar="WAY",
        rare=True,
    )
    variant: str | None = optional("a changed copy of the kernel")
    cmdline: str | None = optional(
        "the kernel command line instead of the default", *_KERNELS, metavar="CMDLINE", empty=True
    )
    append: str | None = optional(
        "words that are added to the kernel command line", *_KERNELS, metavar="WORDS", empty=True
    )
    unsafe: bool = optional(
        "start what the loader would refuse", *_OUR_LOADER, default=False, rare=True
    )
    pvh_relocate: bool = optional(
        "enter through PVH at an offset where the kernel's note allows it",
        *_OUR_LOADER,
        default=False,
        rare=True,
    )
    virtual_offset: int | None = optional(
        "how far above its linked virtual address a vmlinux runs (virtual KASLR)",
        *_OUR_LOADER,
        size=True,
        rare=True,
    )
    kaslr_seed: int | None = optional(
        "chooses a virtual offset: the same one for the same number", *_OUR_LOADER, rare=True
    )
    label: str | None = optional(
        "what the case is about: in its id instead of the protocol", plain=True
    )
    no_proof: bool = optional(
        "write a boot image without our init and nonce",
        IMAGE,
        default=False,
        help="without our init and nonce, for kernels that are not Linux (see run --until)",
        derived=True,
    )
    init: str = optional("the guest's first process (loader/guest)", default="init")
    damage: str | None = optional("a change of the built boot image, to make the guest fail")
    kill_at: str | None = optional("console text at which QEMU is killed from outside")
    probe: bool = optional(
        "stop at the first instruction and check the hand-over; false: run on",
        *_OUR_GUESTS,
        default=True,
        help="check the hand-over at the first instruction",
        rare=True,
    )
    budget: int | None = optional(
        "guest instructions by which the verdict must be there, like 2G, or guest seconds, like"
        " 60s, as the instructions that the CPU executes in them; a busy host changes neither",
        *(BOOT, MATRIX, RUN),
        help="instructions (2G) or guest seconds (60s) for all of it",
        metavar="N",
        instructions=True,
        alias="timeout",
    )
    budget_seconds: float | None = optional(
        "CPU seconds of QEMU by which the verdict must be there",
        *(BOOT, MATRIX, RUN),
        help=f"CPU seconds of QEMU for the verdict (default: {Budget().cpu_seconds:g})",
        rare=True,
    )
    qemu: str | None = optional(
        "the name of another QEMU, given with --qemu NAME=PATH",
        *(BOOT, IMAGE, COMPARE, RUN),
        help="another QEMU, with a name for the case's id",
        metavar="NAME=PATH",
        plain=True,
        rare=True,
    )
    accel: str = optional("QEMU's accelerator; only tcg", default="tcg")
    kernel_path: str | None = optional(
        "where the kernel's file is; `kernel` then only names it", path=True
    )
    kernel_role: str | None = optional(
        "of a kernel with the name of its file: that without the version", derived=True, empty=True
    )
    initrd: str | None = optional(
        "a file of the user's, whose /init runs after the proof",
        *_KERNELS,
        help="its /init runs after the proof",
        path=True,
    )
    test: str | None = optional(
        "shell commands that are run in the guest after the proof, a test for each line; one"
        " that fails, also in TAP or KTAP, makes the verdict tests-failed",
        *_OUR_GUESTS,
        help="run in the guest after the proof (docs/guest-tests.md)",
        metavar="COMMAND",
        lines=True,
    )
    modules: str | None = optional(
        "kernel modules that the guest loads before its tests, and each is a test: files with"
        " their parameters, a line each, in this order",
        *_OUR_GUESTS,
        help="a kernel module: NAME, FILE.ko, DIRECTORY or PACKAGE/NAME, then its parameters",
        metavar="MODULE",
        path=True,
        rare=True,
        lines=True,
    )
    dtb: str | None = optional(
        "a device tree instead of the machine's own; its /chosen is written anew",
        *_OUR_LOADER,
        help="a device tree instead of the machine's own",
        path=True,
        rare=True,
    )
    overlay: str | None = optional(
        "directories whose files are put into the guest's root, a line each",
        *_OUR_GUESTS,
        help="its files are put into the guest's root",
        metavar="DIR",
        path=True,
        rare=True,
        lines=True,
    )
    smp: int = optional("how many CPUs the guest has", BOOT, IMAGE, MATRIX, RUN, default=1)
    realtime: bool = optional(
        "give up determinism: the guest has the host's clock",
        *_OUR_GUESTS,
        default=False,
        rare=True,
    )
    fail_on_complaints: bool = optional(
        "a kernel that complains fails, whatever else it does: WARNING, BUG, stall, …",
        *(*_OUR_GUESTS, RUN),
        default=False,
        help="fail on the kernel's WARNING, BUG, stall, …",
    )
    profile: str = optional(
        "which of our own kernel command lines; never together with `cmdline`",
        *_KERNELS,
        default=DEFAULT_PROFILE,
        help="{words} (no self-tests, no mitigations)",
    )
    boot_image: str | None = optional(
        "the directory of a boot image that is started as it is; `kernel` then names that, and"
        " `kernel_path` the kernel that it is held against",
        path=True,
    )
    until: str | None = optional(
        "text that the console of a boot image without a proof must show",
        RUN,
        help="text the console must show, for a guest that cannot prove its boot",
        metavar="TEXT",
        raw=True,
        derived=True,
    )
    only_handover: bool = optional(
        "end a boot image's run at the first instruction",
        RUN,
        default=False,
        help="stop at the first instruction: registers, RAM and the protocol's rules",
        derived=True,
    )
    expect: Expectation = optional("what the case must end as", default=Expectation())

    @property
    def kernel_source(self) -> str:
        """What the kernel is found by: its path, else its name in the catalogue."""
        return self.kernel_path or self.kernel

    @property
    def files(self) -> tuple[Path, ...]:
        """Those that it is made of, as they are named; of a kernel of the catalogue, its name."""
        named: tuple[str | None, ...] = (self.kernel_source, self.initrd, self.dtb)
        if self.boot_image is not None:
            from bootproof.loader.bootimage import DESCRIPTION

            named = (f"{self.boot_image}/{DESCRIPTION}", self.kernel_path)
        return tuple(Path(path) for path in named if path is not None)

    @property
    def runs_tests(self) -> bool:
        """Whether something is to be done in the guest after the proof that may fail."""
        return self.test is not None or self.modules is not None

    @property
    def moved_virtually(self) -> bool:
        """Whether the kernel is to run at another virtual address than the one it is linked for."""
        return self.virtual_offset is not None or self.kaslr_seed is not None

    @property
    def shown(self) -> frozenset[str]:
        """The fields that are a part of the id."""
        return _SHOWN - ({"protocol"} if self.label else set())

    @property
    def id(self) -> str:
        """Readable, unique in a matrix, usable with `-k`, and fit for the name of a directory."""
        kernel = _NOT_PLAIN.sub("_", self.kernel)[-_NAME_LIMIT:]
        parts = [self.arch, kernel, self.format, self.label or self.protocol]
        parts.append(offset_label(self.arch, self.format, self.offset, self.board))
        parts += [self.board] if self.board else []
        parts += [self.placement.value] if self.placement is not Placement.DEVICES else []
        parts += ["relocate"] if self.pvh_relocate else []
        parts += [] if self.virtual_offset is None else [f"virtual{short(self.virtual_offset)}"]
        parts += [] if self.kaslr_seed is None else [f"seed{self.kaslr_seed}"]
        parts += ["unsafe"] if self.unsafe else []
        parts += [] if self.probe else ["unprobed"]
        parts += [f"smp{self.smp}"] if self.smp != 1 else []
        parts += ["realtime"] if self.realtime else []
        parts += [self.profile] if self.profile != DEFAULT_PROFILE else []
        parts += [self.qemu] if self.qemu else []
        return _NOT_PLAIN.sub("_", "-".join(parts))  # a label, say, may be a stranger's


def labelled(case: Case, others: Mapping[str, object]) -> Case:
    """The case with those of `others` in its id that are no part of it: values by field."""
    words = [case.label or case.protocol]
    for name, value in others.items():
        if name not in case.shown:
            words.append(_NOT_PLAIN.sub("_", f"{name}_{value}")[:_VALUE_LIMIT])
    return replace(case, label="-".join(words)) if len(words) > 1 else case


def offset_label(arch: str, format_: str, offset: int | None, board: str | None = None) -> str:
    """How an offset is written in ids: relative to where it counts from."""
    if offset is None:
        return "none"
    if format_ == "bzimage":
        return f"at{short(offset)}"
    base = ARCHES[arch].ram_base(board) if format_ == "image" else 0
    if offset < base:
        return f"at{short(offset)}"
    return ("ram+" if base else "+") + short(offset - base)


def short(value: int) -> str:
    """16M, 1G, 4K, 0x1234000: the shortest exact way to write an address or size."""
    for unit, letter in ((GIB, "G"), (MIB, "M"), (1 << 10, "K")):
        if value and value % unit == 0 and value // unit < 10000:
            return f"{value // unit}{letter}"
    return hex(value) if value > 9 else str(value)
