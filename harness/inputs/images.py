"""Kernel files: found by whatever names them, in the format a case asks for, each made once.

What has to be unpacked or changed for a case is kept in the user's cache under the hash of the file
it came from, so that no run does the same work twice, whichever worker needs it first.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from bootproof.dataclass import dataclass
from bootproof.harness.errors import UserError
from bootproof.harness.host.files import read_given
from bootproof.harness.inputs import derived, named
from bootproof.kernels import content, sources
from bootproof.kernels.cache import CachedFile
from bootproof.kernels.catalog import load_catalog
from bootproof.kernels.content import Content
from bootproof.kernels.errors import FetchError
from bootproof.kernels.sources import Source
from bootproof.loader import banner, ikconfig, imageheader
from bootproof.loader.errors import LoaderError
from bootproof.loader.formats import Format
from bootproof.loader.identify import identify
from bootproof.loader.image import ImageSource, open_image

if TYPE_CHECKING:
    from bootproof.harness.inputs.symbols import Symbols
    from bootproof.kernels.fetch import FetchedKernel


@dataclass(frozen=True, slots=True)
class KernelFile:
    """A kernel image, whose bytes stay as they were when it was first looked at."""

    # As the user knows it.
    name: str
    # Where it was found; another kernel may be there by now.
    path: Path
    # Of the file that was first named, whatever was made of it.
    sha256: str
    content: Content = field(compare=False, repr=False)

    def open(self) -> ImageSource:
        """Its bytes. Raises LoaderError."""
        return open_image(self.content.path, self.name)

    def read(self) -> bytes:
        """All of them."""
        return self.content.path.read_bytes()


@functools.cache
def catalogue_file(name: str) -> FetchedKernel:
    """A file of the catalogue, fetched when it is not cached. Raises FetchError."""
    from bootproof.kernels.fetch import Fetcher  # which a file that is no kernel needs not

    return Fetcher().fetch([name])[0]


def kernel_file(name: str) -> KernelFile:
    """A kernel as a case names it: the catalogue's, or else as `find` finds it, as it is now.

    Raises FetchError, UserError.
    """
    return opened(sources.in_catalogue(name) or sources.find(name))


def find(what: str) -> tuple[Source, KernelFile]:
    """A kernel as a user names it (see inputs.named). Raises FetchError, UserError."""
    source = named.find(what)
    return source, opened(source)


def opened(source: Source) -> KernelFile:
    """The kernel that was found. Raises FetchError, UserError."""
    if source.path is None or source.content is None:
        fetched = catalogue_file(source.name)
        path, held = fetched.path, content.of_cached(CachedFile(fetched.path, fetched.sha256))
    else:
        path, held = source.path, source.content
    kernel = KernelFile(source.shown, path, held.sha256, held)
    try:
        kernel.open().close()
    except LoaderError as error:
        raise UserError(str(error)) from error
    return kernel


@functools.cache
def busybox(arch: str) -> bytes:
    """The static busybox of an architecture."""
    return catalogue_file(load_catalog().busybox(arch).name).path.read_bytes()


def read_initrd(path: Path) -> bytes:
    """A user's initrd. Raises UserError."""
    return _initrd(path)[0]


def has_init(path: Path) -> bool:
    """Whether a user's initrd has an /init. Raises UserError."""
    return _initrd(path)[1]


def _initrd(path: Path) -> tuple[bytes, bool]:
    data = read_given(path, LARGEST_INITRD, "--initrd")
    if not data:
        raise UserError(f"{path}: is empty (--initrd)")
    from bootproof.loader import cpio, initramfs

    digest = hashlib.sha256(data).digest()
    if digest not in _SOUND_ARCHIVES:  # a matrix reads the same one for each case
        try:
            _SOUND_ARCHIVES[digest] = cpio.check(data, str(path), initramfs.OURS)
        except LoaderError as error:
            raise UserError(f"{error} (--initrd)") from error
    return data, _SOUND_ARCHIVES[digest]


LARGEST_INITRD: Final = 1 << 30  # bytes; it is read whole, and has to fit into a guest's RAM
_SOUND_ARCHIVES: Final[dict[bytes, bool]] = {}  # and whether each has an /init


def read_dtb(path: Path) -> bytes:
    """A user's device tree. Raises UserError."""
    data = read_given(path, _MOST_DTB, "--dtb")
    from bootproof.loader.device_tree import DeviceTree

    try:
        DeviceTree.parse(data)
    except LoaderError as error:
        raise UserError(f"{path}: {error} (--dtb)") from error
    return data


_MOST_DTB: Final = 2 << 20  # booting.rst of arm64: what kernels map of one


@content.known
def contained(kernel: KernelFile) -> tuple[Format, str | None]:
    """The format of the kernel in a file, packed or not, and its architecture, where it says so.

    Raises LoaderError when there is none.
    """
    with kernel.open() as source:
        found = identify(source)
        if found.format.loadable:
            return found.format, found.arch
        from bootproof.loader.unpack import unpack_fully

        inner = unpack_fully(source)
    return inner.format, inner.arch


@content.known
def in_format(kernel: KernelFile, format_: str) -> KernelFile:
    """`kernel` as "elf", "bzimage" or "image"; unpacked when it is packed.

    Raises LoaderError when it cannot be unpacked, UserError when something else comes out.
    """
    outer = _format(kernel)
    steps = 0
    while outer.value != format_:
        steps += 1
        if outer is Format.UNKNOWN or steps > 3:
            raise UserError(f"{kernel.name}: no {format_} kernel in it (it is: {outer})")
        kernel = derive(kernel, f"{outer}-{steps}", functools.partial(_unpack, kernel))
        outer = _format(kernel)
    return kernel


def running(kernel: KernelFile, format_: str) -> KernelFile:
    """A kernel as it is once it runs: out of its bzImage, if a case's format leaves it in one.

    Raises as `in_format`.
    """
    image = kernel if format_ == "file" else in_format(kernel, format_)
    return in_format(kernel, "elf") if _format(image) is Format.BZIMAGE else image


@content.known
def releases(kernel: KernelFile, format_: str) -> tuple[str, ...]:
    """What `uname -r` may say in the guest, likeliest first; empty when the file does not tell.

    A bzImage says it in its header. Raises as `in_format`.
    """
    for file in (kernel, kernel if format_ == "file" else in_format(kernel, format_)):
        with file.open() as image:
            found = identify(image)
        if found.release:
            return (found.release,)
        if found.format in (Format.ELF, Format.IMAGE):
            return tuple(searched(file, "releases", (banner, ikconfig), _releases))
    return ()


def _releases(kernel: memoryview) -> list[str]:
    return [*dict.fromkeys(banner.banner_releases(kernel))]


@content.known
def page_size(kernel: KernelFile) -> str | None:
    """The size of the kernel's pages, "16K", where its header says one."""
    with kernel.open() as image:
        return imageheader.page_size(image.data)


@content.known
def symbols_of(kernel: KernelFile) -> Symbols | None:
    """The names in an ELF kernel or an Image; None where there are none. Raises LoaderError."""
    from bootproof.harness.inputs import symbols  # for boots that fail

    return symbols.read(kernel.content.path)


@content.known
def variant(kernel: KernelFile, name: str) -> KernelFile:
    """A changed copy of `kernel`: see bootproof.harness.inputs.variants."""
    from bootproof.harness.inputs.variants import VARIANTS

    change = VARIANTS[name]

    def write(path: Path) -> None:
        path.write_bytes(change(kernel.read()))

    return derive(kernel, f"{_format(kernel)}-{name}", write)


def _format(kernel: KernelFile) -> Format:
    return identify(kernel.content.path).format


def _unpack(packed: KernelFile, target: Path) -> None:
    from bootproof.loader.unpack import unpack_to  # most are in the cache

    with packed.open() as image:
        unpack_to(image, target)


def derive(kernel: KernelFile, what: str, write: Callable[[Path], None]) -> KernelFile:
    """What is made of a kernel, out of the cache if it is there and as it was made."""
    made, held = derived.kept(kernel.sha256, what, write)
    return KernelFile(kernel.name, made.path, kernel.sha256, held)


def searched(
    kernel: KernelFile, what: str, by: Sequence[ModuleType], search: Callable[[memoryview], Any]
) -> Any:
    """What a search of all of a kernel finds, as JSON has it: that takes longer than the rest of a
    refusal. What the same code, `by`, finds in a file with this hash stays the same. Where the
    cache cannot be used, nothing is kept.
    """

    def write(path: Path) -> None:
        with kernel.open() as image:
            path.write_text(json.dumps(search(image.data)), "utf-8")

    asked = hashlib.sha256(what.encode())
    try:
        for module in by:
            asked.update(Path(str(module.__file__)).read_bytes())
        made = derive(kernel, f"{_format(kernel)}-{asked.hexdigest()}", write)
        return json.loads(made.content.path.read_text("utf-8"))
    except (FetchError, OSError, ValueError):
        with kernel.open() as image:
            return search(image.data)
