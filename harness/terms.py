"""The terms of a run: how its boot image gets into guest RAM, and how much its guest may use."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Final

from bootproof.dataclass import dataclass

_CENTURY: Final = 1 << 62  # instructions, or seconds


class Placement(enum.Enum):
    """How the bytes of a boot image get into guest RAM."""

    DEVICES = "devices"  # a generic loader device of QEMU copies each run of data
    MAPPED = "mapped"  # ram.img is the RAM, privately: what the guest writes never gets there


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

    def with_limits(self, instructions: int | None, cpu_seconds: float | None) -> Budget:
        """As the user wants it, where he says so: whoever gives more CPU seconds has a slow host,
        on which a guest is silent for longer, too.
        """
        seconds = cpu_seconds or self.cpu_seconds
        return replace(
            self,
            instructions=instructions or self.instructions,
            cpu_seconds=seconds,
            quiet_cpu_seconds=self.quiet_cpu_seconds * max(1.0, seconds / self.cpu_seconds),
        )

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
