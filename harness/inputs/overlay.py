"""Directories of the user's as an archive for a guest: its files, links and permissions, and tests.

The same files give the same bytes: times are zero, everything is root's, and names are in order.
What no file system of the guest could hold, or would stand where the proof is, is refused.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.harness.errors import UserError
from bootproof.kernels import given
from bootproof.loader import initramfs
from bootproof.loader.address import format_size
from bootproof.loader.initramfs import Entry

_MOST_BYTES: Final = 1 << 30
_MOST_FILES: Final = 100_000


def archive(
    directories: Sequence[str], tests: Sequence[str], modules: Mapping[str, bytes] | None = None
) -> bytes:
    """What goes behind the guest's other archives. Raises UserError.

    Of two files with one name the later one wins. `tests` are texts of shell scripts, `modules` the
    kernel's, by their names.
    """
    entries = {entry.path: entry for entry in initramfs.module_entries(modules or {})}
    found: dict[str, _Found] = {}
    for directory in directories:
        found |= _found(Path(directory))
    size = sum(each.size for each in found.values())
    size += sum(len(entry.data) for entry in entries.values())
    if size > _MOST_BYTES:
        most = format_size(_MOST_BYTES)
        raise UserError(f"{format_size(size)} of files; {most} at most (--overlay, --modules)")
    entries |= {name: _entry(name, each) for name, each in found.items()}
    every = [entries[path] for path in sorted(entries)]
    run = initramfs.test_entries(tests, goes_on=bool(modules)) if tests else ()
    return initramfs.archive([*every, *run])


@dataclass(frozen=True, slots=True)
class _Found:
    """What is to be a member of the archive: looked at, and not read yet."""

    path: Path
    mode: int
    size: int


def _found(root: Path) -> dict[str, _Found]:
    """Everything below a directory, which itself stands for the guest's root."""
    with _told(root):
        if not root.is_dir():
            raise UserError(f"{root}: is no directory (--overlay)")
        found, size = {}, 0
        for where, directories, files in given.below(root, _MOST_FILES, _raise):
            if where == root and initramfs.OURS in (*directories, *files):
                ours = root / initramfs.OURS
                raise UserError(f"{ours}: is where the proof's own files are (--overlay)")
            for name in sorted([*directories, *files]):
                each = _look_at(where / name)
                found[_name(each.path, root)] = each
                size += each.size
                if size > _MOST_BYTES:  # not read: a file of /proc has no end
                    most = format_size(_MOST_BYTES)
                    raise UserError(f"{root}: holds more than {most} of files (--overlay)")
        return found


def _look_at(path: Path) -> _Found:
    status = path.lstat()
    mode = status.st_mode
    if not (stat.S_ISLNK(mode) or stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise UserError(f"{path}: is no file, directory or link (--overlay)")
    return _Found(path, mode, status.st_size if stat.S_ISREG(mode) else 0)


def _name(path: Path, root: Path) -> str:
    name = os.fsencode(path.relative_to(root)).decode("utf-8", "surrogateescape")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"{path}: has a name that is not in UTF-8 (--overlay)") from None
    return name


def _entry(name: str, found: _Found) -> Entry:
    path, mode = found.path, found.mode
    with _told(path):
        if stat.S_ISLNK(mode):
            return Entry(name, stat.S_IFLNK | 0o777, os.fsencode(path.readlink()))
        if stat.S_ISDIR(mode):
            return Entry(name, stat.S_IFDIR | stat.S_IMODE(mode))
        return Entry(name, stat.S_IFREG | stat.S_IMODE(mode), given.read(path, found.size))


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{error.filename or path}: {error.strerror} (--overlay)") from error


def _raise(error: OSError) -> None:
    raise error
