"""What of the cache goes first: what can be made again, the longest unused first, up to a bound.

Owns when an entry was last used and whether a process uses it now. An entry is a file or a
directory right below a room of the cache; its time of change is when it was last used. A process
that reads a file of the cache has a shared lock on it for as long as it runs, which is looked at
before anything goes. Must not know how an entry is made.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.kernels import scratch

_JUST_USED: Final = 60.0  # seconds in which a process may have found it, and not opened it yet
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Entry:
    """Something in the cache that is kept or goes as a whole."""

    path: Path
    size: int  # bytes on the disk
    used: float  # seconds since the epoch


def used(entry: Path) -> None:
    """Has it go later than what is unused; a cache that is read-only only remembers less."""
    with contextlib.suppress(OSError):
        os.utime(entry)


def hold(descriptor: int) -> None:
    """Keeps an open file of the cache from being removed until its last descriptor is closed."""
    with contextlib.suppress(OSError):  # it is being removed, or locks are not to be had
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)


def entries(room: Path) -> list[Entry]:
    """What is in a room of the cache, the longest unused first; nothing where there is none."""
    found = []
    with contextlib.suppress(OSError), os.scandir(room) as children:
        for child in children:
            if not child.name.startswith(scratch.PREFIX):
                with contextlib.suppress(OSError):  # gone by now
                    used = child.stat(follow_symlinks=False).st_mtime
                    found.append(Entry(Path(child.path), _size(child), used))
    return sorted(found, key=lambda entry: (entry.used, entry.path.name))


def prune(room: Path, limit: int) -> list[Entry]:
    """Removes what was unused the longest until the rest has at most `limit` bytes; gives it.

    What a process uses, or has found in the last minute, stays, also beyond the limit.
    """
    kept = entries(room)
    size, gone = sum(entry.size for entry in kept), []
    for entry in kept:
        if size <= limit:
            break
        if time.time() - entry.used > _JUST_USED and _removed(entry.path):
            size -= entry.size
            gone.append(entry)
    return gone


def _removed(path: Path) -> bool:
    """Removes an entry unless a process has a file of it open."""
    with contextlib.ExitStack() as stack:
        try:
            for file in _files(path):
                descriptor = os.open(file, _OPEN)
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with scratch.directory(path.parent) as aside:
                path.rename(aside / path.name)
        except OSError:  # in use, gone by now, or not ours to remove
            return False
    return True


def _files(path: Path) -> Sequence[Path]:
    if path.is_symlink() or not path.is_dir():
        return [path]
    return [child for child in path.iterdir() if child.is_file()]


def _size(entry: os.DirEntry[str]) -> int:
    size = entry.stat(follow_symlinks=False).st_blocks * 512
    if entry.is_dir(follow_symlinks=False):
        with os.scandir(entry) as children:
            size += sum(map(_size, children))
    return size
