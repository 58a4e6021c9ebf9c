"""Kernel files: found by whatever names them, in the format a case asks for, each made once.

What has to be unpacked or changed for a case is kept in the user's cache under the hash of the file
it came from, so that no run does the same work twice, whichever worker needs it first.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bootproof.harness.errors import UserError
from bootproof.harness.inputs import symbols, variants
from bootproof.harness.inputs.symbols import Symbols
from bootproof.kernels import FetchedKernel, Fetcher, load_catalog, sources
from bootproof.kernels.cache import Cache, default_cache_dir, file_sha256
from bootproof.kernels.sources import Source
from bootproof.loader import cpio, initramfs, pe
from bootproof.loader.errors import LoaderError, one_line
from bootproof.loader.identify import Format, identify
from bootproof.loader.image import open_image
from bootproof.loader.inspect import inspect
from bootproof.loader.unpack import unpack_to

_DERIVED: Final = "derived"


@dataclass(frozen=True, slots=True)
class KernelFile:
    """A kernel image on disk."""

    # As the user knows it.
    name: str
    path: Path
    # Of the file that was first named, whatever was made of it.
    sha256: str


@functools.cache
def catalogue_file(name: str) -> FetchedKernel:
    """A file of the catalogue, fetched when it is not cached. Raises FetchError."""
    return Fetcher().fetch([name])[0]


@functools.cache
def kernel_file(name: str) -> KernelFile:
    """A kernel as a case names it: the catalogue's, or else as `find` finds it.

    Raises FetchError, UserError.
    """
    return _opened(sources.in_catalogue(name) or sources.find(name))


def find(what: str) -> tuple[Source, KernelFile]:
    """A kernel as a user names it, in every command: a file, package, build directory, URL with its
    hash, or name of the catalogue. Says on stderr when a file hides a kernel of the catalogue.

    Raises FetchError, UserError.
    """
    source = sources.find(what)
    if source.remark:
        print(f"bootproof: {one_line(source.remark)}", file=sys.stderr)
    return source, _opened(source)


def _opened(source: Source) -> KernelFile:
    path = catalogue_file(source.name).path if source.path is None else source.path
    try:
        open_image(path, source.shown).close()
        return KernelFile(source.shown, path, file_sha256(path))
    except LoaderError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(f"{source.shown}: {error.strerror}") from error


@functools.cache
def busybox(arch: str) -> bytes:
    """The static busybox of an architecture."""
    return catalogue_file(load_catalog().busybox(arch).name).path.read_bytes()


def read_initrd(path: Path) -> bytes:
    """A user's initrd. Raises UserError."""
    try:
        if path.exists() and not path.is_dir() and not path.is_file():
            raise UserError(f"{path}: is not a regular file (--initrd)")
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror} (--initrd)") from error
    if not data:
        raise UserError(f"{path}: is empty (--initrd)")
    digest = hashlib.sha256(data).digest()
    if digest not in _SOUND_ARCHIVES:  # a matrix reads the same one for each case
        try:
            cpio.check(data, str(path), initramfs.OURS)
        except LoaderError as error:
            raise UserError(f"{error} (--initrd)") from error
        _SOUND_ARCHIVES.add(digest)
    return data


_SOUND_ARCHIVES: Final[set[bytes]] = set()


@functools.cache
def in_format(kernel: KernelFile, format_: str) -> KernelFile:
    """`kernel` as "elf", "bzimage" or "image"; unpacked when it is packed.

    Raises LoaderError when it cannot be unpacked, UserError when something else comes out.
    """
    outer = identify(kernel.path).format
    steps = 0
    while outer.value != format_:
        steps += 1
        if outer is Format.UNKNOWN or steps > 3:
            raise UserError(f"{kernel.name}: no {format_} kernel in it (it is: {outer})")
        inner = _derive(kernel, f"{outer}-{steps}", functools.partial(_unpack, kernel.path))
        kernel = KernelFile(kernel.name, inner, kernel.sha256)
        outer = identify(kernel.path).format
    return kernel


@functools.cache
def release(kernel: KernelFile) -> str | None:
    """What `uname -r` will say in the guest, when the file tells."""
    return inspect(kernel.path).release


@functools.cache
def page_size(kernel: KernelFile) -> str | None:
    """The size of the kernel's pages, "16K", where its header says one."""
    with open_image(kernel.path, kernel.name) as image:
        return pe.page_size(image.data)


@functools.cache
def symbols_of(kernel: KernelFile) -> Symbols | None:
    """The names in an ELF kernel or an Image: its own, else those that vmlinux-to-elf finds."""
    own = symbols.read(kernel.path)
    if own is not None or not symbols.can_be_found():
        return own
    format_ = identify(kernel.path).format
    find = functools.partial(symbols.find, kernel.path)
    return symbols.read(_derive(kernel, f"{format_}-symbols", find))


@functools.cache
def variant(kernel: KernelFile, name: str) -> KernelFile:
    """A changed copy of `kernel`: see bootproof.harness.inputs.variants."""
    change = variants.VARIANTS[name]

    def write(path: Path) -> None:
        path.write_bytes(change(kernel.path.read_bytes()))

    format_ = identify(kernel.path).format
    return KernelFile(kernel.name, _derive(kernel, f"{format_}-{name}", write), kernel.sha256)


def _unpack(packed: Path, target: Path) -> None:
    unpack_to(packed, target)


def _derive(kernel: KernelFile, what: str, write: Callable[[Path], None]) -> Path:
    cache = Cache(default_cache_dir())
    path = cache.root / _DERIVED / f"{kernel.sha256}-{what}"
    if path.exists():
        return path
    with cache.locked(f"derived-{kernel.sha256[:32]}-{what}"):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f".{path.name}.{os.getpid()}")
            try:
                write(draft)
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)
    return path
