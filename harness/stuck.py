"""Recognises a CPU that will never do anything again, from samples that do not disturb it.

With interrupts off nothing but the CPU itself can change its registers. When many samples, spread
over CPU time, show only a handful of complete register states, the CPU goes round in place: a loop
that waits for a device or counts down shows another state each time. Pure: dumps in, an answer out.
"""

from __future__ import annotations

from typing import Final

from harness.dump import DumpFormat

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

    def sleep_addresses(self) -> list[int]:
        """Guest-virtual addresses of the instructions just before the sampled ones."""
        counters = (self._format.program_counter(dump) for dump in self._seen)
        return [pc - 4 for pc in counters if pc is not None and pc >= 4]

    def is_sleep(self, instruction: int | None) -> bool:
        return instruction is not None and instruction == self._format.sleep

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
