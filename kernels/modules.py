"""Kernel modules by their names, where they belong to a kernel: its package, its build directory,
its installation.

Owns finding them, and getting them out of a package into the cache. Must not know what is in a
module: which others one needs is its own word.
"""

from __future__ import annotations

import functools
import io
import os
import re
import tempfile
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from bootproof.dataclass import dataclass
from bootproof.kernels import content, deb, given, sources, unpacking
from bootproof.kernels.cache import FILES, Cache, default_cache_dir
from bootproof.kernels.content import Content
from bootproof.kernels.errors import BadPackage, BadSource
from bootproof.kernels.fetch import Fetcher
from bootproof.kernels.progress import mebibytes
from bootproof.kernels.sources import Source
from bootproof.kernels.unpacking import BROKEN, CHUNK, Member

if TYPE_CHECKING:
    from bootproof.kernels.sources import Members

MOST: Final = 256 << 20  # bytes of a module; amdgpu with debug data has 100 MiB

_MOST_FILES: Final = 1_000_000  # a build directory of all modules has 100,000
_FILE: Final = re.compile(r"([^/]+)\.ko(?:\.(?:xz|gz|zst))?", re.DOTALL)
_MAGIC: Final = {b"\xfd7zXZ\0": "xz", b"\x1f\x8b": "gz", b"\x28\xb5\x2f\xfd": "zst"}
_BUILT_IN: Final = "modules.builtin"  # Documentation/kbuild/kbuild.rst
_LIB: Final = ("lib/modules", "usr/lib/modules")  # beside /boot
_LIST: Final = "modules.list"  # what a package's are called in the cache


@dataclass(frozen=True, slots=True)
class Modules:
    """The modules at one place; by their names, which have _ where a file's may have -."""

    # The place, as the user knows it.
    where: str
    # Paths there.
    paths: Mapping[str, str]
    # The names of those that are a part of the kernel itself.
    built_in: frozenset[str]
    # Of some paths, files that can be read. Raises FetchError.
    files: Callable[[Iterable[str]], Mapping[str, Path]]


def is_module(path: str) -> bool:
    """Whether a file's name is that of a module."""
    return _FILE.fullmatch(path.rpartition("/")[2]) is not None


def name_of(path: str) -> str:
    """The name of a module, of its file's name or as the user writes it."""
    base = path.rpartition("/")[2]
    match = _FILE.fullmatch(base)
    return (match[1] if match else base).replace("-", "_")


def read(path: Path) -> bytes:
    """A module as the kernel takes it: unpacked. Raises `BadSource`."""
    try:
        packed = given.read(path, MOST)
    except OSError as error:
        raise BadSource(f"{path}: {error.strerror}") from error
    kind = next((kind for magic, kind in _MAGIC.items() if packed.startswith(magic)), "")
    stream = unpacking.decompressed(kind, io.BytesIO(packed))
    assert stream is not None
    data = bytearray()
    try:
        while chunk := stream.read(CHUNK):
            data += chunk
            if len(data) > MOST:
                raise BadSource(f"{path}: unpacks to more than {mebibytes(MOST)}")
    except BROKEN as error:
        raise BadSource(f"{path}: cannot be unpacked: {error}") from error
    return bytes(data)


def of_kernel(source: Source, releases: tuple[str, ...]) -> Modules:
    """Those that belong to a kernel. Raises `FetchError` where none are known to."""
    if source.package is not None:
        return _in_package(*source.package, source.shown)
    if source.path is None:
        package = Fetcher().package(source.name)
        whole = Content(package.path, package.sha256)
        return _in_package(whole, deb.members, source.name)
    if source.build is not None:
        return in_directory(source.build)
    own = source.path.absolute().parent
    if own.name in releases:  # lib/modules/RELEASE
        return in_directory(own)
    roots = [root / lib for root in (own.parent, Path("/")) for lib in _LIB]
    tried = dict.fromkeys(root / release for root in roots for release in releases)
    for directory in tried:
        if directory.is_dir():
            return in_directory(directory)
    raise BadSource(
        f"{source.shown}: nothing is known of its modules (no {next(iter(tried), roots[0])});"
        " name a place too: DIRECTORY/NAME, PACKAGE/NAME, or the module's file"
    )


def at(path: Path) -> Modules:
    """Those in a directory or in a package that the user names. Raises `FetchError`."""
    if path.is_dir():
        return in_directory(path)
    whole = content.of_file(path, str(path))
    members = sources.members_of(whole.path)
    if members is None:
        raise BadSource(f"{path}: is neither a directory nor a package")
    try:
        return _in_package(whole, members, str(path))
    except BadPackage as error:
        raise BadSource(f"{path}: {error}") from error


def in_directory(directory: Path, *, deep: bool = True) -> Modules:
    """Those in a directory, and with `deep` below it. Raises `BadSource`."""
    paths: dict[str, str] = {}
    built_in: set[str] = set()
    try:
        for where, below, names in given.below(directory, _MOST_FILES, _raise):
            below[:] = below if deep else []
            paths |= {name_of(name): str(where / name) for name in names if is_module(name)}
            if _BUILT_IN in names:
                text = given.read(where / _BUILT_IN, MOST).decode("utf-8", "replace")
                built_in |= set(map(name_of, text.split()))
    except OSError as error:
        raise BadSource(f"{error.filename or directory}: {error.strerror}") from error
    files = lambda wanted: {path: Path(path) for path in wanted}  # noqa: E731
    return Modules(str(directory), paths, frozenset(built_in), files)


def _raise(error: OSError) -> None:
    raise error


def _in_package(package: Content, members: Members, shown: str) -> Modules:
    cache = Cache(default_cache_dir())
    unpacked = _Unpacked(package, members, cache.root / FILES)

    def write(target: Path) -> None:
        lines: list[str] = []
        for name, member in unpacked.members.items():
            if is_module(name):
                lines.append(name)
            elif member.open is not None:
                text = member.open().read(min(member.size, CHUNK)).decode("utf-8", "replace")
                lines += (f"{_BUILT_IN} {name_of(path)}" for path in text.split())
        target.write_text("\n".join(lines), "utf-8")

    def taken(wanted: Iterable[str]) -> Mapping[str, Path]:
        def copy(path: str) -> Callable[[Path], object]:
            return lambda target: unpacking.copy(unpacked.members[path], target, MOST)

        return {path: cache.file(package.sha256, path, copy(path)).path for path in wanted}

    listed = cache.file(package.sha256, _LIST, write).path
    lines = listed.read_text("utf-8").split("\n")
    built_in = frozenset(line.partition(" ")[2] for line in lines if line.startswith(_BUILT_IN))
    paths = {name_of(line): line for line in lines if is_module(line)}
    return Modules(shown, paths, built_in, taken)


class _Unpacked:
    """The modules of a package, and the lists of those built in, on the disk of `room` as long as
    this lives. A package is unpacked at the first need, and once: what it is packed with cannot go
    back, and which modules one needs is only known when it is there.
    """

    def __init__(self, package: Content, members: Members, room: Path) -> None:
        self._package, self._members, self._room = package, members, room

    @functools.cached_property
    def members(self) -> Mapping[str, Member]:
        """By their paths. Raises OSError and `BadPackage`."""
        file = tempfile.TemporaryFile(dir=self._room)  # noqa: SIM115
        weakref.finalize(self, file.close)
        return {
            member.name: _kept(member, file)
            for member in self._members(self._package.path)
            if (is_module(member.name) or member.name.endswith(f"/{_BUILT_IN}"))
            and (member.open is not None and member.name.isprintable())
        }


def _kept(member: Member, file: BinaryIO) -> Member:
    """The same member at the end of a file, unless it is too large for a module."""
    at = file.seek(0, os.SEEK_END)
    if member.size <= MOST:
        unpacking.pour(member, file.write)

    def opened() -> BinaryIO:
        file.seek(at)
        return file

    return Member(member.name, member.size, opened)
