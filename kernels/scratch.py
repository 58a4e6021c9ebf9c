"""Directories for what must not stay: removed at the end, and by the next process after a SIGKILL.

Each is locked by the process that works in it, and lives in a directory that others work in too.
What carries our name there and nobody has locked was left by a process that is dead.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PREFIX: Final = ".bootproof-"
_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def directory(parent: Path | None = None) -> Iterator[Path]:
    """A new directory below `parent` (the system's temporary directory), which is made if need be.

    Raises OSError.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    parent.mkdir(parents=True, exist_ok=True)
    sweep(parent)
    path, lock = _locked(parent)
    try:
        yield path
    finally:
        _remove(path)
        os.close(lock)


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A new directory on the disk of `path`, below a parent that is there. Raises OSError."""
    parent = path.absolute().parent
    parent.stat()
    with directory(parent) as draft:
        yield draft


def subject(error: OSError, path: Path) -> str:
    """What an error is about, as the user knows it, who named `path`: no name of ours here."""
    name = os.fsdecode(error.filename or "")
    return str(path) if not name or f"/{PREFIX}" in f"/{name}" else name


@functools.cache
def sweep_once() -> None:
    """Removes what dead processes have left in the system's temporary directory."""
    sweep(Path(tempfile.gettempdir()))


def sweep(parent: Path) -> None:
    """Removes the directories of dead processes below `parent`, as far as they are ours."""
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX):
                _sweep(Path(entry.path))


def _sweep(path: Path) -> None:
    with contextlib.suppress(OSError):  # somebody else's, in use, or gone by now
        lock = os.open(path, _OPEN)
        try:
            if os.geteuid() in (0, os.fstat(lock).st_uid):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(path)
        finally:
            os.close(lock)


def _locked(parent: Path) -> tuple[Path, int]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        try:
            lock = os.open(path, _OPEN)
        except FileNotFoundError:  # another process has swept it away: nobody had locked it yet
            continue
        fcntl.flock(lock, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(lock)):
                return path, lock
        os.close(lock)  # swept before it was locked


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
