"""Guest RAM that many runs have in common, kept once: kernels and initrds of cases that passed, and
the kernels of a matrix before they run.

Owns the store beside the run directories of a matrix, or of boots, its files by their content, and
how a run directory comes to hold a link in place of its own copy. The directory stays complete:
moved or copied elsewhere it has all of its RAM, and who removes the store removes names, no bytes.
Nobody writes to these files: they are read-only, and none is in the directory of a QEMU that runs
as their owner.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.harness.host.files import disk_errors
from bootproof.harness.host.rundir import SHARED
from bootproof.harness.record import reproduce
from bootproof.kernels.content import Content
from bootproof.loader import bootimage
from bootproof.loader.address import Range, common, is_aligned
from bootproof.loader.assemble import Lent
from bootproof.loader.bootimage import Backing
from bootproof.loader.copying import Copy, copy_all
from bootproof.loader.errors import GuestMemoryError, LoaderError
from bootproof.loader.image import open_image
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
        if not backing:
            return
        # In this order RAM is whole after each step.
        reproduce.restore_first(directory, memory, backing)
        bootimage.save(replace(image, backing=(*image.backing, *backing)), directory)
        for part in backing:
            memory.fill(part.address, part.size)


class Lender:
    """Gives run directories the kernel's part of RAM before anything is written there.

    For cases in threads of one process, which load the same few kernels again and again: what a
    kernel's file, whose bytes are known to stay, puts where is written into the store once, and
    found again by that. Only where QEMU is another user than we are: it could write to a file of
    its own directory else, whatever other names that has.
    """

    def __init__(self, store: Path) -> None:
        self._store = store
        self._known: dict[_Recipe, _Kept | None] = {}
        self._lock = threading.Lock()

    def lend(
        self, kernel: Content, directory: Path, part: Range, copies: Sequence[Copy]
    ) -> Lent | None:
        """`part` of RAM as `copies` out of `kernel` make it, as a link in the run directory.

        None where that cannot be done: then nothing is there.
        """
        if part.size < _LEAST or not is_aligned(part.start, _SAMPLE):
            return None
        recipe = (
            *(kernel.sha256, part.size),
            tuple((copy.address - part.start, copy.offset, copy.size) for copy in copies),
        )
        with self._lock:  # several begin with the same one
            if recipe not in self._known:
                self._known[recipe] = self._made(kernel, part, copies)
        kept = self._known[recipe]
        file = SHARED["kernel"]
        if kept is None or not _link(directory / file, kept):
            return None
        runs = tuple(Range(part.start + run.start, run.size) for run in kept.nonzero)
        return Lent(Backing(file, part.start, part.size), runs)

    def _made(self, kernel: Content, part: Range, copies: Sequence[Copy]) -> _Kept | None:
        runs: list[Range] = []

        def fill(file: GuestMemory) -> None:
            copy_all(file, image, copies)
            at = part.start
            for run in (*file.nonzero_extents(), Range(part.end, 0)):
                file.fill(at, run.start - at)  # a kernel's file has MiBs of zeros: never read again
                runs.append(Range(run.start - part.start, run.size))
                at = run.end

        try:
            with open_image(kernel.path) as image:
                path = _stored(part, self._store, fill)
            return None if path is None else _Kept(path, _state(path), tuple(runs[:-1]))
        except (LoaderError, OSError):  # a full disk: whoever loads the kernel is going to say so
            return None


_Recipe = tuple[str, int, tuple[tuple[int, int, int], ...]]
"""The digest of a kernel's file, the size of its part, and what goes there, from its start on."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """A file of the store, as it was when it was seen to have what it should."""

    path: Path
    state: tuple[int, int, int]
    # Its runs of pages with a byte that is not zero, from its start on.
    nonzero: tuple[Range, ...]


def _state(path: Path) -> tuple[int, int, int]:
    """What tells of another file, or other bytes in it. Raises OSError."""
    found = path.lstat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _link(path: Path, kept: _Kept) -> bool:
    """Whether a run directory has it now; it is not linked if it is not what it was."""
    try:
        path.hardlink_to(kept.path)
        if _state(path) == kept.state:
            return True
        path.unlink()
    except OSError:  # another file system, one without links, or with as many as it can
        pass
    return False


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
    held = {part.file for part in image.backing}
    for name, file in SHARED.items():
        part = image.region(name)
        if file in held or part is None or part.size < _LEAST:
            continue
        if not memory.contains(part.start, part.size):
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
    if path.exists():
        return _if_same(memory, part, path)
    extents = common([part], memory.data_extents())
    return _stored(part, store, lambda file: file.copy_from(memory, extents))


def _stored(part: Range, store: Path, fill: Callable[[GuestMemory], object]) -> Path | None:
    """The store's file with what `fill` writes; None where that is another.

    Several may make it at once: the first one's stays.
    """
    store.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=store, prefix=".") as draft,
        GuestMemory([(part.start, part.size)], path=Path(draft) / "made") as file,
    ):
        fill(file)
        os.fchmod(file.fileno(), 0o444)
        path = store / f"{_name(file, part)}.img"
        try:
            path.hardlink_to(Path(draft) / "made")
        except FileExistsError:
            return _if_same(file, part, path)
        return path


def _name(memory: GuestMemory, part: Range) -> str:
    """A digest of the size and of samples, by which the file is found; what is in it decides."""
    found = hashlib.sha256(part.size.to_bytes(8, "little"))
    for number in range(_SAMPLES):
        at = number * part.size // _SAMPLES
        found.update(memory.read(part.start + at, min(_SAMPLE, part.size - at)))
    return found.hexdigest()


def _if_same(memory: GuestMemory, part: Range, path: Path) -> Path | None:
    try:
        with GuestMemory.open(path, [(part.start, part.size)]) as kept:
            return path if _same(memory, kept, part) else None
    except GuestMemoryError:  # it was nobody's any more, and has been pruned
        return None


def _same(memory: GuestMemory, kept: GuestMemory, part: Range) -> bool:
    return all(
        memory.read(at, size) == kept.read(at, size)
        for at in range(part.start, part.end, CHEAP_READ)
        for size in (min(CHEAP_READ, part.end - at),)
    )
