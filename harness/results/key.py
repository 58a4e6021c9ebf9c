"""What two runs must have in common before their transcripts and instruction counts are compared.

Two parts: the surroundings of the guest, which must be equal or comparing means nothing, and the
digest of the boot image. Where both are equal, the runs must be identical.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.harness.typedjson import about

BOOT_IMAGE: Final = "boot_image"


@dataclass(frozen=True, slots=True)
class Key:
    """The surroundings of a run, and the digest of its boot image."""

    qemu: str = about("what QEMU says about its build")
    machine: str = about("QEMU's machine type")
    cpu: str = about("QEMU's CPU model")
    memory: int = about("bytes of guest RAM")
    cpus: int = about("number of CPUs")
    icount_shift: int | None = about("one instruction is 2^n ns of guest time; null: real time")
    probe: bool = about("whether the guest was stopped at its first instruction and looked at")
    console: str = about("file; of guests that somebody talked to: terminal, dialogue")
    profile: str | None = about("of the kernel command line; null: an own one")
    boot_image: str | None = about("SHA-256 over registers and RAM at the start; null: not known")

    def other_surroundings(self, other: Key) -> Iterator[str]:
        """What forbids comparing with `other`, in words: `CPU model: qemu64 / max`."""
        for item in fields(self):
            ours, theirs = getattr(self, item.name), getattr(other, item.name)
            if item.name != BOOT_IMAGE and ours != theirs:
                yield f"{_NAMES.get(item.name, item.name)}: {theirs} then, {ours} now"

    def same_boot_image(self, other: Key) -> bool:
        return self.boot_image is not None and self.boot_image == other.boot_image


_NAMES: Final = {
    "qemu": "QEMU",
    "cpu": "CPU model",
    "cpus": "CPUs",
    "icount_shift": "icount shift",
    "profile": "command-line profile",
}
