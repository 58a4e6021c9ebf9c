"""A row of kernel images in the order of their age, as a user names them for a bisection.

What is named is taken in the order in which it is named; what a directory holds in the order of the
versions in its names. Nothing is booted, and nothing is judged but whether it may hold a kernel.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from bootproof.harness.errors import UsageError
from bootproof.kernels import sources
from bootproof.kernels.errors import FetchError
from bootproof.loader.errors import LoaderError
from bootproof.loader.formats import Format
from bootproof.loader.identify import identify
from bootproof.loader.image import open_image

# The packages of distributions that hold a kernel: their others are headers, symbols and sources.
_KERNEL_PACKAGE: Final = re.compile(
    r"(?:linux-(?:image|binary)-(?!.*-dbg(?:sym)?_)|kernel-(?:core-|default-)?[0-9]).*\.(?:deb|rpm)"
)
_PACKAGE: Final = re.compile(r"\.(?:deb|rpm)$")
_INITRDS: Final = ("initrd", "initramfs")  # beside the kernels in /boot, and compressed as they are
_SUFFIX: Final = re.compile(r"(?:_[^_]*)?\.(?:deb|rpm)$|\.(?:efi|gz|zst|xz|bin|img)$")


def expanded(names: Iterable[str]) -> list[str]:
    """All the images, each as any command takes it. Raises UsageError for an empty directory."""
    return [image for name in names for image in _images(name)]


def _images(name: str) -> list[str]:
    directory = Path(name)
    if not name or not directory.is_dir() or _is_build(directory):
        return [name]
    try:
        found = [str(path) for path in directory.iterdir() if _may_hold_kernel(path)]
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}") from error
    if not found:
        raise UsageError(f"{name}: holds no kernel, package or build directory")
    return sorted(found, key=lambda image: version_order(Path(image).name))


def _may_hold_kernel(path: Path) -> bool:
    if path.is_dir():
        return _is_build(path)
    if _PACKAGE.search(path.name):
        return _KERNEL_PACKAGE.fullmatch(path.name) is not None
    if path.name.startswith(_INITRDS):
        return False
    try:
        with open_image(path) as image:
            return identify(image).format is not Format.UNKNOWN
    except (LoaderError, OSError):
        return False


def _is_build(directory: Path) -> bool:
    try:
        sources.built(directory)
    except (FetchError, OSError):
        return False
    return True


def version_order(name: str) -> tuple[tuple[int, int, str], ...]:
    """What sorts names by the versions in them: 6.9 before 6.10, 6.12-rc3 before 6.12.

    As dpkg has it: `~` comes before the end of a name, and numbers are compared as numbers.
    """
    name = re.sub(r"[-.]rc(?=\d)", "~rc", _SUFFIX.sub("", name))
    return (*map(_token, re.findall(r"~|[0-9]+|[^~0-9]+", name)), _END)


_END: Final = (0, 0, "")


def _token(token: str) -> tuple[int, int, str]:
    if token == "~":
        return -1, 0, ""
    return (2, int(token), "") if token.isdecimal() else (1, 0, token)
