"""What a kernel's log says of the initrd, when the kernel then found no init. Pure.

Sources: init/initramfs.c (do_populate_rootfs, reserve_initrd_mem), init/main.c, reserve_initrd() of
arch/x86/kernel/setup.c. On arm64 the kernel does not log where its initrd is.
"""

from __future__ import annotations

import re
from typing import Final

from bootproof.harness.guest import kernellog
from bootproof.harness.text import printable

_NO_ROOT: Final = (
    "VFS: Unable to mount root fs",
    "VFS: Cannot open root device",
    "No working init found",
    "Requested init ",
)
_BEGIN: Final = rb"^(?:" + kernellog.STAMP + rb")?"
_RANGE: Final = re.compile(
    _BEGIN + rb"RAMDISK: \[mem (0x[0-9a-f]{1,16})-(0x[0-9a-f]{1,16})\]", re.MULTILINE
)
_REFUSED: Final = re.compile(
    _BEGIN
    + rb"((?:Initramfs unpacking failed: |rootfs image is not initramfs )[^\r\n]{0,200}"
    + rb"|(?:INITRD: |initrd )[^\r\n]{0,120}? disabling (?:initrd|it)"
    + rb"|initrd not fully accessible [^\r\n]{0,80})",
    re.MULTILINE,
)
_UNPACKS: Final = re.compile(
    _BEGIN + rb"(?:Trying to unpack rootfs image as initramfs|Unpacking initramfs)", re.MULTILINE
)
_FREED: Final = re.compile(_BEGIN + rb"Freeing initrd memory: (\d{1,12}K)", re.MULTILINE)
_NO_ACCESS: Final = re.compile(
    _BEGIN + rb"(check access for rdinit=[^\r\n]{0,200}?), ignoring", re.MULTILINE
)
_TALKATIVE: Final = re.compile(_BEGIN + rb"Memory: \d{1,15}K/\d{1,15}K available", re.MULTILINE)


def explanation(end: str, text: bytes) -> str | None:
    """Why a kernel whose panic says `end` has no init, as far as its log says; None otherwise."""
    if not end.startswith(_NO_ROOT):
        return None
    refused = refusal(text)
    if refused is not None:
        return refused
    text = kernellog.without_echoes(text)
    where, place = _RANGE.search(text), _place(text)
    if _UNPACKS.search(text):
        return _unpacked(text, place)
    if where:
        return f"the kernel logged its initrd{place}, but not that it unpacked it"
    if _TALKATIVE.search(text):
        return "the kernel logged no initrd: it was given none, or not where it looks for one"
    return None


def refusal(text: bytes) -> str | None:
    """What the kernel says is wrong with its initrd, and where it saw it; None for nothing."""
    text = kernellog.without_echoes(text)
    refused, place = _REFUSED.search(text), _place(text)
    if refused is None:
        return None
    return f"{printable(refused[1])}{f' (the initrd{place})' if place else ''}"


def _place(text: bytes) -> str:
    where = _RANGE.search(text)
    return f" at {where[1].decode()}-{where[2].decode()}" if where else ""


def _unpacked(text: bytes, place: str) -> str:
    freed = _FREED.search(text)
    size = f" of {freed[1].decode()}" if freed else ""
    access = _NO_ACCESS.search(text)
    why = f" ({printable(access[1])})" if access else ""
    return f"the initrd{size}{place} was unpacked, but no init in it was run{why}"
