"""What is to be run: a boot image on a machine, and what its guest has to do.

Made by bootproof.harness.prepare, taken by bootproof.harness.run. A plain value: what does the
running is not imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from bootproof.dataclass import dataclass
from bootproof.harness.expected import Expected, ExpectedHandover
from bootproof.harness.qemu.machine import Machine
from bootproof.harness.qemu.talker import Talker
from bootproof.harness.terms import Budget, Observer, Placement
from bootproof.loader.address import Range
from bootproof.loader.bootimage import BootImage

if TYPE_CHECKING:
    from bootproof.harness.inputs.symbols import Symbols
    from bootproof.kernels.content import Content
    from bootproof.loader.rules import RuleFinding


@dataclass(frozen=True, slots=True)
class Unpacked:
    """The vmlinux that a bzImage will unpack, linked to run at guest-physical `linked_at`."""

    vmlinux: Content
    linked_at: int


@dataclass(frozen=True, slots=True)
class Start:
    """What to run: a boot image on a machine."""

    image: BootImage
    machine: Machine
    expected: Expected | ExpectedHandover
    placement: Placement = Placement.DEVICES
    budget: Budget = field(default_factory=Budget)
    on_console: Callable[[bytes], None] | None = None
    observer: Observer | None = None
    talker: Talker | None = None
    probe: bool = True
    # What a kernel that unpacks itself will unpack; `check_text` is off when it is not at hand.
    unpacked: Unpacked | None = None
    check_text: bool = True
    # The kernel's, asked for when one is needed.
    symbols: Callable[[], Symbols | None] | None = None
    # What a proof needs and the kernel was built without, asked for when there is no proof.
    lacks: Callable[[], tuple[str, ...]] | None = None
    # Why the program that follows the proof cannot be started, as far as the initrd tells.
    unstartable: Callable[[], str] | None = None
    # Console text that ends the run; and text at which QEMU is killed, to see that noticed.
    marker: bytes | None = None
    kill_at: bytes | None = None
    # The run ends with the hand-over.
    stop_at_entry: bool = False
    # Where the boot image's backing files have bytes that are not zero, where that is known.
    nonzero: Mapping[str, tuple[Range, ...]] = field(default_factory=dict)
    # The directory of its RAM, where that is another than the run's.
    home: Path | None = None
    # What is known of the boot image before it is started.
    findings: tuple[RuleFinding, ...] = ()
