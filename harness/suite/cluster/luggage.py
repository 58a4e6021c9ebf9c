"""Files that travel between the matrix and its workers: what a case reads, and what it leaves.

Owns the place where a worker keeps what it was sent, by content hash, and directories as values.
Must not know dask, or what a case is.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import zstandard

from bootproof.harness.errors import UserError
from bootproof.harness.host.files import disk_errors
from bootproof.kernels.cache import default_cache_dir

_LEVEL: Final = 1  # the network is fast, and so must this be
_MOST: Final = 4 << 30  # of one file's data: guest RAM holds a kernel and what it wrote
_PIECE: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Sent:
    """A file that a worker has, or will get, by the digest of its content."""

    sha256: str
    name: str

    @property
    def path(self) -> Path:
        """Where a worker keeps it."""
        return default_cache_dir() / "received" / self.sha256 / self.name


def keep(sent: Sent, content: bytes) -> None:
    """Keeps what came over the network; what is there already stays. Raises ValueError, UserError.

    Another process may do the same: what is seen under the name is always whole.
    """
    if hashlib.sha256(content).hexdigest() != sent.sha256:
        raise ValueError(f"{sent.name}: arrived with another digest than it was sent with")
    if sent.path.exists():
        return
    with disk_errors(sent.path):
        sent.path.parent.mkdir(parents=True, exist_ok=True)
        part = sent.path.with_name(f"{sent.name}.{os.getpid()}.part")
        part.write_bytes(content)
        part.replace(sent.path)


@dataclass(frozen=True, slots=True)
class Packed:
    """A file as it travels: its size, and the compressed runs of data in it by their offset."""

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
    """Writes them below `directory`. Raises UserError, for a name that leads out of it too."""
    with disk_errors(directory):
        for name, file in files.items():
            path = directory / name
            if not path.resolve().is_relative_to(directory.resolve()):
                raise UserError(f"{directory}: a worker sent a file called {name!r}")
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as out:
                out.truncate(file.size)
                for offset, content in file.data.items():
                    out.seek(offset)
                    out.write(zstandard.ZstdDecompressor().decompress(content, _PIECE))


def _packed(path: Path) -> Packed:
    compress = zstandard.ZstdCompressor(level=_LEVEL).compress
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        data = {
            at: compress(os.pread(file.fileno(), n, at)) for at, n in _runs(file.fileno(), size)
        }
    return Packed(size, data)


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
