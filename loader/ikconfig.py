"""The configuration that a kernel may carry inside itself (CONFIG_IKCONFIG).

Owns finding and reading it, within bounds. Must not know which options matter to whom.

Source: kernel/configs.c: "IKCFG_ST", the .config as gzip made it, "IKCFG_ED".
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Final

START: Final = b"IKCFG_ST"
_GZIP: Final = b"\x1f\x8b\x08"
_GZIP_WINDOW: Final = 31  # zlib: the largest window, and a gzip header
_MOST: Final = 4 << 20  # bytes of text; Debian's largest is 290 KiB
_TRIES: Final = 16
_OPTION: Final = re.compile(rb"^(CONFIG_\w+)=(.+)$", re.MULTILINE)


def embedded_config(kernel: memoryview) -> Mapping[str, str] | None:
    """The options that are set, as {"CONFIG_X": "y"}, of an uncompressed kernel; None without."""
    for number, at in enumerate(find(kernel, START + _GZIP)):
        if number == _TRIES:
            break
        text = _gunzip(kernel[at + len(START) :][:_MOST])
        if text is not None:
            return {name.decode(): value.decode("ascii", "replace") for name, value in text}
    return None


def find(data: memoryview, wanted: bytes) -> Iterator[int]:
    """Where `wanted` begins in `data`, without a copy of it. Matches do not overlap."""
    return (match.start() for match in re.finditer(re.escape(wanted), data))


def _gunzip(packed: memoryview) -> list[tuple[bytes, bytes]] | None:
    stream = zlib.decompressobj(_GZIP_WINDOW)
    try:
        text = stream.decompress(packed, _MOST)
    except zlib.error:
        return None
    return _OPTION.findall(text) if stream.eof else None
