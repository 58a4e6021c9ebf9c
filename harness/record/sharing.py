"""Guest RAM that many runs have in common, kept once: kernels and initrds of cases that passed.

Owns the store beside the run directories of a matrix, or of boots, its files by their content, and
how a run directory comes to hold a link in place of its own copy. The directory stays complete:
moved or copied elsewhere it has all of its RAM, and who removes the store removes names, no bytes.
Nobody writes to these files: they are read-only, ours, and QEMU is given none that has several
names.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from bootproof.harness.host.files import disk_errors
from bootproof.harness.host.rundir import SHARED
from bootproof.harness.record import reproduce
from bootproof.loader import bootimage
from bootproof.loader.address import Range
from bootproof.loader.bootimage import Backing
from bootproof.loader.errors import GuestMemoryError
from bootproof.loader.memory import CHEAP_READ, GuestMemory

STORE: Final = "shared"  # in the directory of a matrix
_LEAST: Final = 256 << 10  # bytes: less is not worth a file
_SAMPLES, _SAMPLE = 64, 4096


def share(directory: Path, store: Path) -> None:
    """Has a run directory share its large regions with others of `store`, where that can be done.

    Where it cannot (links between file systems, none at all), the run keeps what it has. Raises
    UserError and LoaderError.
    """
    ram = directory / bootimage.RAM
    if ram.is_symlink() or not ram.exists():
        return
    image = bootimage.open_boot_image(directory)
    with (
        disk_errors(directory),
        GuestMemory.open(ram, image.banks, writable=True) as memory,
    ):
        backing = tuple(_linked(image, memory, directory, store))
        if not backing or image.backing:
            return
        # In this order RAM is whole after each step.
        reproduce.restore_first(directory, memory, backing)
        bootimage.save(replace(image, backing=backing), directory)
        for part in backing:
            memory.fill(part.address, part.size)


def prune(store: Path) -> None:
    """Removes what no run directory shares any more. Raises UserError."""
    with disk_errors(store), contextlib.suppress(FileNotFoundError):
        for path in store.iterdir():
            if path.lstat().st_nlink == 1:
                path.unlink()
        with contextlib.suppress(OSError):  # it is not empty
            store.rmdir()


def _linked(
    image: bootimage.BootImage, memory: GuestMemory, directory: Path, store: Path
) -> Iterator[Backing]:
    for name, file in SHARED.items():
        part = image.region(name)
        if part is None or part.size < _LEAST or not memory.contains(part.start, part.size):
            continue
        kept = _kept(memory, part, store)
        if kept is None:
            continue
        try:
            (directory / file).hardlink_to(kept)
        except OSError:  # another file system, one without links, or with as many as it can
            continue
        yield Backing(file, part.start, part.size)


def _kept(memory: GuestMemory, part: Range, store: Path) -> Path | None:
    """The store's file with these bytes, made where there is none; None where that is another."""
    path = store / f"{_name(memory, part)}.img"
    if not path.exists():
        _make(memory, part, path)
    try:
        with GuestMemory.open(path, [(part.start, part.size)]) as kept:
            return path if _same(memory, kept, part) else None
    except GuestMemoryError:  # it was nobody's any more, and has been pruned
        return None


def _name(memory: GuestMemory, part: Range) -> str:
    """A digest of the size and of samples, by which the file is found; what is in it decides."""
    found = hashlib.sha256(part.size.to_bytes(8, "little"))
    for number in range(_SAMPLES):
        at = number * part.size // _SAMPLES
        found.update(memory.read(part.start + at, min(_SAMPLE, part.size - at)))
    return found.hexdigest()


def _make(memory: GuestMemory, part: Range, path: Path) -> None:
    """Several may do so at once: the first one's stays."""
    path.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as draft:
        made = Path(draft) / path.name
        with GuestMemory([(part.start, part.size)], path=made) as file:
            for extent in memory.data_extents():
                start, end = max(extent.start, part.start), min(extent.end, part.end)
                if start < end:
                    offset = memory.file_offset(start)
                    file.write_file(start, memory.fileno(), offset, end - start)
            os.fchmod(file.fileno(), 0o444)
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(made)


def _same(memory: GuestMemory, kept: GuestMemory, part: Range) -> bool:
    return all(
        memory.read(at, size) == kept.read(at, size)
        for at in range(part.start, part.end, CHEAP_READ)
        for size in (min(CHEAP_READ, part.end - at),)
    )
