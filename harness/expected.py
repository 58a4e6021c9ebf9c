"""What a guest is expected to do, and what a run was judged to be.

Plain values. bootproof.harness.judge makes the last of the others and of what was seen.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bootproof.dataclass import dataclass
from bootproof.loader.address import Range, is_aligned

if TYPE_CHECKING:
    from bootproof.harness.guest.complaints import Complaint
    from bootproof.harness.guest.evidence import GuestEvidence
    from bootproof.harness.guest.tap import GuestTest
    from bootproof.harness.verdict import Verdict


@dataclass(frozen=True, slots=True)
class CodeAt:
    """The kernel must run exactly here: the allowed guest-physical starts of its code."""

    starts: tuple[int, ...]

    def contradiction(self, code: int) -> str | None:
        if code in self.starts:
            return None
        allowed = " or ".join(f"{start:#x}" for start in self.starts)
        return f"the kernel runs at {code:#x}, not at {allowed}"


@dataclass(frozen=True, slots=True)
class CodeAnywhere:
    """The kernel chose its own address (KASLR); it must be aligned and inside `window`."""

    alignment: int
    window: Range

    def contradiction(self, code: int) -> str | None:
        if is_aligned(code, self.alignment) and self.window.start <= code < self.window.end:
            return None
        return (
            f"the kernel runs at {code:#x}, which is not {self.alignment:#x}-aligned"
            f" in {self.window}"
        )


@dataclass(frozen=True, slots=True)
class CodeInside:
    """The kernel must run within the RAM that the boot image says is its own."""

    region: Range

    def contradiction(self, code: int) -> str | None:
        if self.region.contains(Range(code, 1)):
            return None
        return f"the kernel runs at {code:#x}, outside of its region {self.region}"


@dataclass(frozen=True, slots=True)
class Expected:
    """What the guest must say about itself when the request was carried out."""

    arch: str
    nonce: str
    cmdline: str
    cpus: int
    ram: tuple[Range, ...]  # the System RAM that it must see, guest-physical
    banks: tuple[Range, ...]  # all the RAM of the machine
    code: CodeAt | CodeAnywhere | CodeInside | None  # None: nothing is known of where it runs
    unplaced: int = 0  # bytes of `ram` that it keeps from itself, wherever it likes
    reserved_twice: tuple[Range, ...] = ()  # RAM that it may keep from itself or not
    bootloader_type: int | None = None
    releases: tuple[str, ...] = ()  # one of them is the kernel's; empty: its file does not tell
    request: str | None = None  # what the device tree calls this boot
    serial: str | None = None  # what console= calls the serial port that is read
    mode: str | None = None  # of the CPU at the entry
    mode_log: re.Pattern[bytes] | None = None  # where a kernel logs it: the first group
    # Guest-virtual, of the kernel's first byte, where its loader has chosen that.
    virtual_start: int | None = None
    # A guest that is no Linux: only its command line is asked for, and what else it says must hold.
    other: bool = False


@dataclass(frozen=True, slots=True)
class ExpectedHandover:
    """All that can be asked of a guest without a proof."""

    entry: int  # guest-virtual
    until: bytes | None = None  # text on its console; None: nothing is asked of what comes after
    serial: str | None = None  # what console= calls the serial port that is read


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with its reason in one sentence, and the evidence it rests on."""

    verdict: Verdict
    reason: str
    evidence: GuestEvidence
    complaints: tuple[Complaint, ...] = ()  # of the kernel, whatever the verdict
    tests: tuple[GuestTest, ...] = ()  # that ran in the guest
