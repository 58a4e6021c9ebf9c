"""One QEMU process that never outlives its harness and never has more rights than it needs.

Started through bootproof.harness.host.confined: the kernel kills it when the thread that started it
ends, it cannot gain privileges or fill the disk, and under root it runs as nobody. It has its own
session, so that Ctrl-C reaches only the harness, and paths relative to a directory of its own, so
that a private home directory above does not matter.
"""

from __future__ import annotations

import contextlib
import functools
import marshal
import os
import resource
import shutil
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from bootproof.harness.errors import UserError
from bootproof.harness.host import confined
from bootproof.harness.host.files import NOBODY, disk_errors, is_root, why_powerless
from bootproof.harness.host.incoming import Incoming
from bootproof.harness.host.rundir import STDERR
from bootproof.harness.host.stdout import say
from bootproof.harness.host.turns import TURNS
from bootproof.kernels import waiting

# The longest file QEMU may write. A watched console is ended long before, and with it the run's log
# (about 17 bytes for each of the console's); this holds when the harness is given no CPU, or is
# stopped.
MOST_WRITTEN: Final = 512 << 20
_STDERR_KEPT: Final = 1 << 20
_LAST_WORDS: Final = 16 << 10
_USER_TIME: Final = 11  # of what stands behind the name; the system's follows
_NOT_EXECUTED: Final = (126, 127)  # a shell's exit codes (POSIX.1-2017, 2.8.2), and the loader's
_STAT_LINE: Final = 4096  # bytes: more than proc(5) has in one
# Imported, because a script is compiled each time that it is run.
_CONFINED: Final = (
    "import sys; sys.path.append(sys.argv.pop(1)); import confined; confined.main(sys.argv[1:])"
)
_BEFORE: Final = f"{confined.NAME}: "  # how that begins what it says


class QemuProcess:
    """A running QEMU. Use as a context manager: leaving it ends the process, whatever happened."""

    def __init__(
        self,
        argv: Sequence[str],
        directory: Path,
        pass_fds: Sequence[int] = (),
        *,
        terminal: bool = False,
        stdin: int | None = None,
        waits: bool = False,
    ) -> None:
        """Starts `argv` in `directory`; `terminal` gives it our standard input and output, `stdin`
        a descriptor to read; what it writes to standard output then is thrown away.

        It is started when it is its turn, or at once where it `waits` to be told to go on: then
        `take_turn` comes before that. Raises UserError when it cannot be started.
        """
        self._has_turn = False
        if not waits:
            self.take_turn()
        try:
            self._start(argv, directory, pass_fds, terminal=terminal, stdin=stdin)
        except BaseException:
            self.end_turn()
            raise

    def _start(
        self,
        argv: Sequence[str],
        directory: Path,
        pass_fds: Sequence[int],
        *,
        terminal: bool,
        stdin: int | None,
    ) -> None:
        self._terminal = _TerminalState() if terminal else None
        self._program = shutil.which(argv[0]) or argv[0]
        self._stderr = _stderr_file(directory / STDERR)
        files = {2: self._stderr, **{fd: fd for fd in pass_fds}}  # by the number QEMU knows each by
        if terminal:
            files |= {0: 0, 1: 1}
        else:
            files |= {1: self._stderr} if stdin is None else {0: stdin}
        try:
            self._process = _started(directory, [self._program, *argv[1:]], files)
        except OSError as error:
            os.close(self._stderr)
            raise UserError(f"{argv[0]}: cannot be started: {error.strerror}") from error
        RUNNING.add(self)
        self._cpu_seconds = 0.0

    @property
    def pid(self) -> int:
        return self._process.pid

    def ended(self) -> bool:
        """Whether it is gone. Raises KeyboardInterrupt when all of them are being ended."""
        if RUNNING.ending:
            raise KeyboardInterrupt
        return not self._runs() and self._process.poll() is not None

    def _runs(self) -> bool:
        """Whether it has not ended; what it has used in all is known from then until it is waited
        for.
        """
        if self._process.returncode is None:
            flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
            with contextlib.suppress(ChildProcessError):  # who killed it has waited for it, too
                if os.waitid(os.P_PID, self.pid, flags) is None:
                    return True
                self.cpu_seconds()
        return False

    @property
    def exit_code(self) -> int | None:
        """As of the last look: negative for a signal, None while it runs."""
        return self._process.returncode

    def cpu_seconds(self) -> float:
        """CPU time used so far, user and system; keeps its last value when the process is gone."""
        if self._process.returncode is not None:  # waited for: its number may be another's now
            return self._cpu_seconds
        with contextlib.suppress(OSError):
            user, system = _stat(f"/proc/{self.pid}")[_USER_TIME : _USER_TIME + 2]
            ticks = int(user) + int(system)
            self._cpu_seconds = max(self._cpu_seconds, ticks / os.sysconf("SC_CLK_TCK"))
        return self._cpu_seconds

    def asleep(self) -> bool:
        """Whether every thread waits for something to happen: none of them wants to run.

        Says nothing of the host's load: a thread that is not given a CPU is not asleep.
        """
        return self._states() == {"S"}

    def stopped(self) -> bool:
        """Whether every thread was stopped, by a signal or a debugger."""
        states = self._states()
        return bool(states) and states <= {"T", "t"}

    def _states(self) -> set[str]:
        """The states of the threads (proc(5)); empty when one has just ended."""
        try:
            tasks = f"/proc/{self.pid}/task"
            return {_stat(f"{tasks}/{task}")[0].decode() for task in os.listdir(tasks)}  # noqa: PTH208
        except OSError:
            return set()

    def stderr(self) -> str:
        """What QEMU has said, at most the last 16 KiB."""
        return self._tail(_LAST_WORDS).decode("utf-8", "backslashreplace").strip()

    def not_started(self) -> str | None:
        """Why the program was not even started: what was said before it; None when it was."""
        said = self.stderr().splitlines()
        if said and said[0].startswith(_BEFORE):
            return said[0]
        if not said or self.exit_code not in _NOT_EXECUTED:
            return None
        if confined.landlock_abi() == 0:
            return said[-1]
        places = f"{', '.join(confined.PROGRAMS)} and {confined.home(self._program)}"
        way_out = "name the QEMU that it starts, or put that there (docs/security.md)"
        return f"{said[-1]}; the sandbox lets it read programs in {places} only: {way_out}"

    def _tail(self, size: int) -> bytes:
        """The last `size` bytes of stderr. Of our own descriptor: the name may be another file."""
        return os.pread(self._stderr, size, max(0, os.fstat(self._stderr).st_size - size))

    def kill(self) -> None:
        """Ends it as the host's out-of-memory killer does."""
        self._process.kill()

    def wait(self, seconds: float) -> int | None:
        """Waits for the end; the exit code, or None when it still runs."""
        deadline = time.monotonic() + seconds
        if self._process.poll() is None:
            with contextlib.suppress(OSError):  # a kernel, or a sandbox, without such descriptors
                self._sleep_until_the_end(seconds)
        self._runs()
        try:
            code = self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return None
        self.end_turn()
        return code

    def take_turn(self) -> None:
        """Waits for its turn. Raises KeyboardInterrupt when all of them are being ended."""
        TURNS.take(lambda: RUNNING.ending)
        self._has_turn = True

    def end_turn(self) -> None:
        """As soon as its guest has ended: what is done about it meanwhile needs no turn."""
        if self._has_turn:
            self._has_turn = False
            TURNS.give_back()

    def _sleep_until_the_end(self, seconds: float) -> None:
        """Is woken by it: subprocess would look, and sleep for up to 50 ms in between."""
        descriptor = os.pidfd_open(self.pid)
        try:
            Incoming(descriptor).within(seconds)
        finally:
            os.close(descriptor)

    def __enter__(self) -> QemuProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        RUNNING.remove(self)
        self.end_turn()
        self._close_stderr()
        if self._terminal is not None:
            self._terminal.restore()

    def _close_stderr(self) -> None:
        """Of a flood only the end is kept, where it was."""
        if os.fstat(self._stderr).st_size > _STDERR_KEPT:
            kept = self._tail(_STDERR_KEPT)
            os.ftruncate(self._stderr, 0)
            os.pwrite(self._stderr, kept, 0)
        os.close(self._stderr)


def _stat(task: str) -> list[bytes]:
    """What proc(5) says of a process or thread behind its name. Raises OSError when it is gone."""
    stat = os.open(f"{task}/stat", os.O_RDONLY | os.O_CLOEXEC)  # many times a second
    try:
        return os.read(stat, _STAT_LINE).rpartition(b")")[2].split()
    finally:
        os.close(stat)


class _Running:
    """Every QEMU of this process, whatever thread started it: to be ended together."""

    def __init__(self) -> None:
        self._all: set[QemuProcess] = set()
        self._lock = threading.Lock()
        self._ends = 0  # that have not been followed by a beginning

    @property
    def ending(self) -> bool:
        return self._ends > 0

    def add(self, process: QemuProcess) -> None:
        with self._lock:
            self._all.add(process)
            if self.ending:
                process.kill()

    def remove(self, process: QemuProcess) -> None:
        with self._lock:
            self._all.discard(process)

    def end(self) -> None:
        """Ends all there are, and all that will be started until its caller calls `begin`."""
        with self._lock:
            self._ends += 1
            for process in self._all:
                process.kill()
        TURNS.wake()

    def begin(self) -> None:
        with self._lock:
            assert self._ends > 0, "nothing was ended"
            self._ends -= 1


RUNNING: Final = _Running()
waiting.give_up_when(lambda: RUNNING.ending)


class _Launcher:
    """A process that becomes a program as soon as it is told which: see `confined`.

    It dies with the thread that started it, and when nobody is left who could tell it anything.
    """

    def __init__(self, stderr: int = subprocess.DEVNULL) -> None:
        """Raises OSError."""
        folder = str(Path(confined.__file__).parent)
        self._channel, theirs = socket.socketpair()
        python = [sys.executable, "-I", "-S", "-B", "-c", _CONFINED, folder]
        try:
            with theirs:
                self.process = subprocess.Popen(
                    [*python, str(os.getpid()), str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=stderr,
                    start_new_session=True,
                )
        except BaseException:  # there may be no more processes
            self._channel.close()
            raise

    def become(self, directory: Path, command: Sequence[str], files: Mapping[int, int]) -> None:
        """Becomes `command` in `directory`, with what `files` has for each of its descriptors.

        Raises OSError, a ConnectionError when the process has ended.
        """
        where = str(directory.absolute())
        told = marshal.dumps(([*files], where, MOST_WRITTEN, user(), [*command]))
        try:
            with self._channel:
                sent = socket.send_fds(self._channel, [told], [*files.values()])
                self._channel.sendall(memoryview(told)[sent:])
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        self._channel.close()
        self.process.kill()
        self.process.wait()


_AHEAD: Final = threading.local()


@contextlib.contextmanager
def launched_ahead() -> Iterator[None]:
    """Has what the next QEMU of this thread is started by start now: it takes as long as Python."""
    with contextlib.suppress(OSError):  # who needs it tries again, and says why it cannot be
        _AHEAD.launcher = _Launcher()
    try:
        yield
    finally:
        if (unused := _AHEAD.__dict__.pop("launcher", None)) is not None:
            unused.end()


def _started(
    directory: Path, command: Sequence[str], files: Mapping[int, int]
) -> subprocess.Popen[bytes]:
    """A process that is, or becomes, `command`. Raises OSError."""
    ahead: _Launcher | None = _AHEAD.__dict__.pop("launcher", None)
    if ahead is not None:
        with contextlib.suppress(ConnectionError):  # somebody has killed it
            ahead.become(directory, command, files)
            return ahead.process
    launcher = _Launcher(files[2])
    launcher.become(directory, command, files)
    return launcher.process


class _TerminalState:
    """The terminal's settings, to be put back when a QEMU that changed them was ended hard."""

    def __init__(self) -> None:
        self._saved = termios.tcgetattr(0) if os.isatty(0) else None

    def restore(self) -> None:
        if self._saved is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, self._saved)


def _stderr_file(path: Path) -> int:
    # Appended to, so that it can be shortened under its writer.
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    with disk_errors(path):
        return os.open(path, flags, 0o600)


def most_written() -> int:
    """The longest file, in bytes, that QEMU can write here: a user may have set a lower limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    return MOST_WRITTEN if hard == resource.RLIM_INFINITY else min(MOST_WRITTEN, hard)


def user() -> int | None:
    """Whose rights QEMU gets, where they are not ours."""
    if os.geteuid() == 0 and (why := why_powerless()):
        _say_once(f"{why}: QEMU runs as root, as far as root goes here")
    return NOBODY if is_root() else None


@functools.cache
def _say_once(remark: str) -> None:
    """Once in a process, however many boots it does."""
    say(remark)
