"""Files that travel between the matrix and its workers: what a case reads, and what it leaves.

Owns how a worker keeps what it was sent, by content hash, and directories as values. Must not know
dask, or what a case is.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import zstandard

from bootproof.dataclass import dataclass
from bootproof.harness.errors import UserError
from bootproof.harness.host.files import disk_errors, make_directory
from bootproof.harness.inputs import derived
from bootproof.kernels import pruning
from bootproof.kernels.cache import RECEIVED, Cache, CachedFile, default_cache_dir

_LEVEL: Final = 1  # the network is fast, and so must this be
_MOST: Final = 4 << 30  # of one file's data: guest RAM holds a kernel and what it wrote
_PIECE: Final = 64 << 20
_CONTENT: Final = "content"  # what a file is called that others know by its digest


def kept(sha256: str) -> CachedFile | None:
    """What was received with this digest, if it is here and still has it."""
    return Cache(default_cache_dir()).find(sha256, _CONTENT, RECEIVED)


def keep(sha256: str, content: bytes) -> None:
    """Keeps what came over the network, and of what came before as much as the cache's bound lets.

    Raises ValueError, UserError and FetchError.
    """
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{sha256}: arrived with another digest than it was sent with")
    cache = Cache(default_cache_dir())
    cache.file(sha256, _CONTENT, lambda path: path.write_bytes(content), room=RECEIVED)
    pruning.prune(cache.root / RECEIVED, derived.limit())


@dataclass(frozen=True, slots=True)
class Packed:
    """A file as it travels: its rights, its size, and the compressed runs of data in it by their
    offset.
    """

    mode: int
    size: int
    data: Mapping[int, bytes]


def packed(directory: Path) -> dict[str, Packed]:
    """The regular files of a directory and below it, by their path in it; holes stay holes."""
    return {
        str(path.relative_to(directory)): _packed(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def unpacked(files: Mapping[str, Packed], directory: Path) -> None:
    """Writes them below `directory`, which nobody else may look into: guest RAM is there.

    Raises UserError, for a name that leads out of it too.
    """
    make_directory(directory)
    with disk_errors(directory):
        directory.chmod(0o700)
        for name, file in files.items():
            path = directory / name
            if not path.resolve().is_relative_to(directory.resolve()):
                raise UserError(f"{directory}: a worker sent a file called {name!r}")
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as out:
                os.fchmod(out.fileno(), file.mode & 0o777)
                out.truncate(file.size)
                for offset, content in file.data.items():
                    out.seek(offset)
                    out.write(zstandard.ZstdDecompressor().decompress(content, _PIECE))


def _packed(path: Path) -> Packed:
    compress = zstandard.ZstdCompressor(level=_LEVEL).compress
    with path.open("rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        data = {
            at: compress(os.pread(file.fileno(), n, at))
            for at, n in _runs(file.fileno(), status.st_size)
        }
    return Packed(status.st_mode, status.st_size, data)


def _runs(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Offset and length of what is no hole, in pieces."""
    at, total = 0, 0
    while at < size:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole up to the end
            return
        end = min(os.lseek(fd, at, os.SEEK_HOLE), size)
        while at < end:
            length = min(_PIECE, end - at)
            total += length
            if total > _MOST:
                raise UserError(f"a run directory holds more than {_MOST:#x} bytes in one file")
            yield at, length
            at += length
