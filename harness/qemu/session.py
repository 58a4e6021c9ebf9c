"""One QEMU from its start to its end, with all that the harness holds of it.

Owns how monitor, gdbstub, console, guest RAM and watchdog are wired to it, the run directory that
is QEMU's meanwhile, and what is seen of its end. A run, a reference boot and a playback are users
of it; nobody starts a guest in another way. Judges nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from bootproof.harness.errors import UserError
from bootproof.harness.guest import evidence, kernellog, logbuffer
from bootproof.harness.host.files import file_for_qemu, given_to_qemu, has_room
from bootproof.harness.host.process import QemuProcess
from bootproof.harness.host.rundir import CONSOLE, RUN_LOG
from bootproof.harness.observation import Budget, End, Observation, Observer
from bootproof.harness.qemu.argv import (
    Channels,
    DirectKernel,
    Launch,
    LogMode,
    RamFile,
    RunLog,
    argv,
)
from bootproof.harness.qemu.console import DEFAULT_LIMIT, ConsoleFile, timestamped
from bootproof.harness.qemu.gdbstub import GdbError, GdbStub
from bootproof.harness.qemu.machine import Machine
from bootproof.harness.qemu.monitor import Monitor, MonitorError
from bootproof.harness.qemu.talker import TERMINAL, Talker
from bootproof.harness.qemu.watch import EXIT_SECONDS, Ending, Watch
from bootproof.harness.qemu.watchdog import Watchdog
from bootproof.loader.arch import Registers
from bootproof.loader.memory import GuestMemory

_SNAPSHOTS: Final = "snapshots.qcow2"
_QUIT_SECONDS: Final = 30.0  # QEMU completes its log then, on a busy host too
_LOG_WRITE_ERROR: Final = "replay write error"  # replay/replay-internal.c
_Client = TypeVar("_Client", Monitor, GdbStub)


class Session:
    """A QEMU. Use as a context manager: inside it stands before its first instruction, or runs;
    afterwards it is dead and the directory ours again.
    """

    monitor: Monitor
    console: ConsoleFile
    process: QemuProcess
    watchdog: Watchdog
    has_room: bool  # whether all that the console may say has room on the disk

    def __init__(
        self,
        machine: Machine,
        start: Launch | DirectKernel,
        ram: GuestMemory,
        directory: Path,
        *,
        budget: Budget = Budget(),
        with_gdb: bool = True,
        replay: bool = False,
        on_console: Callable[[bytes], None] | None = None,
        talker: Talker | None = None,
        debugger: socket.socket | None = None,
        snapshots: bytes | None = None,
    ) -> None:
        """`ram` is what QEMU maps as the guest's; it must outlive the session.

        `replay` plays back the run log in `directory` instead of writing one. `on_console` is told
        what the guest says, `talker` talks to it. `debugger` is a socket on which QEMU listens for
        one, `snapshots` an empty qcow2 file for it.
        """
        self.machine, self.ram, self.directory, self.budget = machine, ram, directory, budget
        self._start, self._with_gdb, self._replay = start, with_gdb, replay
        self._on_console, self._talker = on_console, talker
        self._debugger, self._snapshots = debugger, snapshots
        self._gdb: GdbStub | None = None

    def __enter__(self) -> Session:
        """Starts QEMU. Raises UserError."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(given_to_qemu(self.directory))
            self.monitor, qmp = _channel(stack, Monitor)
            gdb = None
            if self._with_gdb:
                self._gdb, gdb = _channel(stack, lambda ours: GdbStub(ours, self.monitor.wait))
            self._open_console(stack)
            self._start_qemu(stack, qmp, gdb)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _open_console(self, stack: contextlib.ExitStack) -> None:
        room = min(self.budget.console_bytes, DEFAULT_LIMIT)
        file = file_for_qemu(self.directory / CONSOLE, room)
        self.has_room = has_room(file, room)
        self.console = stack.enter_context(
            ConsoleFile(
                *(file, self.monitor.listen, self._ended, self._on_console),
                limit=self.budget.console_bytes + 1,
            )
        )

    def _start_qemu(
        self, stack: contextlib.ExitStack, qmp: socket.socket, gdb: socket.socket | None
    ) -> None:
        if self._snapshots is not None:
            room = len(self._snapshots)
            with os.fdopen(file_for_qemu(self.directory / _SNAPSHOTS, room), "wb") as file:
                file.write(self._snapshots)
        mode = LogMode.REPLAY if self._replay else LogMode.RECORD
        channels = Channels(
            console=CONSOLE,
            qmp_fd=qmp.fileno(),
            gdb_fd=gdb.fileno() if gdb else None,
            gdb_listen_fd=self._debugger.fileno() if self._debugger else None,
            ram=RamFile(f"/proc/self/fd/{self.ram.fileno()}", shared=True),
            talker=self._talker,
            append=True,
            log=RunLog(RUN_LOG, mode) if self.machine.recorded else None,
            snapshots=None if self._snapshots is None else _SNAPSHOTS,
        )
        sockets = [theirs for theirs in (qmp, gdb, self._debugger) if theirs is not None]
        self.process = stack.enter_context(
            QemuProcess(
                argv(self.machine, self._start, channels),
                self.directory,
                pass_fds=[self.ram.fileno(), *(theirs.fileno() for theirs in sockets)],
                terminal=self._talker is TERMINAL,
                stdin=None if self._talker is None else self._talker.stdin,
            )
        )
        told_to_end = lambda: self.monitor.told_to_end  # noqa: E731
        self.watchdog = Watchdog(self.process, self.budget.idle_seconds, told_to_end)
        self.monitor.give_up_when(self.watchdog.gives_up)
        for theirs in sockets:
            if theirs is not self._debugger:
                theirs.close()

    def _ended(self) -> bool:
        return self.process.ended()

    # --- while it runs ---------------------------------------------------------------------------

    def connect(self) -> None:
        """Waits for QEMU. Raises MonitorError."""
        self.monitor.connect(wake=self.machine.recorded)

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
        self, steps: Callable[[Watch], Ending], observer: Observer | None = None
    ) -> tuple[Observation, Ending]:
        """Connects, does `steps`, and ends QEMU: what was seen until then, and at the last place.

        `steps` may fail as QEMU goes away: then that is the end.
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
        self.end()
        return self._observation(ending), ending

    def _observation(self, ending: Ending) -> Observation:
        transcript = bytes(self.console.transcript)
        # A kernel that has another console proves its boot, and says nothing else of it.
        told = evidence.parse(transcript).proof is not None and kernellog.on_console(transcript)
        dump = self.machine.arch.dump
        reset = ending.end is End.GUEST_RESET
        ended = ending.end is End.QEMU_EXITED
        return Observation(
            transcript=transcript,
            end=End.GUEST_SHUTDOWN if ended and self._guest_ended_qemu() else ending.end,
            exit_code=self.process.exit_code if ended else None,
            stderr=self.process.stderr(),
            instructions=ending.usage.instructions,
            cpu_seconds=ending.usage.cpu_seconds,
            registers=ending.registers,
            log=b"" if told or ending.end.before_kernel else logbuffer.read(self.ram),
            place=ending.place,
            reset=dump.reset_cause(ending.registers, ending.before, ending.at) if reset else "",
            console_lost=not self.has_room and self._disk_was_full(),
        )

    def _guest_ended_qemu(self) -> bool:
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
        """Tells a QEMU that still runs to end, and waits for it, so that it completes its log.

        One that cannot be told is left as it is: leaving the session ends it for certain. A QEMU
        that closes its monitor before it answers has completed its log by then.
        """
        if self.process.ended():
            return
        try:
            self.monitor.execute("quit", seconds=_QUIT_SECONDS)
        except MonitorError:
            return
        self.process.wait(_QUIT_SECONDS)

    def timed_transcript(self) -> str:
        """What the guest said, with host seconds before each line."""
        return timestamped(self.console.transcript, self.console.arrivals)


def log_write_failed(stderr: str) -> bool:
    """Whether QEMU says that it could not write its log; it goes on all the same."""
    return _LOG_WRITE_ERROR in stderr


def _channel(
    stack: contextlib.ExitStack, client: Callable[[socket.socket], _Client]
) -> tuple[_Client, socket.socket]:
    """A client on one end of a socket pair, and the other end for QEMU to inherit."""
    ours, theirs = socket.socketpair()
    stack.enter_context(theirs)
    return stack.enter_context(client(ours)), theirs
