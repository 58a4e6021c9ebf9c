"""The files in a .deb, one after the other (deb(5): an ar(5) archive around a tar).

Owns the two formats. Compressions: xz, zstd, gzip and none, by the member's name. Must not know
catalogues, caches or networks.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from bootproof.kernels import unpacking
from bootproof.kernels.errors import BadPackage, MemberMissing
from bootproof.kernels.magic import AR
from bootproof.kernels.progress import mebibytes
from bootproof.kernels.unpacking import CHUNK, Bounded, Member, Readable, broken

_AR_HEADER = 60
_MAX_EXTRA = 1 << 20
_DATA: Final = "data.tar"
_COMPRESSIONS: Final = ("xz", "gz", "zst")


def extract_member(
    package: Path, member: str, target: Path, *, limit: int = unpacking.MAX_MEMBER
) -> None:
    """Write the regular file `member` (no leading slash) of `package` to `target`, and sync it.

    Raises `MemberMissing` when it is not there as a regular file, `BadPackage` when the package is
    broken or exceeds a limit, `OSError` when `target` cannot be written.
    """
    for file in members(package):
        if file.name == member:
            if file.open is None:
                raise MemberMissing(f"{member} of the package is not a regular file")
            unpacking.copy(file, target, limit)
            return
    raise MemberMissing(f"the package holds no {member}; correct `file` in catalog.toml")


def members(package: Path) -> Iterator[Member]:
    """Every file of a package, in its order. Raises `BadPackage`, also while one is read."""
    with package.open("rb") as file:
        name = _seek_data(file)
        reader = Bounded(name, _decompressed(name, file))
        try:
            with tarfile.open(  # type: ignore[call-overload]
                fileobj=reader, mode="r|", bufsize=CHUNK, tarinfo=_Entry
            ) as tar:
                for info in tar:
                    yield _member(name, tar, info)
        except tarfile.TarError as error:
            raise broken(name, error) from error


def _member(archive: str, tar: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
    name = info.name.removeprefix("./").lstrip("/")
    if not info.isreg():
        return Member(name, 0, None)
    return Member(name, info.size, lambda: _Content(archive, tar, info))


class _Entry(tarfile.TarInfo):
    """An entry whose name and attributes are small: tarfile reads those into memory whole."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) and self.size > _MAX_EXTRA:
            raise BadPackage(f"an entry of it has {mebibytes(self.size)} of name or attributes")
        return super()._proc_member(tar)  # type: ignore[misc,no-any-return]


class _Content:
    """The content of a file in a tar, with our errors."""

    def __init__(self, archive: str, tar: tarfile.TarFile, info: tarfile.TarInfo) -> None:
        self._archive = archive
        self._stream = tar.extractfile(info)

    def read(self, size: int) -> bytes:
        assert self._stream is not None  # it is a regular file
        try:
            return self._stream.read(size)
        except tarfile.TarError as error:
            raise broken(self._archive, error) from error


def _seek_data(file: BinaryIO) -> str:
    """Move to the first byte of data.tar.*, and say its name."""
    if file.read(len(AR)) != AR:
        raise BadPackage("it is not a Debian package (no ar archive)")
    while header := file.read(_AR_HEADER):
        if len(header) != _AR_HEADER or header[58:] != b"`\n":
            break
        name = header[:16].decode("ascii", "replace").rstrip().rstrip("/")
        if name.startswith(_DATA):
            return name
        size = header[48:58].decode("ascii", "replace").strip()
        if not size.isdecimal():
            break
        file.seek(int(size) + int(size) % 2, os.SEEK_CUR)
    raise BadPackage("it is not a Debian package (its ar archive holds no data.tar)")


def _decompressed(name: str, file: BinaryIO) -> Readable:
    kind = name.removeprefix(_DATA).removeprefix(".")
    stream = unpacking.decompressed(kind, file) if kind in ("", *_COMPRESSIONS) else None
    if stream is None:
        raise BadPackage(f"{name}: its compression is not known here")
    return stream
