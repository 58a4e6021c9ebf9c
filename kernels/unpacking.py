"""Regular files out of packages, within limits: what .deb and .rpm have in common.

Owns the compressions, the limits, and which file of a package is its kernel. A file is written
where the caller says, never where the package says. Must not know either format, nor caches.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import re
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO, Final, Protocol

import zstandard

from bootproof.dataclass import dataclass
from bootproof.kernels.errors import BadPackage, MemberMissing
from bootproof.kernels.progress import mebibytes

MAX_MEMBER: Final = 512 << 20
"""The largest file that is taken out. Debian's largest kernel is under 100 MiB."""
MAX_UNPACKED: Final = 4 << 30
"""How much is decompressed in search of it, at most: 500 MiB is usual for a kernel with modules."""

CHUNK: Final = 1 << 20
"""Bytes read at a time."""

_XZ_MEMORY: Final = 256 << 20  # xz -9 needs 65 MiB to unpack; a header may ask for 4 GiB
_MOST_NAMED: Final = 4  # kernels that a refusal names
# Where distributions put a kernel: /boot, or beside its modules; arm64 also calls it Image.
_KERNEL: Final = re.compile(
    r"(?:boot|(?:usr/)?lib/modules/[^/]+)/(?:vmlinuz|vmlinux|bzImage|Image)(?:[-.][^/]+)?"
)
_NO_KERNEL: Final = (".hmac", ".sig", ".p7s", ".sha256", ".debug", ".config")


class Readable(Protocol):
    """A stream of bytes that cannot go back."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Member:
    """A file of a package, as its own path without a leading slash.

    `open` gives its content, until the next member is asked for; None for what is no regular file.
    """

    name: str
    size: int
    open: Callable[[], Readable] | None


def decompressed(kind: str, file: BinaryIO) -> Readable | None:
    """`file` from here on, unpacked; None for a compression that is not known here."""
    match kind:
        case "":
            return file
        case "xz" | "lzma":
            return _Xz(file)
        case "gz" | "gzip":
            return gzip.GzipFile(fileobj=file)
        case "bz2" | "bzip2":
            return bz2.BZ2File(file)
        case "zst" | "zstd":
            return zstandard.ZstdDecompressor().stream_reader(file)
    return None


class _Xz:
    """The one way to read an xz or lzma stream with a limit on the memory it may ask for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = lzma.LZMADecompressor(memlimit=_XZ_MEMORY)

    def read(self, size: int, /) -> bytes:
        while not self._decoder.eof:
            packed = self._file.read(CHUNK) if self._decoder.needs_input else b""
            if not packed and self._decoder.needs_input:
                raise EOFError("it ends too early")
            if data := self._decoder.decompress(packed, size):
                return data
        return b""


# bz2 and gzip say with an OSError that data is broken.
BROKEN: Final = (lzma.LZMAError, zstandard.ZstdError, zlib.error, EOFError, OSError)


class Bounded:
    """What a decompressor gives, with our errors: for broken data, and where the limit is.

    `what` names the data in messages.
    """

    def __init__(self, what: str, stream: Readable) -> None:
        self._what = what
        self._stream = stream
        self._left = MAX_UNPACKED

    def read(self, size: int) -> bytes:
        try:
            data = self._stream.read(size)
        except BROKEN as error:
            raise broken(self._what, error) from error
        self._left -= len(data)
        if self._left < 0:
            raise BadPackage(f"it unpacks to more than {mebibytes(MAX_UNPACKED)}")
        return data


def broken(what: str, error: Exception) -> BadPackage:
    """The one line for a part of a package that cannot be read."""
    return BadPackage(f"{what} of the package cannot be unpacked: {error}")


def copy(member: Member, target: Path, limit: int = MAX_MEMBER) -> str:
    """Writes a member to `target`, and syncs it; gives the content's SHA-256.

    Raises `BadPackage` when it is larger than `limit`, or shorter than it says.
    """
    if member.size > limit:
        size = mebibytes(member.size)
        raise BadPackage(f"{member.name} has {size}, more than {mebibytes(limit)}")
    with target.open("wb") as out:
        digest = pour(member, out.write)
        out.flush()
        os.fsync(out.fileno())
    return digest


def take_kernel(members: Iterable[Member], target: Path) -> str:
    """Writes the one kernel among `members` to `target`; gives its path in the package.

    The same kernel twice counts as one. Raises `MemberMissing` when there is none, or several.
    """
    digests: dict[str, str] = {}  # of the kernels, by path
    for member in members:
        if not _KERNEL.fullmatch(member.name) or member.name.endswith(_NO_KERNEL):
            continue
        if member.open is None or not member.size:
            continue
        if digests:
            digests[member.name] = pour(member, lambda _: None)
        else:
            digests[member.name] = copy(member, target)
        if len(digests) == _MOST_NAMED:
            break
    if not digests:
        raise MemberMissing(
            "the package holds no kernel (/boot/vmlinuz-* or /usr/lib/modules/*/vmlinuz); one that"
            " only leads to others, or has headers or modules, does not: give the kernel's own"
        )
    if len(set(digests.values())) > 1:
        target.unlink(missing_ok=True)
        names = ", ".join(sorted(digests))
        raise MemberMissing(f"the package holds several kernels ({names}); unpack it and name one")
    return next(iter(digests))


def pour(member: Member, write: Callable[[bytes], object]) -> str:
    """Writes a member; gives the content's SHA-256.

    Raises `BadPackage` when the package ends in it, `MemberMissing` when it is no regular file.
    """
    if member.open is None:
        raise MemberMissing(f"{member.name} of the package is not a regular file")
    stream, left, digest = member.open(), member.size, hashlib.sha256()
    while left:
        chunk = stream.read(min(left, CHUNK))
        if not chunk:
            raise BadPackage(f"{member.name}: the package ends in the middle of it")
        write(chunk)
        digest.update(chunk)
        left -= len(chunk)
    return digest.hexdigest()
