"""A QEMU from its start to its death, and our ends of all that leads to it.

Owns what it is given: its command line, the run directory, which is QEMU's meanwhile, sockets for
monitor and gdbstub, and the console's file. Nobody starts a guest in another way. What talks to it
(bootproof.harness.qemu.session) is not imported here, but while QEMU starts.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Final

from bootproof.harness.host import signals
from bootproof.harness.host.files import file_for_qemu, given_to_qemu, has_room
from bootproof.harness.host.process import QemuProcess
from bootproof.harness.host.rundir import CONSOLE, RUN_LOG
from bootproof.harness.qemu.argv import (
    Channels,
    DirectKernel,
    Launch,
    LogMode,
    RamFile,
    RunLog,
    argv,
)
from bootproof.harness.qemu.machine import Machine
from bootproof.harness.qemu.talker import TERMINAL, Talker
from bootproof.harness.terms import Budget
from bootproof.loader.memory import GuestMemory

_SNAPSHOTS: Final = "snapshots.qcow2"


class Spawned:
    """A QEMU that was started. Use as a context manager: afterwards it is dead and the directory
    ours again.
    """

    process: QemuProcess
    # Our ends of the connections to monitor and gdbstub.
    qmp: socket.socket
    gdb: socket.socket | None
    # The console's file, and whether the disk has room for all that the guest may say.
    console: int
    has_room: bool

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
        talker: Talker | None = None,
        debugger: socket.socket | None = None,
        snapshots: bytes | None = None,
    ) -> None:
        """`ram` is what QEMU maps as the guest's; it must outlive this.

        `replay` plays back the run log in `directory` instead of writing one. `talker` talks to the
        guest. `debugger` is a socket on which QEMU listens for one, `snapshots` an empty qcow2 file
        for it.
        """
        self.machine, self.ram, self.directory, self.budget = machine, ram, directory, budget
        self._start, self._replay, self._talker = start, replay, talker
        self._debugger, self._snapshots = debugger, snapshots
        self._with_gdb = with_gdb

    def __enter__(self) -> Spawned:
        """Starts QEMU. Raises UserError."""
        with contextlib.ExitStack() as stack:
            with signals.held():  # in between nobody would end what was just begun
                self._begin(stack)
            self._stack = stack.pop_all()
        return self

    def _begin(self, stack: contextlib.ExitStack) -> None:
        stack.enter_context(given_to_qemu(self.directory))
        self.qmp, qmp = _channel(stack)
        self.gdb, gdb = _channel(stack) if self._with_gdb else (None, None)
        with qmp, gdb or contextlib.nullcontext():  # QEMU has its own of them
            self.console = self._open_console()
            stack.callback(self._close_console)
            self._start_qemu(stack, qmp, gdb)

    def __exit__(self, *error: object) -> None:
        with signals.held():
            self._stack.close()

    def _open_console(self) -> int:
        room = min(self.budget.console_bytes, Budget().console_bytes)
        file = file_for_qemu(self.directory / CONSOLE, room)
        self.has_room = has_room(file, room)
        return file

    def _close_console(self) -> None:
        """Also to its own length: that gives back what was set aside for it."""
        size = os.fstat(self.console).st_size
        os.ftruncate(self.console, min(self.budget.console_bytes + 1, size))
        os.close(self.console)

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
                waits=True,  # for its monitor's word
            )
        )


def _channel(stack: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    """Two ends of a connection: ours, which `stack` closes, and one for QEMU to inherit."""
    ours, theirs = socket.socketpair()
    return stack.enter_context(ours), theirs
