"""One file out of a .deb, without unpacking the rest (deb(5): an ar(5) archive around a tar).

Owns the two formats and the limits. The file is written where the caller says, never where the
package says. Compressions: xz, zstd, gzip and none, by the member's name. Must not know catalogues,
caches or networks.
"""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import tarfile
from pathlib import Path
from typing import BinaryIO, Protocol

import zstandard

from kernels.errors import BadPackage, MemberMissing
from kernels.progress import mebibytes

MAX_MEMBER = 512 << 20
"""The largest file that is taken out. Debian's largest kernel is under 100 MiB."""
MAX_UNPACKED = 4 << 30
"""How much is decompressed in search of it, at most: 500 MiB is usual for a kernel with modules."""

_AR_MAGIC = b"!<arch>\n"
_AR_HEADER = 60
_CHUNK = 1 << 20
_MAX_EXTRA = 1 << 20
_XZ_MEMORY = 256 << 20  # xz -9 needs 65 MiB to unpack; a header may ask for 4 GiB


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def extract_member(package: Path, member: str, target: Path, *, limit: int = MAX_MEMBER) -> None:
    """Write the regular file `member` (no leading slash) of `package` to `target`, and sync it.

    Raises `MemberMissing` when it is not there as a regular file, `BadPackage` when the package is
    broken or exceeds a limit, `OSError` when `target` cannot be written.
    """
    with package.open("rb") as file:
        name = _seek_data(file)
        reader = _Reader(name, file)
        try:
            with tarfile.open(  # type: ignore[call-overload]
                fileobj=reader, mode="r|", bufsize=_CHUNK, tarinfo=_Entry
            ) as tar:
                _copy_member(tar, member, target, limit)
        except (
            tarfile.TarError,
            lzma.LZMAError,
            zstandard.ZstdError,
            EOFError,
            gzip.BadGzipFile,
        ) as error:
            raise BadPackage(f"{name} of the package cannot be unpacked: {error}") from error


def _seek_data(file: BinaryIO) -> str:
    """Move to the first byte of data.tar.*, and say its name."""
    if file.read(len(_AR_MAGIC)) != _AR_MAGIC:
        raise BadPackage("it is not a Debian package (no ar archive)")
    while header := file.read(_AR_HEADER):
        if len(header) != _AR_HEADER or header[58:] != b"`\n":
            break
        name = header[:16].decode("ascii", "replace").rstrip().rstrip("/")
        if name.startswith("data.tar"):
            return name
        size = header[48:58].decode("ascii", "replace").strip()
        if not size.isdecimal():
            break
        file.seek(int(size) + int(size) % 2, os.SEEK_CUR)
    raise BadPackage("it is not a Debian package (its ar archive holds no data.tar)")


class _Entry(tarfile.TarInfo):
    """An entry whose name and attributes are small: tarfile reads those into memory whole."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) and self.size > _MAX_EXTRA:
            raise BadPackage(f"an entry of it has {mebibytes(self.size)} of name or attributes")
        return super()._proc_member(tar)  # type: ignore[misc,no-any-return]


class _Reader:
    """The decompressed tar as a stream that ends with an error where the limit is."""

    def __init__(self, name: str, file: BinaryIO) -> None:
        self._stream = _decompressed(name, file)
        self._left = MAX_UNPACKED

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise BadPackage(f"it unpacks to more than {mebibytes(MAX_UNPACKED)}")
        return data


class _Xz:
    """The one way to read an xz stream with a limit on the memory it may ask for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = lzma.LZMADecompressor(memlimit=_XZ_MEMORY)

    def read(self, size: int, /) -> bytes:
        while not self._decoder.eof:
            packed = self._file.read(_CHUNK) if self._decoder.needs_input else b""
            if not packed and self._decoder.needs_input:
                raise EOFError("it ends too early")
            if data := self._decoder.decompress(packed, size):
                return data
        return b""


def _decompressed(name: str, file: BinaryIO) -> _Readable:
    match name:
        case "data.tar":
            return file
        case "data.tar.xz":
            return _Xz(file)
        case "data.tar.gz":
            return gzip.GzipFile(fileobj=file)
        case "data.tar.zst":
            return zstandard.ZstdDecompressor().stream_reader(file)
    raise BadPackage(f"{name}: its compression is not known here")


def _copy_member(tar: tarfile.TarFile, member: str, target: Path, limit: int) -> None:
    for info in tar:
        if info.name.removeprefix("./").lstrip("/") != member:
            continue
        source = tar.extractfile(info) if info.isreg() else None
        if source is None:
            raise MemberMissing(f"{member} of the package is not a regular file")
        if info.size > limit:
            raise BadPackage(f"{member} has {mebibytes(info.size)}, more than {mebibytes(limit)}")
        with target.open("wb") as out:
            shutil.copyfileobj(source, out, _CHUNK)
            out.flush()
            os.fsync(out.fileno())
        return
    raise MemberMissing(f"the package holds no {member}; correct `file` in catalog.toml")
