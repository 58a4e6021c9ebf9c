"""`bootproof replay --gdb`: a record at the point where it failed, ready to be debugged backwards.

Owns the snapshots that going back needs, the socket that a debugger attaches to, and the words for
the user. QEMU's gdbstub does the rest: a step back loads the nearest snapshot before it and plays
the record forward from there.

Source: QEMU's docs/system/replay.rst ("Reverse debugging"). Snapshots are made while replaying, so
that recording needs none. The first one lies at the kernel's entry: behind where a run was stopped
for its probe, since QEMU for arm64 waits for ever when it goes over that place a second time.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.harness.errors import UserError
from bootproof.harness.host.files import disk_errors
from bootproof.harness.qemu.monitor import MonitorError
from bootproof.harness.record import playback, qcow2
from bootproof.harness.record.playback import Playback, Recorded
from bootproof.harness.record.replaylog import read
from bootproof.kernels import scratch
from bootproof.printable import safe

_PANIC: Final = b"Kernel panic - not syncing"
# Instructions before the point where it stops: steps back are quick from there.
_SNAPSHOTS_BEFORE: Final = (1 << 26, 1 << 20)
_LOOPBACK: Final = "127.0.0.1"
_POLL: Final = 0.2
_LONGEST_SOCKET_PATH: Final = 107  # unix(7)


@dataclass(frozen=True, slots=True)
class Stop:
    """Where a playback stops: after so many guest instructions, and what is there in words."""

    instructions: int
    words: str


def stop_at(recorded: Recorded, asked: int | None) -> Stop:
    """Where to stop: as asked, else at the first byte of a panic's line, else at the end.

    Raises UserError when the run is not so long.
    """
    if asked is not None:
        if asked > recorded.instructions:
            raise UserError(
                f"--at: {asked:,} instructions, but the run has {recorded.instructions:,}"
            )
        return Stop(min(asked, recorded.last), "as asked")
    panic = recorded.transcript.find(_PANIC)
    if panic < 0:
        return Stop(recorded.last, "the end of the run")
    (instructions,) = read(recorded.log, [panic]).at
    return Stop(instructions, "the kernel says that it panics")


def run(
    directory: Path,
    where: str,
    asked: int | None,
    symbols: Path | None,
    binary: str | None = None,
) -> int:
    """Serves a debugger until QEMU or the user ends it; gives the exit code. Raises UserError."""
    recorded = playback.open_recorded(directory, binary)
    stop = stop_at(recorded, asked)
    with listening(where) as (listener, address), opened(recorded, stop, listener) as running:
        print(f"record    {safe(str(directory))}")
        print(f"stopped   after {stop.instructions:,} guest instructions: {stop.words}")
        print(f"attach    {attach_command(recorded, address, symbols)}")
        print(f"then      {_what_then(recorded)}")
        print("end it    with Ctrl-C here", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            _serve(running)
    return 0


def _what_then(recorded: Recorded) -> str:
    forward, why = "break *ADDRESS, info registers", recorded.machine.arch.no_way_back
    if why:
        return f"stepi, continue, {forward} (not backwards: {why}; --at stops earlier)"
    return f"reverse-stepi, reverse-continue, {forward}"


def _serve(running: Playback) -> None:
    """Until QEMU has ended: a debugger that kills or leaves the guest ends it in order.

    However long nothing happens: a person is asked, and the end that QEMU may have told of is the
    one that was recorded.
    """
    running.monitor.give_up_when(lambda _waiting: False)
    while not running.process.ended():
        running.monitor.wait(_POLL)
    if running.process.exit_code != 0:
        raise MonitorError(running.process.stderr() or "QEMU ended without a word")
    print("ended     by the debugger", flush=True)


def attach_command(recorded: Recorded, address: str, symbols: Path | None) -> str:
    """The debugger's command line, for a shell."""
    words = ["gdb-multiarch", "-ex", f"set architecture {recorded.machine.arch.gdb}"]
    words += ["-ex", f"target remote {address}"]
    words += [str(symbols)] if symbols else []
    return shlex.join(words)


@contextlib.contextmanager
def opened(recorded: Recorded, stop: Stop, listener: socket.socket) -> Iterator[Playback]:
    """A playback that has come to `stop`, with snapshots behind it to go back to."""
    snapshots = None if recorded.machine.arch.no_way_back else qcow2.empty()
    with playback.started(recorded, debugger=listener, snapshots=snapshots) as running:
        entry = min(recorded.record.entry or 0, stop.instructions)
        later = (stop.instructions - distance for distance in _SNAPSHOTS_BEFORE)
        places = [entry, *(at for at in later if at > entry)] if snapshots else []
        for number, instructions in enumerate(places):
            running.run_to(instructions)
            _snapshot(running, f"at{number}")
        running.run_to(stop.instructions)
        if running.instructions != stop.instructions:
            raise UserError(
                f"the replay went astray: it is at {running.instructions:,} instructions instead"
                f" of {stop.instructions:,}"
            )
        yield running


def _snapshot(running: Playback, name: str) -> None:
    said = running.monitor.execute(
        "human-monitor-command", {"command-line": f"savevm {name}"}, seconds=None
    )
    if said:
        raise MonitorError(f"no snapshot: {said}")


@contextlib.contextmanager
def listening(where: str) -> Iterator[tuple[socket.socket, str]]:
    """A socket for the debugger, and its address in gdb's words.

    `where` is a TCP port on loopback, the path of a socket to be made, or nothing: a socket that
    only this user can open. Raises UserError.
    """
    if where.isascii() and where.isdigit():
        yield from _tcp(int(where))
        return
    with contextlib.ExitStack() as stack:
        if not where:
            where = f"{stack.enter_context(scratch.directory())}/gdb"
        path = Path(where).absolute()
        if len(str(path).encode()) > _LONGEST_SOCKET_PATH:
            raise UserError(f"--gdb: {path}: longer than {_LONGEST_SOCKET_PATH} bytes")
        if os.path.lexists(path):
            raise UserError(f"--gdb: {path}: is there already; name a socket that is to be made")
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        with disk_errors(path):
            listener.bind(str(path))
        stack.callback(path.unlink, missing_ok=True)
        path.chmod(0o600)
        listener.listen(1)
        yield listener, str(path)


def _tcp(port: int) -> Iterator[tuple[socket.socket, str]]:
    with socket.socket(socket.AF_INET) as listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((_LOOPBACK, port))
        except (OSError, OverflowError) as error:
            raise UserError(f"--gdb: port {port} on {_LOOPBACK}: {error}") from error
        listener.listen(1)
        yield listener, f"{_LOOPBACK}:{listener.getsockname()[1]}"
