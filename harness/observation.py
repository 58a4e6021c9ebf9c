"""What was seen of one run, as plain data: all that a verdict, a result or a report needs of it.

Nothing here talks to QEMU, to a process or to a guest: those who do make these values, and those
who judge or show them need no more than this.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bootproof.loader.arch import Registers
    from bootproof.loader.rules import RuleFinding

_CENTURY: Final = 1 << 62  # instructions, or seconds
PATCHED_LIMIT: Final = 0.3  # of the words of a kernel's code: it patches itself while it boots


class Placement(enum.Enum):
    """How the bytes of a boot image get into guest RAM."""

    DEVICES = "devices"  # a generic loader device of QEMU copies each run of data
    MAPPED = "mapped"  # ram.img is the RAM, privately: what the guest writes never gets there


class End(enum.Enum):
    """Why the harness stopped watching."""

    NOT_STARTED = "no machine can be brought to where the boot image begins"
    NOT_ENTERED = "the kernel's entry was not reached"
    GUEST_RESET = "the guest reset the machine"
    GUEST_SHUTDOWN = "the guest shut the machine down"
    GUEST_HALTED = "the guest halted after a panic"
    QEMU_EXITED = "QEMU ended by itself"
    HOST_ENDED = "QEMU was told to end, and not by the guest"
    NO_PROGRESS = "no console output any more"
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
class Budget:
    """How much a guest may use: instructions are its own, CPU seconds are QEMU's.

    Whichever runs out first. Wall time counts only where QEMU gets no CPU whatsoever.
    """

    instructions: int = 60_000_000_000
    cpu_seconds: float = 300.0
    # Without any console output.
    quiet_instructions: int = 20_000_000_000
    quiet_cpu_seconds: float = 100.0
    # In which not one instruction was executed: with icount that only happens to a halted CPU for
    # which no timer is set, and nothing will ever wake it.
    parked_cpu_seconds: float = 2.0
    # Where QEMU then sleeps instead: looks in a row that find it asleep.
    parked_looks: int = 20
    # Without any console output, before it is looked whether the CPU loops in place or only halts.
    sampled_after_cpu_seconds: float = 0.3
    # Of a CPU that is halted whenever one looks: guest time races then, to more than a quarter of
    # an hour.
    idling_cpu_seconds: float = 10.0
    # Wall time in which QEMU gets no CPU whatsoever.
    idle_seconds: float = 120.0
    # Where a guest that prints for ever is ended.
    console_bytes: int = 16 << 20
    # Without console output after the proof.
    proven_instructions: int = 2_000_000_000
    proven_cpu_seconds: float = 5.0
    # To the kernel's first instruction.
    entry_cpu_seconds: float = 10.0
    # Looks in a row that find QEMU asleep before that, where the instructions are not counted.
    entry_looks: int = 200

    @classmethod
    def unlimited(cls) -> Budget:
        """That of a guest that somebody talks to, and ends."""
        return cls(*[_CENTURY] * len(fields(cls)))

    def after_proof(self) -> Budget:
        """The budget of a guest that has proved its boot and only has to end itself."""
        return replace(
            self,
            quiet_instructions=self.proven_instructions,
            quiet_cpu_seconds=self.proven_cpu_seconds,
        )


@dataclass(frozen=True, slots=True)
class Usage:
    """What a guest has used so far."""

    instructions: int | None  # of the guest; None without icount
    cpu_seconds: float  # of QEMU
    console_bytes: int


# Is told, some times a second, what a guest has used of its budget, and the console so far.
Observer = Callable[[Usage, Budget, bytes | bytearray], None]


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
