"""One QEMU process that never outlives its harness and never has more rights than it needs.

Started through setpriv: the kernel kills it when the thread that started it ends (so start it from
the main thread), it cannot gain privileges, and under root it runs as nobody. It has its own
session, so that Ctrl-C reaches only the harness, and paths relative to a directory of its own, so
that a private home directory above does not matter.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import termios
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

from harness.errors import UserError

NOBODY: Final = 65534
STDERR: Final = "qemu.stderr"


class QemuProcess:
    """A running QEMU. Use as a context manager: leaving it ends the process, whatever happened."""

    def __init__(
        self,
        argv: Sequence[str],
        directory: Path,
        pass_fds: Sequence[int] = (),
        *,
        terminal: bool = False,
    ) -> None:
        """Starts `argv` in `directory`; `terminal` gives it our standard input and output.

        Raises UserError when it cannot be started.
        """
        self._stderr_path = directory / STDERR
        self._terminal = _TerminalState() if terminal else None
        command = [*privileges(), *argv]
        try:
            with self._stderr_path.open("wb") as stderr:
                self._process = subprocess.Popen(
                    command,
                    cwd=directory,
                    pass_fds=tuple(pass_fds),
                    stdin=None if terminal else subprocess.DEVNULL,
                    stdout=None if terminal else stderr,
                    stderr=stderr,
                    start_new_session=True,
                )
        except OSError as error:
            raise UserError(f"{argv[0]}: cannot be started: {error.strerror}") from error
        self._accounting = psutil.Process(self._process.pid)
        self._cpu_seconds = 0.0

    @property
    def pid(self) -> int:
        return self._process.pid

    def ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def exit_code(self) -> int | None:
        """As of the last look: negative for a signal, None while it runs."""
        return self._process.returncode

    def cpu_seconds(self) -> float:
        """CPU time used so far, user and system; keeps its last value when the process is gone."""
        try:
            times = self._accounting.cpu_times()
        except psutil.Error:
            return self._cpu_seconds
        self._cpu_seconds = max(self._cpu_seconds, times.user + times.system)
        return self._cpu_seconds

    def asleep(self) -> bool:
        """Whether every thread waits for something to happen: none of them wants to run.

        Says nothing of the host's load: a thread that is not given a CPU is not asleep.
        """
        try:
            return all(
                path.read_text().rpartition(")")[2].split()[0] == "S"
                for path in Path(f"/proc/{self.pid}/task").glob("*/stat")
            )
        except OSError:  # a thread has just ended
            return False

    def stderr(self) -> str:
        """What QEMU has said, at most the last 16 KiB."""
        with self._stderr_path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - (16 << 10)))
            return file.read().decode("utf-8", "backslashreplace").strip()

    def kill(self) -> None:
        """Ends it as the host's out-of-memory killer does."""
        self._process.kill()

    def wait(self, seconds: float) -> int | None:
        """Waits for the end; the exit code, or None when it still runs."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def __enter__(self) -> QemuProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._terminal is not None:
            self._terminal.restore()


class _TerminalState:
    """The terminal's settings, to be put back when a QEMU that changed them was ended hard."""

    def __init__(self) -> None:
        self._saved = termios.tcgetattr(0) if os.isatty(0) else None

    def restore(self) -> None:
        if self._saved is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, self._saved)


def privileges() -> list[str]:
    """The command that takes QEMU's privileges away first. Raises UserError without setpriv."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise UserError("setpriv is not installed; it is part of util-linux")
    drop = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if is_root() else []
    return [setpriv, *drop, "--no-new-privs", "--pdeathsig=KILL", "--"]


def is_root() -> bool:
    return os.geteuid() == 0


def give_to_qemu(directory: Path) -> None:
    """Makes a run directory and all in it belong to the user QEMU runs as, closed to others."""
    directory.chmod(0o700)
    if not is_root():
        return
    for path in (directory, *directory.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
