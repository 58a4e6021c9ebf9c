"""Directories of the user's as an archive for a guest: its files, links and permissions, and tests.

The same files give the same bytes: times are zero, everything is root's, and names are in order.
What no file system of the guest could hold, or would stand where the proof is, is refused.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from bootproof.harness.errors import UserError
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
    for directory in directories:
        for entry in _entries(Path(directory)):
            entries[entry.path] = entry
            if len(entries) > _MOST_FILES:
                raise UserError(f"{directory}: more than {_MOST_FILES:,} files (--overlay)")
    size = sum(len(entry.data) for entry in entries.values())
    if size > _MOST_BYTES:
        raise UserError(
            f"{format_size(size)} of files; {format_size(_MOST_BYTES)} at most"
            " (--overlay, --modules)"
        )
    every = [entries[path] for path in sorted(entries)]
    run = initramfs.test_entries(tests, goes_on=bool(modules)) if tests else ()
    return initramfs.archive([*every, *run])


def _entries(root: Path) -> Iterator[Entry]:
    """Everything below a directory, which itself stands for the guest's root."""
    try:
        if not root.is_dir():
            raise UserError(f"{root}: is no directory (--overlay)")
        if (root / initramfs.OURS).exists():
            raise UserError(
                f"{root / initramfs.OURS}: is where the proof's own files are (--overlay)"
            )
        for where, directories, files in os.walk(root, onerror=_raise):
            for name in sorted([*directories, *files]):
                yield _entry(Path(where, name), root)
    except OSError as error:
        raise UserError(f"{error.filename or root}: {error.strerror} (--overlay)") from error


def _entry(path: Path, root: Path) -> Entry:
    mode = path.lstat().st_mode
    name = os.fsencode(path.relative_to(root)).decode("utf-8", "surrogateescape")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"{path}: has a name that is not in UTF-8 (--overlay)") from None
    if stat.S_ISLNK(mode):
        return Entry(name, stat.S_IFLNK | 0o777, os.fsencode(path.readlink()))
    if stat.S_ISDIR(mode):
        return Entry(name, stat.S_IFDIR | stat.S_IMODE(mode))
    if stat.S_ISREG(mode):
        return Entry(name, stat.S_IFREG | stat.S_IMODE(mode), path.read_bytes())
    raise UserError(f"{path}: is no file, directory or link (--overlay)")


def _raise(error: OSError) -> None:
    raise error
