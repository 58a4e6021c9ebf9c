"""Changed copies of a kernel, for cases whose point is the change. Pure: bytes in, bytes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from bootproof.loader.imageheader import ImageHeader
from bootproof.loader.pe import OLD_TEXT_OFFSET

_XEN_NOTE_NAME = b"Xen\0"
_NT_PHYS32_ENTRY = 18


def without_pvh_note(kernel: bytes) -> bytes:
    """An ELF kernel whose PVH entry notes are somebody else's: "Xen" becomes "Nex".

    A note is its name's size, its descriptor's size, its type and the name (ELF, "Note Section").
    """
    changed = bytearray(kernel)
    at = changed.find(_XEN_NOTE_NAME)
    while at >= 0:
        header = at - 12
        if (
            header >= 0
            and int.from_bytes(changed[header : header + 4], "little") == len(_XEN_NOTE_NAME)
            and int.from_bytes(changed[at - 4 : at], "little") == _NT_PHYS32_ENTRY
        ):
            changed[at : at + 4] = b"Nex\0"
        at = changed.find(_XEN_NOTE_NAME, at + 4)
    if changed == kernel:
        raise ValueError("the kernel has no PVH entry note to rename")
    return bytes(changed)


def truncated(kernel: bytes) -> bytes:
    """The first half of a kernel, as a broken download leaves it."""
    return kernel[: len(kernel) // 2]


def no_kernel(kernel: bytes) -> bytes:
    """As many bytes, none of which is a kernel's."""
    return b"this is no kernel\n" * (len(kernel) // 18)


def text_offset_0(kernel: bytes) -> bytes:
    """An Image that says that it is to run at its base itself."""
    return _with_header(kernel, text_offset=0)


def old_header(kernel: bytes) -> bytes:
    """An Image whose header is that of arm64 before Linux 3.17: it does not tell its size."""
    return _with_header(kernel, text_offset=OLD_TEXT_OFFSET, image_size=0)


def _with_header(kernel: bytes, **fields: int) -> bytes:
    header = replace(ImageHeader.from_bytes(kernel), **fields)
    return header.to_bytes() + kernel[ImageHeader.SIZE :]


VARIANTS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "no-pvh-note": without_pvh_note,
    "truncated": truncated,
    "no-kernel": no_kernel,
    "text-offset-0": text_offset_0,
    "old-header": old_header,
}
