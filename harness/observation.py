"""What was seen of one run, as plain data: all that a verdict, a result or a report needs of it.

Nothing here talks to QEMU, to a process or to a guest: those who do make these values, and those
who judge or show them need no more than this.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from bootproof.dataclass import dataclass

if TYPE_CHECKING:
    from bootproof.loader.arch import Registers
    from bootproof.loader.rules import RuleFinding

PATCHED_LIMIT: Final = 0.3  # of the words of a kernel's code: it patches itself while it boots


class End(enum.Enum):
    """Why the harness stopped watching."""

    NOT_STARTED = "no machine can be brought to where the boot image begins"
    NOT_ENTERED = "the kernel's entry was not reached"
    GUEST_RESET = "the guest reset the machine"
    GUEST_SHUTDOWN = "the guest shut the machine down"
    GUEST_HALTED = "the guest halted after a panic"
    QEMU_EXITED = "QEMU ended by itself"
    HOST_ENDED = "QEMU was told to end, and not by the guest"
    NO_PROGRESS = "runs, and prints nothing"
    PARKED = "halted, and nothing will wake it"
    LOOPING = "loops in place"
    IDLING = "idle, and nothing happens any more"
    LOCKED_UP = "the kernel says that it is locked up"
    BUDGET = "the budget was used up"
    WRONG_HANDOVER = "the kernel was not handed over as asked"
    CONSOLE_LIMIT = "the console's limit was reached"
    NO_ANSWER = "QEMU runs but does not answer on its monitor"
    TOO_BUSY = "QEMU is busy and does not answer on its monitor"
    HOST_IDLE = "QEMU was given no CPU time"
    HOST_STOPPED = "QEMU was stopped by a signal or a debugger"
    PROOF = "the proof was there and the guest did not end by itself"
    MARKER = "the console showed what was waited for"
    LEFT = "nobody talked to the guest any longer"
    ENTERED = "only the hand-over was asked for"

    @property
    def standstill(self) -> bool:
        """Whether the guest did nothing any more that anybody could see."""
        return self in (End.NO_PROGRESS, End.PARKED, End.LOOPING, End.IDLING)

    @property
    def given_up(self) -> bool:
        """Whether the guest had not ended, but was not waited for any longer."""
        return self.standstill or self in (End.BUDGET, End.LEFT)

    @property
    def of_guest(self) -> bool:
        """Whether the guest, or the harness at its entry, ended the run at an exact instruction.

        Else a look at the guest did, some instructions later, or something on the host.
        """
        return self in (End.GUEST_RESET, End.GUEST_SHUTDOWN, End.WRONG_HANDOVER, End.ENTERED)

    @property
    def before_kernel(self) -> bool:
        """Whether the guest stands at its first instruction: it can have said nothing yet, and what
        is in its RAM is the boot image's.
        """
        return self in (End.WRONG_HANDOVER, End.ENTERED)

    @property
    def of_host(self) -> bool:
        """Whether the run ended, or had to be ended, for something that no guest does."""
        return self in (
            *(End.QEMU_EXITED, End.HOST_ENDED, End.NO_ANSWER, End.TOO_BUSY),
            *(End.HOST_IDLE, End.HOST_STOPPED),
        )


@dataclass(frozen=True, slots=True)
class Place:
    """Where the CPU is."""

    pc: int  # guest-virtual
    symbol: str | None = None  # of the kernel
    interrupts_off: bool = False
    instructions: tuple[str, ...] = ()  # what is executed there
    counters: tuple[int, ...] = ()  # all that the pc was seen to be while nothing else happened

    def __str__(self) -> str:
        name = f": {self.symbol}" if self.symbol else ""
        return f"{self.pc:#x}{name}{' (interrupts off)' if self.interrupts_off else ''}"


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not as the boot image says; both sides as text."""

    what: str
    expected: str
    actual: str

    def __str__(self) -> str:
        return f"{self.what} is {self.actual}, not {self.expected}"


@dataclass(frozen=True, slots=True)
class Probe:
    """CPU and RAM at the kernel's first instruction, held against what was asked."""

    registers: Registers | None  # None when the entry was not reached
    where: str = ""  # the CPU was instead
    differences: tuple[Difference, ...] = ()  # the first of them
    more: int = 0  # differences that are not listed
    findings: tuple[RuleFinding, ...] = ()  # of the protocol's rules
    instructions: int | None = None  # executed on the way there, by the reset stub

    @property
    def reached(self) -> bool:
        return self.registers is not None

    @property
    def violations(self) -> tuple[RuleFinding, ...]:
        """What the boot protocol forbids."""
        return tuple(rule for rule in self.findings if rule.forbidden)

    @property
    def clean(self) -> bool:
        """Whether the kernel was handed over as asked and as the protocol demands."""
        return self.reached and not self.differences and not self.violations


@dataclass(frozen=True, slots=True)
class TextCheck:
    """The kernel's code in guest RAM against what was loaded, where the guest says it is."""

    words: int  # of 8 bytes, compared
    patched: int  # of them differ

    @property
    def share(self) -> float:
        return self.patched / self.words if self.words else 1.0

    @property
    def fits(self) -> bool:
        return self.share <= PATCHED_LIMIT


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen of one run."""

    transcript: bytes  # all that the guest wrote to its console
    end: End
    exit_code: int | None = None  # of a QEMU that ended by itself
    stderr: str = ""  # of QEMU
    instructions: int | None = None  # of the guest; None without icount
    cpu_seconds: float = 0.0  # of QEMU
    registers: str = ""  # as QEMU prints them, at the end
    log: bytes = b""  # the kernel's log buffer in RAM; empty when not found or not looked for
    # Whether that buffer has a panic, where the console shows one after the proof; None if unknown.
    panic_in_log: bool | None = None
    place: Place | None = None  # at the end
    reset: str = ""  # what the CPU's state tells about a reset
    probe: Probe | None = None
    text: TextCheck | None = None
    console_lost: bool = False  # the guest may have printed more than the host had room for
    realtime: str = ""  # why the guest's time was the host's, if it was
