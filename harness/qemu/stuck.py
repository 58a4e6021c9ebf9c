"""Recognises a CPU that will never do anything again, from samples that do not disturb it.

With interrupts off nothing but the CPU itself can change its registers. When many samples, spread
over CPU time, show only a handful of complete register states, the CPU goes round in place: a loop
that waits for a device or counts down shows another state each time. Pure: dumps in, an answer out.
"""

from __future__ import annotations

from typing import Final

from bootproof.harness.arch.dump import DumpFormat

_STATES: Final = 6  # a loop of this many instructions at most
_SAMPLES: Final = 15
_CPU_SECONDS: Final = 1.0


class StuckDetector:
    """Collects samples of one CPU; `stuck` once they prove that it goes round in place."""

    def __init__(self, dump_format: DumpFormat) -> None:
        self._format = dump_format
        self._seen: set[str] = set()
        self._count = 0
        self._since = 0.0

    def clear(self) -> None:
        """Forgets everything: the guest was seen to make progress."""
        self._seen.clear()
        self._count = 0

    @property
    def counters(self) -> tuple[int, ...]:
        """The guest-virtual program counters that were sampled, lowest first."""
        counters = (self._format.program_counter(dump) for dump in self._seen)
        return tuple(sorted({pc for pc in counters if pc is not None}))

    def stuck(self, dump: str, cpu_seconds: float) -> bool:
        """Adds a sample, taken after `cpu_seconds` of QEMU's CPU time."""
        if not self._format.interrupts_off(dump):
            self.clear()
            return False
        if not self._count:
            self._since = cpu_seconds
        self._seen.add(dump)
        self._count += 1
        if len(self._seen) > _STATES:
            self.clear()
            return False
        return self._count >= _SAMPLES and cpu_seconds - self._since >= _CPU_SECONDS


class IdleDetector:
    """Follows for how long a CPU has been halted whenever one looked, timers running or not.

    An interrupt now and then, and what its handler does, is no progress; half of the looks that
    find the CPU at work are.
    """

    def __init__(self, samples: int) -> None:
        self._samples = samples
        self._looks = 0
        self._halted = 0
        self._since = 0.0

    def clear(self) -> None:
        self._looks = self._halted = 0

    def since(self, halted: bool, cpu_seconds: float) -> float:
        """Adds a look, taken after `cpu_seconds` of QEMU's CPU time; for how many of them it is
        idle by now.
        """
        if not self._looks:
            self._since = cpu_seconds
        self._looks += 1
        self._halted += halted
        if 2 * self._halted < self._looks:
            self.clear()
        if self._looks < self._samples:
            return 0.0
        return cpu_seconds - self._since
