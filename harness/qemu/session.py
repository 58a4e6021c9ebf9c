"""What the harness holds of one QEMU, from its first answer to its end.

Owns how monitor, gdbstub, console and watchdog are wired to what bootproof.harness.qemu.spawn has
started, and what is seen of its end. A run, a reference boot and a playback are users of it. Judges
nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from bootproof.harness.errors import UserError
from bootproof.harness.guest import evidence, kernellog, logbuffer
from bootproof.harness.observation import End, Observation
from bootproof.harness.qemu.console import ConsoleFile, timestamped
from bootproof.harness.qemu.gdbstub import GdbError, GdbStub
from bootproof.harness.qemu.monitor import Monitor, MonitorError
from bootproof.harness.qemu.spawn import Spawned
from bootproof.harness.qemu.watch import EXIT_SECONDS, Ending, Watch
from bootproof.harness.qemu.watchdog import Watchdog
from bootproof.harness.terms import Observer
from bootproof.loader.arch import Registers

_QUIT_SECONDS: Final = 30.0  # QEMU completes its log then, on a busy host too
_LOG_WRITE_ERROR: Final = "replay write error"  # replay/replay-internal.c


class Session:
    """A QEMU that one can talk to. Use as a context manager: inside it stands before its first
    instruction, or runs.
    """

    def __init__(self, qemu: Spawned, on_console: Callable[[bytes], None] | None = None) -> None:
        """`on_console` is told what the guest says."""
        self.machine, self.ram, self.directory = qemu.machine, qemu.ram, qemu.directory
        self.process, self.budget, self.has_room = qemu.process, qemu.budget, qemu.has_room
        self.monitor = Monitor(qemu.qmp)
        self._gdb = GdbStub(qemu.gdb, self.monitor.wait) if qemu.gdb else None
        self.console = ConsoleFile(
            *(qemu.console, self.monitor.listen, self.process.ended, on_console),
            limit=self.budget.console_bytes + 1,
        )
        told_to_end = lambda: self.monitor.told_to_end  # noqa: E731
        self.watchdog = Watchdog(self.process, self.budget.idle_seconds, told_to_end)
        self.monitor.give_up_when(self.watchdog.gives_up)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: object) -> None:
        """Ends a QEMU that was not told to end: the dead are owed no farewell."""
        self.process.kill()
        self.process.wait(EXIT_SECONDS)
        self.monitor.close()

    # --- while it runs ---------------------------------------------------------------------------

    def connect(self) -> None:
        """Waits for QEMU, and for its turn. Raises MonitorError."""
        self.monitor.connect()
        self.process.take_turn()
        if self.machine.recorded:
            self.monitor.keep_waking()

    def _connect_or_say_why(self) -> None:
        """Raises MonitorError, or UserError where QEMU was never started."""
        try:
            self.connect()
        except MonitorError as error:
            self.process.wait(EXIT_SECONDS)
            if why := self.process.not_started():
                raise UserError(f"QEMU cannot be started: {why}") from error
            raise

    @property
    def gdb(self) -> GdbStub:
        assert self._gdb is not None, "a session without a gdbstub"
        return self._gdb

    def run_to(self, entry: int, given_up: Callable[[], bool]) -> tuple[bool, Registers]:
        """Lets the guest run to guest-virtual `entry`: whether it got there, and the registers.

        Raises GdbError and MonitorError when QEMU goes away.
        """
        stopped = self.gdb.run_to(entry, given_up)
        dump = self.machine.arch.dump
        system = self.gdb.system_registers(dump.system) if stopped else {}
        registers = dump.parse(self.monitor.registers(), system)
        return stopped and registers.pc == entry, registers

    def observe(
        self,
        steps: Callable[[Watch], Ending],
        observer: Observer | None = None,
        complete: Callable[[Observation], Observation] = lambda seen: seen,
    ) -> tuple[Observation, Ending]:
        """Connects, does `steps`, and ends QEMU: what was seen until then, and at the last place.

        `steps` may fail as QEMU goes away: then that is the end. `complete` adds to what was seen
        what the guest's RAM tells: that stays as it is while QEMU ends, which takes as long.
        """
        watch = Watch(
            *(self.process, self.monitor, self.console, self.budget),
            *(self.machine.arch.dump, self.ram, observer),
        )
        try:
            self._connect_or_say_why()
            ending = steps(watch)
        except (MonitorError, GdbError):
            # QEMU closes its channels when it ends; its exit says more than the broken connection.
            ending = watch.unanswered(self.watchdog.end)
        self.process.end_turn()
        ends = self.tell_to_end()
        seen = complete(self._seen_of_guest(ending))
        if ends:
            self.process.wait(_QUIT_SECONDS)
        return self._with_end_of_qemu(seen), ending

    def _seen_of_guest(self, ending: Ending) -> Observation:
        transcript = bytes(self.console.transcript)
        # A kernel that has another console proves its boot, and says nothing else of it.
        told = evidence.parse(transcript).proof is not None and kernellog.on_console(transcript)
        return Observation(
            transcript=transcript,
            end=ending.end,
            instructions=ending.usage.instructions,
            cpu_seconds=ending.usage.cpu_seconds,
            registers=ending.registers,
            log=b"" if told or ending.end.before_kernel else logbuffer.read(self.ram),
            panic_in_log=self._panic_in_log(transcript) if told else None,
            place=ending.place,
            reset=self._reset_cause(ending) if ending.end is End.GUEST_RESET else "",
            realtime=self.machine.realtime,
        )

    def _reset_cause(self, ending: Ending) -> str:
        """Nothing where a CPU goes on until QEMU has stopped it: in real time, or another one's."""
        if self.machine.realtime or self.machine.cpus > 1:
            return ""
        cause = self.machine.arch.dump.reset_cause
        return cause(ending.registers, ending.before, ending.at)

    def _with_end_of_qemu(self, seen: Observation) -> Observation:
        ended = seen.end is End.QEMU_EXITED
        return replace(
            seen,
            end=End.GUEST_SHUTDOWN if ended and self.guest_ended_qemu() else seen.end,
            exit_code=self.process.exit_code if ended else None,
            stderr=self.process.stderr(),
            console_lost=not self.has_room and self._disk_was_full(),
        )

    def _panic_in_log(self, transcript: bytes) -> bool | None:
        """Whether a panic after the proof is the kernel's: a program may say anything."""
        if kernellog.panic(transcript[evidence.proof_end(transcript) :]) is None:
            return None
        log = logbuffer.read(self.ram)
        return kernellog.panic(log) is not None if log else None

    def guest_ended_qemu(self) -> bool:
        """Whether an end without a word was the guest's doing: QEMU gives a reason for its own."""
        code = self.process.exit_code
        silent = code is not None and code >= 0 and not self.process.stderr()
        return silent and self.machine.arch.guest_ends_qemu

    def _disk_was_full(self) -> bool:
        """Whether it is full now, or was when QEMU wrote its log."""
        full = os.statvfs(self.directory).f_bavail == 0
        return full or log_write_failed(self.process.stderr())

    # --- its end ---------------------------------------------------------------------------------

    def end(self) -> None:
        """Tells a QEMU that still runs to end, and waits for it, so that it completes its log."""
        if self.tell_to_end():
            self.process.wait(_QUIT_SECONDS)

    def tell_to_end(self) -> bool:
        """Whether QEMU ends now, and is to be waited for.

        One that cannot be told is left as it is: leaving the session ends it for certain. A QEMU
        that closes its monitor before it answers has completed its log by then.
        """
        if self.process.ended():
            return False
        try:
            self.monitor.execute("quit", seconds=_QUIT_SECONDS)
        except MonitorError:
            return False
        return True

    def timed_transcript(self) -> str:
        """What the guest said, with host seconds before each line."""
        return timestamped(self.console.transcript, self.console.arrivals)


def log_write_failed(stderr: str) -> bool:
    """Whether QEMU says that it could not write its log; it goes on all the same."""
    return _LOG_WRITE_ERROR in stderr
