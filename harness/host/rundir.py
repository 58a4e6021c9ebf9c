"""The run directory: one boot, all that was made for it and all that came out of it.

Owns the names of the files in it, whoever writes them.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from bootproof.harness.errors import UserError
from bootproof.harness.host.files import (
    disk_errors,
    foreign,
    locked,
    make_directory,
    open_regular,
    take_back,
    write_whole,
)
from bootproof.kernels import scratch
from bootproof.loader import bootimage

CONSOLE: Final = "console.log"
TRANSCRIPT: Final = "transcript.log"  # the same with times
DMESG: Final = "dmesg.log"  # the log buffer as it lay in guest RAM
STDERR: Final = "qemu.stderr"
RESULT: Final = "result.json"
RUN_LOG: Final = "replay.bin"  # QEMU's own log of the run
RECORD: Final = "replay.json"  # what it takes to play the log back
SCRIPT: Final = "qemu.sh"  # starts the same guest again without us
DEVICES_DIRECTORY: Final = "devices"  # what loader devices read, while QEMU does
# Parts of the guest's RAM that other runs have too, by the regions' names.
SHARED: Final = {"kernel": "kernel.img", "initrd": "initrd.img"}

_RESULT_VERSION: Final = 2
_LARGEST_RESULT: Final = 64 << 20
_DIRECTORIES: Final = (DEVICES_DIRECTORY, "pieces")  # the second is what it was called before
# By these a run is told from somebody's own directory; no other program makes such files.
_UNDER_WAY: Final = "under-way"  # of a run that makes none of the others before it ends
_MARKS: Final = re.compile(
    "|".join(map(re.escape, (bootimage.DESCRIPTION, bootimage.RAM, SCRIPT, _UNDER_WAY)))
)
_WRITTEN_WHOLE: Final = "|".join(map(re.escape, (TRANSCRIPT, DMESG, RESULT, RECORD)))
_ARTIFACTS: Final = re.compile(
    rf"(?:{re.escape(scratch.PREFIX)})?(?:{_MARKS.pattern}|{_WRITTEN_WHOLE})(?:\.part)?|stub[0-9]+\.bin|"
    + "|".join(map(re.escape, (CONSOLE, STDERR, RUN_LOG, *SHARED.values())))
)


def make_fresh(directory: Path, inputs: Iterable[Path] = ()) -> None:
    """Makes `directory`, or empties it of an earlier run.

    Raises UserError when it holds anything that no run of ours made, or one of `inputs`, which are
    read afterwards: nothing is deleted then.
    """
    for path in inputs:
        refuse_input(directory, path, f"{path}, which is to be read")
    make_directory(directory)
    with disk_errors(directory):
        take_back(directory)  # of a run that was cut short
        paths = sorted(directory.iterdir())
        marked = any(_MARKS.fullmatch(path.name) for path in paths)
        for path in paths:
            if not _made_by_a_run(path, marked):
                raise foreign(path)
        for path in sorted(paths, key=_removed_after):
            if path.name in _DIRECTORIES:
                shutil.rmtree(path)
            else:
                path.unlink()


def refuse_input(directory: Path, path: Path, what: str) -> None:
    """Raises UserError where a file, or a directory, that is read lies in one that is emptied."""
    if not os.path.exists(path):  # noqa: PTH110  # Path.exists raises for long names
        return
    if os.path.realpath(path).startswith(f"{os.path.realpath(directory)}/"):
        raise UserError(f"--out: {directory} holds {what}; take another directory")


@contextlib.contextmanager
def held(directory: Path) -> Iterator[None]:
    """Keeps other runs out of a run directory, which is there in here. Raises UserError."""
    was_there = directory.is_dir()
    make_directory(directory)
    try:
        with locked(directory):
            yield
    finally:
        if not was_there:
            with contextlib.suppress(OSError):  # nothing came of it, or it is not empty
                directory.rmdir()


def _removed_after(path: Path) -> tuple[bool, bool]:
    """The order in which a run is removed: its result first, which would tell of another run if we
    were killed on the way; and last what tells that the directory is a run's.
    """
    return _MARKS.fullmatch(path.name) is not None, path.name != RESULT


def mark(directory: Path) -> None:
    """Makes a run directory known as one from its first file on. Raises UserError."""
    write_whole(directory / _UNDER_WAY, b"")


@contextlib.contextmanager
def no_image_left(directory: Path) -> Iterator[None]:
    """Removes the boot image, whole or in part, when what is done with it ends in an exception."""
    try:
        yield
    except BaseException:
        for name in (bootimage.DESCRIPTION, bootimage.RAM, *SHARED.values()):
            (directory / name).unlink(missing_ok=True)
        raise


def _made_by_a_run(path: Path, marked: bool) -> bool:
    if path.name in _DIRECTORIES:
        return marked and path.is_dir() and not path.is_symlink()
    if path.is_symlink():  # a run of somebody else's boot image links to its RAM
        return marked and path.name == bootimage.RAM
    if not path.is_file():
        return False
    if path.name == RESULT:
        return marked or _is_result(path)
    return marked and _ARTIFACTS.fullmatch(path.name) is not None


def _is_result(path: Path) -> bool:
    """A refused request leaves nothing but its result."""
    try:
        with open_regular(path) as file:
            data = json.loads(file.read(_LARGEST_RESULT))
    except (ValueError, RecursionError):
        return False
    return isinstance(data, dict) and {"version", "case", "verdict"} <= set(data)


def write_result(directory: Path, result: Mapping[str, Any]) -> None:
    """Writes result.json. Its other keys are stable within a version."""
    whole = {"version": _RESULT_VERSION, **result}
    write_whole(directory / RESULT, f"{json.dumps(whole, indent=2)}\n".encode())
    (directory / _UNDER_WAY).unlink(missing_ok=True)


def drop_ram(directory: Path) -> None:
    """Removes the large part of a boot image; what is left still tells everything about the run."""
    for name in (bootimage.RAM, *SHARED.values()):
        (directory / name).unlink(missing_ok=True)
