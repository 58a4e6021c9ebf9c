"""Files and directories that a user names: the one way to open them, which neither waits nor reads
without bounds.

A link is followed, for it is the user's own word; a FIFO, a device or a directory is refused, and
so is what is larger than anything of its kind.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_UNITS: Final = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "bytes"))


@contextlib.contextmanager
def opened(path: Path, most: int | None = None) -> Iterator[BinaryIO]:
    """A regular file of at most `most` bytes. Raises OSError, whose strerror says what is wrong."""
    try:
        file = open(path, "rb", opener=lambda name, _: os.open(name, _FLAGS))  # noqa: SIM115
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        raise _not_regular(path) from None  # a socket
    except ValueError as error:
        raise OSError(errno.EINVAL, "no file can have this name", str(path)) from error
    with file:
        status = os.fstat(file.fileno())
        if stat.S_ISDIR(status.st_mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(status.st_mode):
            raise _not_regular(path)
        if not status.st_size:
            _refuse_waiting(file, path)
        if most is not None and status.st_size > most:
            why = f"has {status.st_size} bytes, and more than {_shown(most)} are not read"
            raise OSError(errno.EFBIG, why, str(path))
        yield file


def read(path: Path, most: int) -> bytes:
    """All of a regular file of at most `most` bytes. Raises OSError as `opened`."""
    with opened(path, most) as file:
        data = file.read(most + 1)
    if len(data) > most:  # it grows
        why = f"is larger than {_shown(most)}, and more is not read"
        raise OSError(errno.EFBIG, why, str(path))
    return data


def _refuse_waiting(file: BinaryIO, path: Path) -> None:
    """What calls itself regular, and has no size and no end: /proc/kmsg does."""
    try:
        os.pread(file.fileno(), 1, 0)
    except BlockingIOError:
        raise _not_regular(path) from None


def _not_regular(path: Path) -> OSError:
    why = "is not a regular file; copy its content into a file first"
    return OSError(errno.EINVAL, why, str(path))


def below(
    directory: Path, most: int, unread: Callable[[OSError], None]
) -> Iterator[tuple[Path, list[str], list[str]]]:
    """All directories from `directory` down, as os.walk, with at most `most` names in them: it may
    be `/`, by mistake. Links are not followed; `unread` is told of what cannot be read.

    Raises OSError when there are more.
    """
    seen = 0
    for where, directories, files in os.walk(directory, onerror=unread):
        seen += len(directories) + len(files)
        if seen > most:
            why = f"holds more than {most:,} files; name a directory with nothing else in it"
            raise OSError(errno.EFBIG, why, str(directory))
        yield Path(where), directories, files


def _shown(size: int) -> str:
    unit, name = next((item for item in _UNITS if size >= item[0]), _UNITS[-1])
    return f"{size // unit} {name}"
