"""Exhibits of the boot protocol of riscv64 Linux."""

from __future__ import annotations

from typing import Final

from bootproof.loader.address import GIB, MIB
from bootproof.loader.arch.riscv64 import RiscvRegisters
from bootproof.scenarios.museum import Exhibit
from bootproof.scenarios.museum.scene import FOOTPRINT, Change, Scene, Setting

BASE: Final = 2 * GIB
KERNEL: Final = BASE + 16 * MIB
RISCV64: Final = Setting("riscv64", banks=((BASE, 64 * MIB),))
TWO: Final = Setting("riscv64", banks=((BASE, 64 * MIB),), cpus=2)
HIGH: Final = Setting("riscv64", banks=((BASE, 4 * GIB),))


def initrd_at(address: int) -> Change:
    """The initrd's bytes to another place, and /chosen says so."""

    def change(scene: Scene) -> None:
        scene.move("initrd", address)
        told_initrd(scene, 8)

    return change


def told_initrd(scene: Scene, size: int) -> None:
    """Where the initrd is, each address in `size` bytes."""
    place, mask = scene.regions["initrd"], (1 << 8 * size) - 1
    start, end = ((at & mask).to_bytes(size, "big") for at in (place.start, place.end))
    scene.chosen(initrd_start=start, initrd_end=end)


EXHIBITS: Final = (
    Exhibit(
        "riscv-in-machine-mode",
        *(RISCV64, "the kernel is entered in M-mode, as a firmware is", "privilege"),
        lambda s: s.change(privilege=3),
    ),
    Exhibit(
        "riscv-mmu-on",
        *(RISCV64, "satp is not 0", "satp-zero"),
        lambda s: s.change(satp=8 << 60 | KERNEL >> 12),
    ),
    Exhibit(
        "riscv-satp-not-zeroed",
        *(RISCV64, "satp has a page's number left in it, and no mode", "satp-zero"),
        lambda s: s.change(satp=KERNEL >> 12),
    ),
    Exhibit(
        "riscv-entry-behind-the-header",
        *(RISCV64, "the header of the Image is skipped, though it begins with code", "entry"),
        lambda s: s.change(pc=KERNEL + 64),
    ),
    Exhibit(
        "riscv-initrd-in-32-bits",
        *(HIGH, "the initrd lies above 4 GiB, its addresses have 32 bits", "region"),
        lambda s: told_initrd(s, 4),
        "riscv-isa-sim PR #2301",
        fixed=initrd_at(5 * GIB),
    ),
    Exhibit(
        "riscv-initrd-in-bss",
        *(RISCV64, "the initrd begins before the end of image_size", "overlap"),
        initrd_at(KERNEL + FOOTPRINT - 0x1000),
    ),
    Exhibit(
        "riscv-another-hart",
        *(RISCV64, "a0 is a hart that the device tree does not know", "hart-in-dtb"),
        lambda s: s.change(x=(*s.registers.x[:10], 7, *s.registers.x[11:])),
    ),
    Exhibit(
        "both-harts-enter",
        *(TWO, "both harts are in the kernel, not the first alone", "secondary-cpu"),
        lambda s: s.more_cpus.append(s.more_cpus.pop().entered_at(KERNEL)),
        fixed=lambda s: s.more_cpus.append(RiscvRegisters(BASE)),
    ),
)
