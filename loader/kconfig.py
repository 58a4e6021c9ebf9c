"""What a kernel must have so that a guest can prove anything, and what one lacks. Pure.

Owns the list and the evidence for it: the configuration inside the kernel where it has one, else
texts that the kernel's own code cannot be without. Only an absence is ever claimed: a kernel that
has them all may still fail to boot.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.loader.banner import is_linux
from bootproof.loader.ikconfig import embedded_config, find


@dataclass(frozen=True, slots=True)
class Need:
    """A part of Linux: the option that builds it in, a text that is in every kernel that has it
    (None: there is no such text), and what the guest needs it for.
    """

    option: str
    text: bytes | None
    what: str


# init/initramfs.c, which says it whatever else is built in ("rootfs image" it says with
# CONFIG_BLK_DEV_RAM only), fs/proc/loadavg.c; the others are only known from a configuration.
COMMON: Final = (
    Need("CONFIG_BLK_DEV_INITRD", b"no cpio magic", "an initramfs, which holds the proof's init"),
    Need("CONFIG_PROC_FS", b"loadavg", "procfs, where the guest reads its own address"),
    Need("CONFIG_PROC_SYSCTL", None, "/proc/sys, where the guest reads what booted it"),
    Need("CONFIG_BINFMT_ELF", None, "ELF programs, which busybox is"),
    Need("CONFIG_BINFMT_SCRIPT", None, "scripts, which the proof's init is"),
)


@dataclass(frozen=True, slots=True)
class Built:
    """What the bytes of an uncompressed kernel show of how it was built, whoever asks."""

    # Whether it has Linux's banner.
    linux: bool
    # Of the options that were asked for, those that its own configuration sets; None without one.
    config: Mapping[str, str] | None
    # Of the texts that were looked for, those that are in it; none where a configuration tells.
    texts: frozenset[bytes]


def look(kernel: memoryview, needs: tuple[Need, ...]) -> Built:
    """What tells which of these needs an uncompressed kernel meets: all of it is searched."""
    config = embedded_config(kernel)
    if config is not None:
        asked = {need.option: config[need.option] for need in needs if need.option in config}
        return Built(is_linux(kernel), asked, frozenset())
    texts = {need.text for need in needs if need.text is not None}
    inside = frozenset(text for text in texts if next(find(kernel, text), None) is not None)
    return Built(is_linux(kernel), None, inside)


def lacking(built: Built, needs: tuple[Need, ...]) -> Iterator[str]:
    """Each need that a kernel does not meet, in words, with the evidence."""
    for need in needs:
        if built.config is not None:
            value = built.config.get(need.option, "n")
            if value != "y":
                found = "is a module" if value == "m" else "is not set"
                yield f"{need.what}: {need.option} {found}, its own configuration says"
        elif need.text is not None and need.text not in built.texts:
            yield f"{need.what}: nothing of {need.option} is in it"
