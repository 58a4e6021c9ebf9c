"""What a kernel must have so that a guest can prove anything, and what one lacks. Pure.

Owns the list and the evidence for it: the configuration inside the kernel where it has one, else
texts that the kernel's own code cannot be without. Only an absence is ever claimed: a kernel that
has them all may still fail to boot.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

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


def lacking(kernel: memoryview, needs: tuple[Need, ...]) -> Iterator[str]:
    """Each need that an uncompressed kernel does not meet, in words, with the evidence."""
    config = embedded_config(kernel)
    for need in needs:
        if config is not None:
            value = config.get(need.option, "n")
            if value != "y":
                found = "is a module" if value == "m" else "is not set"
                yield f"{need.what}: {need.option} {found}, its own configuration says"
        elif need.text is not None and next(find(kernel, need.text), None) is None:
            yield f"{need.what}: nothing of {need.option} is in it"
