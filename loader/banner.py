"""Linux's banner in an uncompressed kernel: that it is one, and which release. Pure.

Source: init/version.c, linux_banner.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final

from bootproof.loader.ikconfig import find

_BANNER: Final = b"Linux version "
_RELEASE: Final = re.compile(rb"\d[!-~]{0,127}")
_SEARCHED: Final = 256 << 20
_TRIES: Final = 1000


def is_linux(kernel: memoryview) -> bool:
    """Whether an uncompressed kernel has Linux's banner in it."""
    return next(find(kernel, _BANNER), None) is not None


def banner_release(data: memoryview) -> str | None:
    """The kernel release in the banner "Linux version 6.1.0 …" of an uncompressed kernel."""
    return next(banner_releases(data), None)


def banner_releases(data: memoryview) -> Iterator[str]:
    """What may be one: another kernel's banner may lie in a kernel as data.

    Only the first 256 MiB are searched.
    """
    searched = data[:_SEARCHED]
    for at in islice(find(searched, _BANNER), _TRIES):
        if release := _RELEASE.match(searched, at + len(_BANNER)):
            yield release[0].decode("ascii")
