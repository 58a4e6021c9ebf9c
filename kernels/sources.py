"""A kernel by whatever names it: a file, a package, a build directory, a URL, a catalogue name.

NAME=PATH, and NAME= before any of these, gives it a name that stays when the file's changes.

Owns telling these apart, and what has to be written for it: a file out of a package and a download
are kept in the cache under their hash, whole or not at all. Must not know what a kernel looks like
inside, nor the harness. A name of the catalogue is only recognised here: fetching has its own room.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urldefrag, urlsplit

from bootproof.dataclass import dataclass
from bootproof.kernels import content, given, magic
from bootproof.kernels.cache import Cache, CachedFile, default_cache_dir
from bootproof.kernels.catalog import Kind, load_catalog
from bootproof.kernels.content import Content
from bootproof.kernels.errors import BadSource, FetchError
from bootproof.kernels.progress import Progress, console_progress
from bootproof.printable import shown_url

if TYPE_CHECKING:
    from bootproof.kernels.download import RetryPolicy
    from bootproof.kernels.unpacking import Member

    Members = Callable[[Path], Iterator[Member]]

MOST_DOWNLOADED: Final = 1 << 30  # bytes; packages with debug symbols are larger, and no kernels

# What a build leaves behind. Of each group the first that there is: the others are made from it.
_BUILT: Final = (
    ("arch/x86/boot/bzImage",),
    ("arch/arm64/boot/Image", "arch/arm64/boot/Image.gz", "arch/arm64/boot/vmlinuz.efi"),
    ("arch/riscv/boot/Image", "arch/riscv/boot/Image.gz", "arch/riscv/boot/vmlinuz.efi"),
    ("vmlinux",),
)
# What kernels are called in other directories: /boot, an unpacked package, the packages of a build.
_LYING: Final = (
    "vmlinu[xz]*",
    "boot/vmlinu[xz]*",
    "bzImage*",
    "Image*",
    "linux-image-*.deb",
    "*.rpm",
)
_NAMED: Final = re.compile(r"([A-Za-z0-9.+_-]{1,80})=(.+)", re.DOTALL)
_ONE_BUILD: Final = 60.0  # seconds that lie between the files of one, at most
_URL: Final = re.compile(r"https?://", re.IGNORECASE)
_DIGEST: Final = re.compile(r"sha256=([0-9a-fA-F]{64})")
_KERNEL: Final = "kernel"  # what the file out of a package is called in the cache
_DOWNLOAD: Final = "download"


@dataclass(frozen=True, slots=True)
class Source:
    """A kernel that was found."""

    # Short, for ids.
    name: str
    # How it is called to the user: as the user wrote it, but never a name of the catalogue when it
    # is a file, and without what is secret in a URL.
    shown: str
    # None for a name of the catalogue.
    path: Path | None
    # What the user might not expect of what was taken.
    remark: str = ""
    # What is in it, or in the package; None for a name of the catalogue.
    content: Content | None = field(default=None, compare=False, repr=False)
    # Whether the user gave it this name, as NAME=PATH: it stays when the file's changes.
    named: bool = False
    # The build directory, or the package and what reads it, that the kernel was found in.
    build: Path | None = None
    package: tuple[Content, Members] | None = field(default=None, compare=False, repr=False)

    @property
    def is_file(self) -> bool:
        """Whether `shown` is the kernel's own file: not one of the catalogue, nor packed in one."""
        return self.path == Path(self.shown)


def name_of_url(what: str) -> str | None:
    """A short name for what a URL leads to; None for what is no URL. Raises `FetchError`."""
    return _address(what)[2] if _URL.match(what) else None


def given_name(what: str) -> tuple[str, str] | None:
    """The name, and what it is given to, of NAME=PATH, where there is no such file."""
    match = _NAMED.fullmatch(what)
    if match is None or Path(what).exists():
        return None
    return match[1], match[2]


def in_catalogue(name: str) -> Source | None:
    """The kernel of the catalogue that is called so; a path is no such name."""
    if "/" in name:
        return None
    catalog = load_catalog()
    known = name in catalog and catalog[name].kind is not Kind.BUSYBOX
    return Source(name, name, None) if known else None


def look_up(what: str) -> None:
    """Raises `FetchError` for what leads nowhere: `find` would, but it gets what is there, too."""
    if named := given_name(what):
        what = named[1]
    if _URL.match(what):
        _address(what)
    elif Path(what).exists() or in_catalogue(what) is None:
        path, _ = _located(what)
        try:
            with given.opened(path):
                pass
        except OSError as error:
            raise BadSource(f"{what}: {error.strerror}") from error


def find(what: str, progress: Progress | None = None, retry: RetryPolicy | None = None) -> Source:
    """The kernel that `what` names; what is a file here is taken before the catalogue's.

    Raises `FetchError`.
    """
    if named := given_name(what):
        return _given(*named, progress, retry)
    if _URL.match(what):
        return _download(what, progress or console_progress(), retry)
    known = in_catalogue(what)
    if known is not None and not Path(what).exists():
        return known
    path, build = _located(what)
    what = str(path) if build else what
    as_written = what if known is None else f"./{what}"
    found = _opened(path, content.of_file(path, what), path.name, as_written)
    found = replace(found, build=build)
    if known is None:
        return found
    remark = f"{what}: the file is taken, not the kernel of that name in the catalogue"
    return replace(found, remark=remark)


def _located(what: str) -> tuple[Path, Path | None]:
    """A file that is there, and the build directory that it is in where the user named that."""
    if not what:
        raise BadSource("a kernel's name is empty")
    path, build = Path(what), None
    try:
        if path.is_dir():
            build, path = path, built(path)
            what = str(path)
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise BadSource(_no_such(what)) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no file can have this name"
        raise BadSource(f"{what}: {reason}") from error
    return path, build


def _given(name: str, what: str, progress: Progress | None, retry: RetryPolicy | None) -> Source:
    """A kernel with a name of the user's."""
    source = find(what, progress, retry)
    if source.path is None:
        raise BadSource(f"{name}={what}: a kernel of the catalogue has its own name")
    return replace(source, name=name, shown=f"{name}={source.shown}", named=True)


def _no_such(what: str) -> str:
    if "/" in what:
        return f"{what}: no such file"
    try:
        load_catalog()[what]
    except FetchError as error:
        return f"{what}: no such file, and {error}"
    return f"{what}: no such file, and in the catalogue it is no kernel"


def built(directory: Path) -> Path:
    """The kernel in a build directory: the newest of those that it holds, and of those that are of
    one build the one that is named first here. Raises `BadSource`.
    """
    groups = (next((f for f in map(directory.joinpath, g) if f.is_file()), None) for g in _BUILT)
    found = [file for file in groups if file is not None]
    if not found:
        names = ", ".join(name for group in _BUILT for name in group)
        lying = (file for pattern in _LYING for file in sorted(directory.glob(pattern)))
        like = next((f", like {file}" for file in lying if file.is_file()), "")
        raise BadSource(f"{directory}: is a directory without {names}; name the kernel{like}")
    newest = max(file.stat().st_mtime for file in found)
    return next(file for file in found if newest - file.stat().st_mtime < _ONE_BUILD)


def _opened(path: Path, whole: Content, name: str, as_written: str) -> Source:
    """A kernel file as it is, or the one in a package."""
    members = members_of(whole.path)
    if members is None:
        return Source(name, as_written, path, content=whole)
    kernel = _out_of_package(whole, members, as_written)
    inner = content.of_cached(kernel)
    package = (whole, members)
    return Source(_stem(name), as_written, kernel.path, content=inner, package=package)


def members_of(path: Path) -> Members | None:
    """What reads the members of a package; None for a file that is none. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(len(magic.DEB))
    if not head.startswith((magic.DEB, magic.RPM)):
        return None
    from bootproof.kernels import deb, rpm  # few kernels come in packages

    return deb.members if head.startswith(magic.DEB) else rpm.members


def _plain(name: str) -> str:
    """The name of a downloaded file as a part of ids; it came over a network."""
    return re.sub(r"[^A-Za-z0-9.+_-]", "_", name).strip(".") or _KERNEL


def _stem(name: str) -> str:
    """linux-image-6.1.0-amd64 of linux-image-6.1.0-amd64_6.1.4_amd64.deb."""
    return re.sub(r"\.(deb|rpm)$", "", name).partition("_")[0] or _KERNEL


def _out_of_package(package: Content, members: Members, as_written: str) -> CachedFile:
    from bootproof.kernels import unpacking

    def write(target: Path) -> None:
        unpacking.take_kernel(members(package.path), target)

    try:
        return Cache(default_cache_dir()).file(package.sha256, _KERNEL, write)
    except FetchError as error:
        raise BadSource(f"{as_written}: {error}") from error
    except OSError as error:
        raise BadSource(f"{as_written}: {error.strerror}") from error


def _address(what: str) -> tuple[str, str, str]:
    """The URL, the hash of the file and a name for it."""
    url, fragment = urldefrag(what)
    digest = _DIGEST.fullmatch(fragment)
    if digest is None:
        raise BadSource(
            f"{shown_url(url)}: a URL needs its file's hash, as {shown_url(url)}#sha256=… with 64"
            " hexadecimal digits (sha256sum prints them)"
        )
    return url, digest[1].lower(), _plain(unquote(urlsplit(url).path).rpartition("/")[2])


def _download(what: str, progress: Progress, retry: RetryPolicy | None) -> Source:
    """A file by URL, whose hash the user must name: what comes over a network is trusted by it."""
    url, sha256, name = _address(what)
    from bootproof.kernels.download import Downloader, RetryPolicy  # not for what is refused

    advice = "check the address and the network"
    downloader = Downloader(progress, retry or RetryPolicy(), advice=advice)

    def write(target: Path) -> None:
        downloader.save_hashed(url, target, sha256, MOST_DOWNLOADED)

    with contextlib.closing(downloader):
        file = Cache(default_cache_dir()).file(sha256, _DOWNLOAD, write)
    return _opened(file.path, content.of_cached(file), name, shown_url(url))
