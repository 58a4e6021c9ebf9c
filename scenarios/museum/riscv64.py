"""Exhibits of the boot protocol of riscv64 Linux."""

from __future__ import annotations

import struct
from typing import Final

from bootproof.loader.address import GIB, MIB
from bootproof.loader.arch.riscv64 import RiscvRegisters
from bootproof.scenarios.museum import Exhibit
from bootproof.scenarios.museum.arm64 import put, without
from bootproof.scenarios.museum.scene import FOOTPRINT, Change, Scene, Setting

BASE: Final = 2 * GIB
KERNEL: Final = BASE + 16 * MIB
RISCV64: Final = Setting("riscv64", banks=((BASE, 64 * MIB),))
TWO: Final = Setting("riscv64", banks=((BASE, 64 * MIB),), cpus=2)
HALTS: Final = (0x10500073, 0xFFDFF06F)
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


def enters(scene: Scene, hart: int) -> RiscvRegisters:
    """The state of another hart at the kernel's first instruction, instead of the last one."""
    scene.more_cpus.clear()
    first: RiscvRegisters = scene.registers
    return first.with_x(x10=hart)


def draws_lots(scene: Scene) -> None:
    """A kernel that lets all harts in (CONFIG_RISCV_BOOT_SPINWAIT), and both are there."""
    scene.write(KERNEL + 0x40, struct.pack("<3I", 0x00C6A6AF, *HALTS))  # amoadd.w a3, a2, (a3)
    scene.more_cpus.append(enters(scene, 1))


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
        "riscv-hart-without-an-isa",
        *(RISCV64, "the hart's node does not say what it can: kernels do not take it", "hart-isa"),
        without(b"cpu@0", b"riscv,isa"),
    ),
    Exhibit(
        "riscv-hart-of-rv64gc",
        *(RISCV64, "the hart's riscv,isa is short for what kernels look for in it", "hart-isa"),
        put(b"cpu@0", b"riscv,isa", b"rv64gc\0"),
    ),
    Exhibit(
        "riscv-isa-base-alone",
        *(RISCV64, "the hart has a riscv,isa-base, and no riscv,isa-extensions", "hart-isa"),
        put(b"cpu@0", b"riscv,isa-base", b"rv64i\0"),
    ),
    Exhibit(
        "riscv-hart-without-intc",
        *(RISCV64, "the hart's node has no interrupt controller in it", "hart-intc"),
        without(b"interrupt-controller", b"compatible"),
    ),
    Exhibit(
        "riscv-no-timebase",
        *(RISCV64, "/cpus does not say how fast the clock goes", "timebase"),
        without(b"cpus", b"timebase-frequency"),
    ),
    Exhibit(
        "both-harts-enter-as-one",
        *(TWO, "both harts enter a kernel that draws lots, and a0 is 0 in both", "secondary-cpu"),
        lambda s: s.more_cpus.append(enters(s, 0)),
        fixed=draws_lots,
    ),
    Exhibit(
        "both-harts-enter",
        *(TWO, "both harts are in the kernel, not the first alone", "secondary-cpu"),
        lambda s: s.more_cpus.append(s.more_cpus.pop().entered_at(KERNEL)),
        fixed=lambda s: s.more_cpus.append(RiscvRegisters(BASE)),
    ),
)
