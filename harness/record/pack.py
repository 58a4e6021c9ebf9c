"""`bootproof pack` and `unpack`: a recorded run as one file that replays on another machine.

The file is a tar archive (ustar) behind zstd: the small files of the run in a fixed order, then
guest RAM as one member for each piece that holds data. The same run gives the same bytes. A pack
may come from a stranger: only the members known here are read, each within its own limit and in
this order, so that there is no path, link or device in it to follow, and nothing in it is ever run.
"""

from __future__ import annotations

import contextlib
import os
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

import zstandard

from bootproof.dataclass import dataclass
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.errors import UserError
from bootproof.harness.host.files import disk_errors, nearest_directory, open_given, refuse_foreign
from bootproof.harness.host.process import MOST_WRITTEN
from bootproof.harness.host.rundir import CONSOLE, RECORD, RESULT, RUN_LOG, TRANSCRIPT
from bootproof.harness.record import playback, recording
from bootproof.harness.record.playback import Recorded
from bootproof.harness.text import printable
from bootproof.kernels import scratch
from bootproof.loader import bootimage
from bootproof.loader.address import format_size
from bootproof.loader.errors import LoaderError
from bootproof.loader.memory import GuestMemory

SUFFIX: Final = ".tar.zst"
# The members in their order, and how long each may be.
_NEEDED: Final[Mapping[str, int]] = {
    bootimage.DESCRIPTION: 1 << 20,
    RECORD: 1 << 16,
    CONSOLE: 17 << 20,
    RUN_LOG: MOST_WRITTEN,
}
_EXTRA: Final[Mapping[str, int]] = {TRANSCRIPT: 64 << 20, RESULT: 64 << 20}
_RAM: Final = re.compile(r"ram/([0-9a-f]{16})")
_PIECE: Final = 64 << 20
_MOST_PIECES: Final = 100_000
_MOST_DATA: Final = 2 << 30  # of guest RAM; a kernel and its initrd have less
_BLOCK: Final = tarfile.BLOCKSIZE
_CHUNK: Final = 1 << 20
_LEVEL: Final = 9
_WINDOW: Final = 1 << 27


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    size: int


def pack(directory: Path, out: Path, binary: str | None = None) -> int:
    """Packs a run that can be played back; gives the file's size. Raises UserError, LoaderError."""
    named, out = out, Path(os.path.realpath(out))  # a link stays
    refuse_foreign(out, _ours)
    nearest_directory(out.parent)
    recorded = playback.open_recorded(directory, binary)
    with (
        disk_errors(named),
        recorded.memory() as memory,
        scratch.beside(out) as draft,
    ):
        with (draft / out.name).open("wb") as raw:
            compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
            with compressor.stream_writer(raw, closefd=False) as file:
                _write_files(recorded, file)
                _write_ram(memory, file)
                file.write(bytes(2 * _BLOCK))
        (draft / out.name).replace(out)
    return out.stat().st_size


def _ours(head: bytes) -> bool:
    """Whether a pack begins so."""
    name = bootimage.DESCRIPTION.encode() + b"\0"
    try:
        reader = zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(head)
        return reader.read(len(name)) == name
    except zstandard.ZstdError:
        return False


def _write_files(recorded: Recorded, file: zstandard.ZstdCompressionWriter) -> None:
    whole = bootimage.description(replace(recorded.image, backing=()))
    _write_member(file, bootimage.DESCRIPTION, whole)
    for name, limit in {**_NEEDED, **_EXTRA}.items():
        path = recorded.directory / name
        if name == bootimage.DESCRIPTION or (name in _EXTRA and not path.exists()):
            continue
        _write_member(file, name, recording.read_small(path, limit))


def _write_ram(memory: GuestMemory, file: zstandard.ZstdCompressionWriter) -> None:
    total = 0
    for extent in memory.data_extents():
        for start in range(extent.start, extent.end, _PIECE):
            size = min(_PIECE, extent.end - start)
            total += size
            if total > _MOST_DATA:
                raise UserError(f"guest RAM holds more than {format_size(_MOST_DATA)} of data")
            _write_member(file, f"ram/{start:016x}", memory.read(start, size))


def _write_member(file: zstandard.ZstdCompressionWriter, name: str, data: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size = len(data)
    file.write(header.tobuf(tarfile.USTAR_FORMAT))
    file.write(data)
    file.write(bytes(-len(data) % _BLOCK))


def unpack(path: Path, directory: Path, place: Path | None = None) -> None:
    """Unpacks into `directory`, which must not exist; after an error it does not. `place` is where
    that is to the user, who has not named it.

    Raises UserError naming the file and the reason, and LoaderError.
    """
    if os.path.lexists(directory):
        raise UserError(f"{directory}: is there already; name a directory that is not (--out)")
    nearest_directory(directory.parent)
    with (
        disk_errors(path),
        open_given(path) as raw,
        disk_errors(place or directory),
        scratch.beside(directory) as draft,
    ):
        (draft / "run").mkdir(mode=0o700)
        try:
            reader = zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(raw)
            _unpack(_Archive(reader), draft / "run")
        except ValueError as error:
            raise UserError(f"{path}: {printable(str(error).encode())}") from error
        except zstandard.ZstdError as error:
            told = f"is no pack of a run, or a damaged one ({error}); give what `pack` wrote"
            raise UserError(f"{path}: {told}") from error
        except LoaderError as error:
            if isinstance(error.__cause__, OSError):  # of the disk, which has a name of its own
                raise error.__cause__ from None
            raise UserError(f"{path}: {error}") from error
        (draft / "run").rename(directory)


@contextlib.contextmanager
def run_directory(path: Path) -> Iterator[Path]:
    """The run that `path` is, or that is packed in it: then in a directory that goes away again."""
    if not path.is_file():
        yield path
        return
    with scratch.directory() as draft:
        unpack(path, draft / "run", draft.parent)
        yield draft / "run"


def _unpack(archive: _Archive, directory: Path) -> None:
    members = archive.members()
    for name, limit in _NEEDED.items():
        member = next(members, None)
        if member is None or member.name != name:
            raise ValueError(f"is no pack of a run: {name} is not where it belongs")
        archive.copy(member, limit, directory / name)
    image = bootimage.parse((directory / bootimage.DESCRIPTION).read_bytes())
    if image.backing:
        raise ValueError(f"{bootimage.DESCRIPTION}: RAM that is not in the pack")
    if image.memory_size > ARCHES[image.arch].memory_limit:
        raise ValueError(f"{bootimage.DESCRIPTION}: {format_size(image.memory_size)} of RAM")
    extra = dict(_EXTRA)
    with GuestMemory(image.banks, path=directory / bootimage.RAM) as memory:
        _unpack_rest(archive, members, extra, memory, directory)


def _unpack_rest(
    archive: _Archive,
    members: Iterator[_Member],
    extra: dict[str, int],
    memory: GuestMemory,
    directory: Path,
) -> None:
    total, above = 0, 0
    for number, member in enumerate(members):
        if member.name in extra:
            archive.copy(member, extra.pop(member.name), directory / member.name)
            continue
        match = _RAM.fullmatch(member.name)
        if match is None:
            raise ValueError(f"has a member that no pack has: {member.name!r}")
        address = int(match[1], 16)
        total += member.size
        if address < above or number > _MOST_PIECES or total > _MOST_DATA:
            raise ValueError(f"{member.name}: RAM that is too much, or not in order")
        above = address + member.size
        if not memory.contains(address, member.size):
            raise ValueError(f"{member.name}: {member.size:#x} bytes are not inside guest RAM")
        archive.take(member, _PIECE, partial(_put, memory, address))


def _put(memory: GuestMemory, address: int, at: int, data: bytes) -> None:
    memory.write(address + at, data)


class _Archive:
    """A tar archive read forward. Only plain files; raises ValueError for anything else."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def members(self) -> Iterator[_Member]:
        """The headers; each member's content must have been taken before the next."""
        while True:
            block = self._exactly(_BLOCK)
            if not any(block):
                return
            try:
                header = tarfile.TarInfo.frombuf(block, "ascii", "strict")
            except (tarfile.HeaderError, UnicodeError) as error:
                raise ValueError(f"is no tar archive: {error}") from None
            if header.type != tarfile.REGTYPE or header.size < 0:
                raise ValueError(f"{header.name!r} is not a plain file")
            yield _Member(header.name, header.size)

    def copy(self, member: _Member, limit: int, path: Path) -> None:
        with path.open("xb") as file:
            self.take(member, limit, lambda _, data: file.write(data))

    def take(self, member: _Member, limit: int, put: Callable[[int, bytes], object]) -> None:
        if member.size > limit:
            raise ValueError(f"{member.name}: {member.size:#x} bytes, at most {limit:#x} may be")
        for at in range(0, member.size, _CHUNK):
            put(at, self._exactly(min(_CHUNK, member.size - at)))
        self._exactly(-member.size % _BLOCK)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            try:
                more = self._file.read(size - len(data))
            except OSError as error:  # of the pack: what is written has a name
                raise ValueError(error.strerror) from error
            if not more:
                raise ValueError("is cut off")
            data += more
        return data
