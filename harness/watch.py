"""Watches a running guest until it has said, or shown, how it ends.

Budgets count guest instructions and QEMU's CPU seconds. Wall time only ends a QEMU that is given no
CPU at all. Everything here leaves the guest's run as it is: the console is read from a file, QMP
only asks. Judges nothing: it says why it stopped.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from typing import Final

import pexpect

from harness.console import ConsoleFile
from harness.dump import DumpFormat
from harness.evidence import PROOF_PATTERN
from harness.monitor import Monitor
from harness.process import QemuProcess
from harness.stuck import StuckDetector
from harness.verdict import End

_POLL: Final = 0.05
_SAMPLE_AFTER: Final = 0.3  # CPU seconds without console output
_NOTHING: Final = rb"(?!)"  # matches nowhere
_PANIC_PATTERN: Final = rb"---\[ end Kernel panic"


@dataclass(frozen=True, slots=True)
class Budget:
    """How much a guest may use: in all, and without any console output.

    Instructions are the guest's, seconds are QEMU's CPU time, whichever runs out first. `parked` is
    CPU time in which not one instruction was executed: with icount that only happens to a halted
    CPU for which no timer is set, and nothing will ever wake it. Where QEMU then sleeps, it is
    found asleep in `parked_looks` looks in a row instead. `idle` is wall time in which QEMU
    gets no CPU whatsoever. `console_bytes` is where a guest that prints for
    ever is ended. The `proven` budgets are those without output after the proof.
    """

    instructions: int = 60_000_000_000
    cpu_seconds: float = 300.0
    quiet_instructions: int = 20_000_000_000
    quiet_cpu_seconds: float = 100.0
    parked_cpu_seconds: float = 2.0
    parked_looks: int = 20
    idle_seconds: float = 120.0
    console_bytes: int = 16 << 20
    proven_instructions: int = 2_000_000_000
    proven_cpu_seconds: float = 5.0
    entry_cpu_seconds: float = 10.0

    def after_proof(self) -> Budget:
        """The budget of a guest that has proved its boot and only has to end itself."""
        return replace(
            self,
            quiet_instructions=self.proven_instructions,
            quiet_cpu_seconds=self.proven_cpu_seconds,
        )


@dataclass(frozen=True, slots=True)
class Usage:
    """What a guest has used so far; `instructions` is None without icount."""

    instructions: int | None
    cpu_seconds: float
    console_bytes: int


@dataclass(frozen=True, slots=True)
class Ending:
    end: End
    usage: Usage
    registers: str = ""


class Watch:
    """One guest under observation. Raises MonitorError when QEMU goes away unasked."""

    def __init__(
        self,
        process: QemuProcess,
        monitor: Monitor,
        console: ConsoleFile,
        budget: Budget,
        dump_format: DumpFormat,
    ) -> None:
        self._process = process
        self._monitor = monitor
        self._console = console
        self._budget = budget
        self._usage = Usage(None, 0.0, 0)
        self._quiet_since = self._usage
        self._executed_last = self._usage
        self._moved_at = time.monotonic()
        self._asleep = 0
        self._detector = StuckDetector(dump_format)

    def until_the_end(
        self, *, proof: bool = True, marker: bytes | None = None, kill_at: bytes | None = None
    ) -> Ending:
        """Waits for the guest to end, QEMU to end, a budget to run out, or `marker` to be said.

        `proof` says that a proof is expected; where none is, what looks like one means nothing.
        At `kill_at` QEMU is killed.
        """
        patterns = self._console.compile_pattern_list(
            [
                *(PROOF_PATTERN, _PANIC_PATTERN, pexpect.EOF, pexpect.TIMEOUT),
                *(_NOTHING if text is None else re.escape(text) for text in (marker, kill_at)),
            ]
        )
        proven = False
        while True:
            found = self._console.expect_list(patterns, timeout=_POLL)
            if found == 0 and proof and not proven:
                proven = True
                self._budget = self._budget.after_proof()
            if found == 1 and not proven:
                return self.stop(End.GUEST_HALTED)
            if found == 4:
                return self.stop(End.MARKER)
            if found == 5:
                self._process.kill()
            end = End.QEMU_EXITED if found == 2 else self._end()
            if end is not None:
                return self.stop(End.PROOF if proven and _gave_up(end) else end)

    def given_up(self) -> bool:
        """Whether a guest that has not been handed over yet never will be."""
        if any(event.name == "SHUTDOWN" for event in self._monitor.events()):
            return True
        used = self._process.cpu_seconds()
        return self._process.ended() or used > self._budget.entry_cpu_seconds

    def _end(self) -> End | None:
        for event in self._monitor.events():
            if event.name == "SHUTDOWN":
                reset = event.data.get("reason") == "guest-reset"
                return End.GUEST_RESET if reset else End.GUEST_SHUTDOWN
        return self._over_budget()

    def _over_budget(self) -> End | None:
        asleep = self._process.asleep()  # before it is woken to answer
        before, self._usage = self._usage, self._measure()
        used, budget, now = self._usage, self._budget, time.monotonic()
        if used.cpu_seconds > before.cpu_seconds:
            self._moved_at = now
        if used.console_bytes > before.console_bytes:
            self._quiet_since = used
            self._detector.clear()
        if used.instructions != before.instructions or not used.instructions:
            self._executed_last = used
            asleep = False
        self._asleep = self._asleep + 1 if asleep else 0
        if used.console_bytes > budget.console_bytes:
            return End.CONSOLE_LIMIT
        quiet_cpu = used.cpu_seconds - self._quiet_since.cpu_seconds
        quiet = (used.instructions or 0) - (self._quiet_since.instructions or 0)
        if (used.instructions or 0) > budget.instructions or used.cpu_seconds > budget.cpu_seconds:
            return End.BUDGET
        if quiet > budget.quiet_instructions or quiet_cpu > budget.quiet_cpu_seconds:
            return End.NO_PROGRESS
        if quiet_cpu > _SAMPLE_AFTER and self._goes_round(used.cpu_seconds):
            return End.LOOPING
        parked = used.cpu_seconds - self._executed_last.cpu_seconds
        if used.instructions is not None and parked > budget.parked_cpu_seconds:
            return End.PARKED
        if self._asleep >= budget.parked_looks:
            return End.PARKED
        if now - self._moved_at > budget.idle_seconds:
            return End.HOST_IDLE
        return None

    def _goes_round(self, cpu_seconds: float) -> bool:
        if not self._detector.stuck(self._monitor.registers(), cpu_seconds):
            return False
        # A CPU may sleep with interrupts masked and still be woken by one (arm64's WFI).
        words = (self._monitor.word_at(address) for address in self._detector.sleep_addresses())
        if not any(map(self._detector.is_sleep, words)):
            return True
        self._detector.clear()
        return False

    def _measure(self) -> Usage:
        return Usage(
            self._monitor.instructions(),
            self._process.cpu_seconds(),
            len(self._console.transcript),
        )

    def stop(self, end: End) -> Ending:
        """Stops the guest, reads the console to its end and takes the last figures."""
        if self._process.ended():
            self._console.drain()
            return Ending(_or_console_limit(end, self._console), self._usage)
        self._monitor.execute("stop")
        self._console.drain()
        self._usage = self._measure()
        return Ending(end, self._usage, self._monitor.registers())


def ending_without_answer(process: QemuProcess, console: ConsoleFile) -> Ending:
    """How a run ended whose channels fell silent: QEMU is gone, or only does not answer."""
    process.wait(5)
    console.drain()
    usage = Usage(None, process.cpu_seconds(), len(console.transcript))
    end = End.QEMU_EXITED if process.ended() else End.NO_ANSWER
    return Ending(_or_console_limit(end, console), usage)


def _or_console_limit(end: End, console: ConsoleFile) -> End:
    """A console beyond its limit is the cause also of what became of QEMU: see MOST_WRITTEN."""
    return End.CONSOLE_LIMIT if console.full and end is End.QEMU_EXITED else end


def _gave_up(end: End) -> bool:
    return end in (End.NO_PROGRESS, End.BUDGET, End.PARKED, End.LOOPING)
