"""Watches a running guest until it has said, or shown, how it ends.

Budgets count guest instructions and QEMU's CPU seconds. Wall time only ends a QEMU that is given no
CPU at all. Everything here leaves the guest's run as it is: the console is read from a file, QMP
only asks. Judges nothing: it says why it stopped.
"""

from __future__ import annotations

import contextlib
import enum
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import pexpect

from bootproof.dataclass import dataclass
from bootproof.harness.arch.dump import DumpFormat, each_cpu
from bootproof.harness.guest import kernellog, logbuffer
from bootproof.harness.guest.evidence import PROOF, PROOF_WORDS
from bootproof.harness.guest.lockup import LockupReports
from bootproof.harness.host.process import QemuProcess
from bootproof.harness.observation import End, Place
from bootproof.harness.qemu.console import ConsoleFile
from bootproof.harness.qemu.monitor import Monitor, MonitorError
from bootproof.harness.qemu.stuck import IdleDetector, StuckDetector
from bootproof.harness.terms import Budget, Observer, Usage
from bootproof.loader.memory import GuestMemory

POLL_SECONDS: Final = 0.05
_SELDOM_SECONDS: Final = 0.2  # between looks at a guest that has only just said something
EXIT_SECONDS: Final = 5.0  # for a QEMU that has said that it ends
_LOG_AFTER: Final = 1.0  # CPU seconds without console output; then every time twice as many
_PRINTING: Final = 0.3  # CPU seconds that a panic has to come from the log buffer to the console
_IDLE_SAMPLES: Final = 50
_SHOWN: Final = 6  # instructions
_AROUND: Final = 16  # bytes

# Every ShutdownCause (qapi/run-state.json), which is the reason of a SHUTDOWN event.
SHUTDOWNS: Final = {
    "guest-shutdown": End.GUEST_SHUTDOWN,
    "guest-reset": End.GUEST_RESET,
    "guest-panic": End.GUEST_HALTED,  # through a device that none of our machines has
    "host-error": End.HOST_ENDED,
    "host-qmp-quit": End.HOST_ENDED,
    "host-qmp-system-reset": End.HOST_ENDED,
    "host-signal": End.HOST_ENDED,
    "host-ui": End.HOST_ENDED,
    "subsystem-reset": End.HOST_ENDED,  # of a part of the machine: no event, and none is ours
    "snapshot-load": End.HOST_ENDED,
    "none": End.HOST_ENDED,
}


@dataclass(frozen=True, slots=True)
class Ending:
    """Why and where a run was stopped."""

    end: End
    usage: Usage
    registers: str = ""  # as QEMU prints them
    place: Place | None = None
    before: bytes = b""  # the code before the place
    at: bytes = b""  # and there


class Sign(enum.Enum):
    """What a watch looks for on the console."""

    PROOF = enum.auto()
    END_OF_PANIC = enum.auto()  # the last line of a kernel that stays
    END_OF_CONSOLE = enum.auto()  # QEMU is gone
    NOTHING_NEW = enum.auto()
    MARKER = enum.auto()  # the text that was waited for
    KILL_AT = enum.auto()  # the text at which QEMU is to be killed


@dataclass(frozen=True, slots=True)
class _Sought:
    """A pattern for pexpect, tried where its `words` are: to find them takes no time beside that,
    and a console is searched again with all that comes.
    """

    words: bytes
    pattern: re.Pattern[bytes]

    def search(self, text: bytes, start: int) -> re.Match[bytes] | None:
        return self.pattern.search(text, start) if self.words in text else None


class Watch:
    """One guest under observation. Raises MonitorError when QEMU goes away unasked."""

    def __init__(
        self,
        process: QemuProcess,
        monitor: Monitor,
        console: ConsoleFile,
        budget: Budget,
        dump_format: DumpFormat,
        ram: GuestMemory | None = None,
        observer: Observer | None = None,
    ) -> None:
        """`ram` is the guest's, to look for the kernel's log buffer in."""
        self._process = process
        self._monitor = monitor
        self._console = console
        self._budget = budget
        self._usage = Usage(None, 0.0, 0)
        self._quiet_since = self._usage
        self._executed_last = self._usage
        self._poll_seconds = POLL_SECONDS
        self._asleep = 0
        self._asleep_before_entry = 0
        self._next_look = time.monotonic() + POLL_SECONDS  # at one that is not entered yet
        self._format = dump_format
        self._detector = StuckDetector(dump_format)
        self._idling = IdleDetector(_IDLE_SAMPLES)
        self._ram = ram
        self._log_after = _LOG_AFTER
        self._panic_in_log = False
        self._panic_quoted = False
        self._marker_echoed = False
        self._observer = observer
        self._shutdown: End | None = None
        self._lockups = LockupReports()

    def until_the_end(
        self,
        *,
        proof: bool = True,
        marker: bytes | None = None,
        kill_at: bytes | None = None,
        left: Callable[[], bool] | None = None,
    ) -> Ending:
        """Waits for the guest to end, QEMU to end, a budget to run out, or `marker` to be said.

        `proof` says that a proof is expected; where none is, what looks like one means nothing.
        At `kill_at` QEMU is killed. `left` says whether whoever talked to the guest has gone.
        """
        awaited = _awaited(marker, kill_at)
        proven = False
        while True:
            sign = self._next_sign(awaited, marker, proven=proven)
            if sign is Sign.PROOF and proof:
                proven = True
                self._budget = self._budget.after_proof()
            if sign is Sign.END_OF_PANIC:
                return self.stop(End.GUEST_HALTED)
            if sign is Sign.MARKER:
                return self.stop(End.MARKER)
            if sign is Sign.KILL_AT:
                self._process.kill()
            if sign is Sign.END_OF_CONSOLE:
                self._monitor.wait(
                    POLL_SECONDS
                )  # what QEMU said of its end may not have been read yet
            end = self.shutdown() or (
                End.QEMU_EXITED if sign is Sign.END_OF_CONSOLE else self._over_budget()
            )
            if end is None and left is not None and left():
                end = End.LEFT
            if end is not None:
                return self.stop(End.PROOF if proven and end.given_up else end)

    def _next_sign(
        self, awaited: Mapping[Sign, Any], marker: bytes | None, *, proven: bool
    ) -> Sign:
        """What comes next on the console, if it is of interest: a guest may say a proof again, or
        its command line, as often as it likes.
        """
        deadline = time.monotonic() + self._poll_seconds
        signs, patterns = [*awaited], [*awaited.values()]
        while True:
            sign = signs[self._console.expect_list(patterns, timeout=self._poll_seconds)]
            again = proven and (sign is Sign.PROOF or self._is_quotation(sign))
            if not again and not self._is_command_line(sign, marker):
                return sign
            if time.monotonic() > deadline:
                return Sign.NOTHING_NEW

    def _is_command_line(self, sign: Sign, marker: bytes | None) -> bool:
        """Whether what was found is, or for the marker has once been, in the command line that a
        kernel says again.
        """
        if sign is Sign.END_OF_PANIC:
            return kernellog.echoes(self._console.line_before_match())
        if sign is not Sign.MARKER or marker is None:
            return False
        if not self._marker_echoed:
            self._marker_echoed = kernellog.echoed(bytes(self._console.transcript), marker)
        return self._marker_echoed

    def _is_quotation(self, sign: Sign) -> bool:
        """Whether a panic's end is a program's words: the log buffer has no panic.

        It is read once for that, as often as a guest may say it; of what comes later, see
        `panicked_unheard`.
        """
        if sign is Sign.END_OF_PANIC and self._ram is not None and not self._panic_quoted:
            log = logbuffer.read(self._ram)
            self._panic_quoted = bool(log) and kernellog.panic(log) is None
        return sign is Sign.END_OF_PANIC and self._panic_quoted

    def given_up(self) -> bool:
        """Whether a guest that has not been handed over yet never will be."""
        if self.shutdown() is not None or self._process.ended():
            return True
        if self._process.cpu_seconds() > self._budget.entry_cpu_seconds:
            return True
        if time.monotonic() < self._next_look:
            return False
        self._next_look = time.monotonic() + POLL_SECONDS
        asleep = self._sleeps()  # before it is woken to answer
        before, self._usage = self._usage, self._measure()
        self._note_activity(before, self._usage, asleep)
        self._asleep_before_entry = self._asleep_before_entry + 1 if asleep else 0
        return self._parked() or self._asleep_before_entry >= self._budget.entry_looks

    def shutdown(self) -> End | None:
        """What QEMU has said about the machine's end so far; a cause not known is not the guest."""
        for event in self._monitor.events():
            if event.name == "SHUTDOWN" and self._shutdown is None:
                self._shutdown = SHUTDOWNS.get(str(event.data.get("reason")), End.HOST_ENDED)
        return self._shutdown

    def not_entered(self) -> Ending:
        """The end of a guest that was given up before it was handed over."""
        host = self.shutdown() is End.HOST_ENDED
        return self.stop(End.HOST_ENDED if host else End.NOT_ENTERED)

    def _over_budget(self) -> End | None:
        # Not asked of one that was seen to execute; before it is woken to answer.
        executes = self._executed_last is self._usage and self._usage.instructions is not None
        asleep = not executes and self._sleeps()
        before, self._usage = self._usage, self._measure()
        used, budget = self._usage, self._budget
        if self._observer is not None:
            self._observer(used, budget, self._console.transcript)
        self._note_activity(before, used, asleep)
        if used.console_bytes > budget.console_bytes:
            return End.CONSOLE_LIMIT
        if self._lockups.lasting(self._console.transcript):
            return End.LOCKED_UP
        quiet_cpu = used.cpu_seconds - self._quiet_since.cpu_seconds
        quiet = (used.instructions or 0) - (self._quiet_since.instructions or 0)
        sampled = quiet_cpu > budget.sampled_after_cpu_seconds
        self._poll_seconds = POLL_SECONDS if sampled or self._asleep else _SELDOM_SECONDS
        if (used.instructions or 0) > budget.instructions or used.cpu_seconds > budget.cpu_seconds:
            return End.BUDGET
        if quiet > budget.quiet_instructions or quiet_cpu > budget.quiet_cpu_seconds:
            return End.NO_PROGRESS
        if sampled:
            end = self._sampled(used.cpu_seconds)
            if end is not None:
                return end
        if quiet_cpu > self._log_after and self.panicked_unheard(quiet_cpu):
            return End.GUEST_HALTED
        return End.PARKED if self._parked() else None

    def _sleeps(self) -> bool:
        """Whether QEMU waits for something to happen: it needs no turn until then, which may be for
        ever, or come when two others run.
        """
        asleep = self._process.asleep()
        if asleep:
            self._process.end_turn()
        return asleep

    def _parked(self) -> bool:
        used, budget = self._usage, self._budget
        parked = used.cpu_seconds - self._executed_last.cpu_seconds
        nothing_executed = used.instructions is not None and parked > budget.parked_cpu_seconds
        return nothing_executed or self._asleep >= budget.parked_looks

    def _note_activity(self, before: Usage, used: Usage, asleep: bool) -> None:
        if used.console_bytes > before.console_bytes:
            self._quiet_since = used
            self._log_after = _LOG_AFTER
            self._panic_in_log = False
            self._detector.clear()
            self._idling.clear()
        if used.instructions != before.instructions or not used.instructions:
            self._executed_last = used
            asleep = False
        self._asleep = self._asleep + 1 if asleep else 0

    def _sampled(self, cpu_seconds: float) -> End | None:
        dump = self._monitor.registers()
        goes_round = self._detector.stuck(dump, cpu_seconds)
        halted = all(map(self._halted, each_cpu(dump)))
        idles = self._idling.since(halted, cpu_seconds)
        if goes_round:
            # A CPU may sleep with interrupts masked and still be woken by one (arm64's WFI).
            if not any(self._format.halted("", self._before(pc)) for pc in self._detector.counters):
                return End.LOOPING
            self._detector.clear()
        return End.IDLING if idles > self._budget.idling_cpu_seconds else None

    def _halted(self, dump: str) -> bool:
        pc = self._format.program_counter(dump)
        return self._format.halted(dump, b"" if pc is None else self._before(pc))

    def _before(self, pc: int) -> bytes:
        """The bytes before a guest-virtual address; none where nothing is mapped."""
        return self._monitor.bytes_at(max(pc - _AROUND, 0), min(pc, _AROUND))

    def panicked_unheard(self, quiet_cpu: float) -> bool:
        """Whether the log buffer has a panic that the console still does not show a while later.

        A kernel stores its panic before it prints it: a guest stopped in between would end
        elsewhere each time.
        """
        panicked = self._ram is not None and _panicked(self._ram)
        seen_before, self._panic_in_log = self._panic_in_log, panicked
        self._log_after = quiet_cpu + _PRINTING if panicked else 2 * self._log_after
        return panicked and seen_before

    def _measure(self) -> Usage:
        # In this order: a guest that prints is never quiet, however late we come to look.
        return Usage(
            self._monitor.instructions(), self._process.cpu_seconds(), self._console.written
        )

    def stop(self, end: End) -> Ending:
        """Stops the guest, reads the console to its end and takes the last figures."""
        if end is End.HOST_ENDED:
            self._process.wait(EXIT_SECONDS)
        if self._process.ended():
            self._console.drain()
            end = End.QEMU_EXITED if end is End.NOT_ENTERED else end
            # The last look was some instructions earlier, and each time others.
            spent = self._process.cpu_seconds()
            usage = replace(self._usage, instructions=None, cpu_seconds=spent)
            return Ending(_or_console_limit(end, self._console), usage)
        self._monitor.execute("stop")
        self._console.drain()
        self._usage = self._measure()
        registers = self._monitor.registers()
        pc = self._format.program_counter(registers)
        if pc is None:
            return Ending(end, self._usage, registers)
        place = Place(
            pc,
            interrupts_off=self._format.interrupts_off(registers),
            instructions=self._monitor.instructions_at(pc, _SHOWN),
            counters=self._detector.counters,
        )
        at = self._monitor.bytes_at(pc, _AROUND)
        return Ending(end, self._usage, registers, place, self._before(pc), at)

    def unanswered(self, given_up: End | None) -> Ending:
        """How a run ended whose channels fell silent: QEMU is gone, or only does not answer.

        `given_up` is why it was not waited for any longer, when it was not.
        """
        self._process.wait(0 if given_up else EXIT_SECONDS)
        self._console.drain()
        usage = Usage(None, self._process.cpu_seconds(), len(self._console.transcript))
        if not self._process.ended():
            return Ending(given_up or End.NO_ANSWER, usage)
        with contextlib.suppress(MonitorError):
            self._monitor.wait(POLL_SECONDS)  # it may have said why, and nobody has listened yet
        end = _or_console_limit(End.QEMU_EXITED, self._console)
        told = end is End.QEMU_EXITED and self.shutdown() is End.HOST_ENDED
        return Ending(End.HOST_ENDED if told else end, usage)


def _awaited(marker: bytes | None, kill_at: bytes | None) -> dict[Sign, Any]:
    """What is looked for on the console, as pexpect takes it."""
    awaited: dict[Sign, Any] = {
        Sign.PROOF: _Sought(PROOF_WORDS, PROOF),
        Sign.END_OF_PANIC: _Sought(kernellog.END_OF_PANIC_WORDS, kernellog.END_OF_PANIC),
        Sign.END_OF_CONSOLE: pexpect.EOF,
        Sign.NOTHING_NEW: pexpect.TIMEOUT,
    }
    texts = {Sign.MARKER: marker, Sign.KILL_AT: kill_at}
    return awaited | {
        sign: re.compile(kernellog.shown(text), re.DOTALL)
        for sign, text in texts.items()
        if text is not None
    }


def _panicked(ram: GuestMemory) -> bool:
    """Whether the log buffer has a panic: it is only read where its words are."""
    if not logbuffer.holds(ram, kernellog.PANIC_WORDS):
        return False
    return kernellog.panic(logbuffer.read(ram)) is not None


def _or_console_limit(end: End, console: ConsoleFile) -> End:
    """A console beyond its limit is the cause also of what became of QEMU: see MOST_WRITTEN."""
    return End.CONSOLE_LIMIT if console.full and end is End.QEMU_EXITED else end
