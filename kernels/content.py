"""What is in a kernel's file, for as long as somebody needs it: the same bytes, whatever becomes of
the name.

A file of the user's may be replaced or written to at any time, as make does. So it is read once,
into a copy that has no name, and all that is done with it (hashing, unpacking, loading) is done
with the copy. A file of the cache is held open, since another process may remove it. What has been
used last stays open, and so does what is in use. Must not know what a kernel looks like inside.
"""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path
from typing import BinaryIO, Final

from bootproof.dataclass import dataclass
from bootproof.kernels import given, pruning
from bootproof.kernels.cache import ENVIRONMENT, CachedFile, default_cache_dir
from bootproof.kernels.errors import BadSource, DiskFull

MOST: Final = 4 << 30  # bytes of a user's file; a vmlinux with debug data has under 1 GiB
_MOST_OPEN: Final = 64  # of each kind: who goes through kernels for months has any number
_BLOCK: Final = 1 << 20
_TRIES: Final = 3
_RECENT: Final = 2.0  # seconds, in which the time of change may not tell of another change
_State = tuple[int, ...]


class _Open:
    """A file that is open, by a descriptor of its own, as long as this is referred to."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.path = Path(f"/proc/{os.getpid()}/fd/{self._descriptor}")

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self._descriptor)


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes that nothing changes any more, under a name that this process's children can open, as
    long as this is referred to.
    """

    path: Path
    sha256: str
    _file: _Open | None = field(default=None, compare=False, repr=False)


def of_file(path: Path, shown: str) -> Content:
    """The content of a user's file as it is now. Raises `BadSource`; `shown` names it there."""
    with _reading(path, shown) as file:
        changed, state = os.fstat(file.fileno()).st_mtime, _state(file)
    if abs(time.time() - changed) < _RECENT:
        return _copied.__wrapped__(path, shown, state)
    return _copied(path, shown, state)


def of_cached(cached: CachedFile) -> Content:
    """The content of a file of the cache. Raises `BadSource`."""
    with _reading(cached.path, str(cached.path)) as file:
        return _held(os.fstat(file.fileno()).st_ctime_ns, file.fileno(), cached)


def _held(changed: int, descriptor: int, cached: CachedFile) -> Content:
    key = changed, cached
    with _HOLDING:
        held = _HELD.pop(key, None)
        if held is None:
            pruning.hold(descriptor)
            held = _open(descriptor, cached.sha256)
        _HELD[key] = held
        if len(_HELD) > _MOST_OPEN:
            del _HELD[next(iter(_HELD))]
    return held


_HELD: Final[dict[tuple[int, CachedFile], Content]] = {}  # the last one was used last
_HOLDING: Final = threading.Lock()
known: Final = functools.lru_cache(maxsize=_MOST_OPEN)
"""functools.cache, for what is found out about contents, which stay open as long as it is known."""


@known  # of one state of a file, one copy
def _copied(path: Path, shown: str, state: _State) -> Content:
    for _ in range(_TRIES):
        with _reading(path, shown) as file, _scratch() as copy:
            before = _state(file)
            digest = hashlib.sha256()
            while block := file.read(_BLOCK):
                digest.update(block)
                _write(copy, block, shown)
            if before == _state(file):
                return _open(copy.fileno(), digest.hexdigest())
    raise BadSource(f"{shown}: is being written to; name it again when it is whole")


def _write(copy: BinaryIO, block: bytes, shown: str) -> None:
    try:
        copy.write(block)
        copy.flush()
    except OSError as error:
        raise DiskFull(
            f"{shown}: no room for a copy of it: {error.strerror}; free some space or set"
            f" {ENVIRONMENT} to a directory on another disk"
        ) from error


def _scratch() -> BinaryIO:
    """A file without a name, on the cache's disk where that can be: nothing of it ever stays."""
    for directory in (default_cache_dir(), None):
        try:
            return tempfile.TemporaryFile(dir=directory)
        except OSError:
            if directory is None:
                raise
    raise AssertionError


@contextmanager
def _reading(path: Path, shown: str) -> Iterator[BinaryIO]:
    """A file of the user's or of the cache. Raises `BadSource`."""
    try:
        with given.opened(path, MOST) as file:
            yield file
    except OSError as error:
        raise BadSource(f"{shown}: {error.strerror}") from error


def _state(file: BinaryIO) -> _State:
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _open(descriptor: int, sha256: str) -> Content:
    file = _Open(os.dup(descriptor))
    return Content(file.path, sha256, file)
