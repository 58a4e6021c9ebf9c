"""Exhibits of the x86/HVM direct boot ABI (PVH)."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Final

from bootproof.loader.address import GIB, MIB
from bootproof.loader.arch.x86_64 import TR_AT_RESET
from bootproof.scenarios.museum import Exhibit
from bootproof.scenarios.museum.machine import LOW, RIGHT
from bootproof.scenarios.museum.scene import SPLIT, Change, Scene, Setting

PVH: Final = Setting("pvh")
MAX: Final = Setting("pvh", cpu="max")
SPLIT_PVH: Final = Setting("pvh", banks=SPLIT, board="q35")
KERNEL: Final = 16 * MIB


def memory_map(*rows: tuple[int, int, int]) -> Change:
    """A memory map behind the others' place, and start_info leads to it."""

    def change(scene: Scene) -> None:
        data = b"".join(struct.pack("<QQII", *row, 0) for row in rows)
        scene.write(0x30000, data)
        scene.regions.pop("memmap", None)
        scene.start_info(memmap_paddr=0x30000, memmap_entries=len(rows))

    return change


def all_into_bss(scene: Scene) -> None:
    """start_info and what it leads to, where the kernel clears memory first."""
    to = KERNEL + 2 * MIB
    info = scene.info
    moves = {"memmap_paddr": "memmap", "modlist_paddr": "modlist", "cmdline_paddr": "cmdline"}
    for number, name in enumerate(moves.values()):
        scene.move(name, to + 0x100 * number + 0x100)
    places = {field: scene.regions[name].start for field, name in moves.items()}
    scene.move("start_info", to)
    scene.change(rbx=to)
    assert info.nr_modules
    scene.start_info(**places)


def module_above_4_gib(scene: Scene) -> None:
    scene.move("initrd", 0x13F000000)
    scene.module(paddr=0x13F000000)


def without(name: str) -> Change:
    """boot.json says nothing of a piece."""

    def change(scene: Scene) -> None:
        scene.regions.pop(name)

    return change


def long_cmdline(scene: Scene) -> None:
    scene.write(0x40000, b"x" * 3000)
    scene.start_info(cmdline_paddr=0x40000)


def modlist_in_initrd(scene: Scene) -> None:
    scene.move("modlist", scene.regions["initrd"].start + 0x1000)
    scene.start_info(modlist_paddr=scene.regions["modlist"].start)


def memory_map_at(address: int) -> Change:
    def change(scene: Scene) -> None:
        scene.move("memmap", address)
        scene.start_info(memmap_paddr=address)

    return change


EXHIBITS: Final = (
    Exhibit(
        "pvh-no-task-register",
        *(PVH, "TR is as after reset, no TSS with limit 0x67: so QEMU's own -kernel leaves it"),
        "task-register",
        lambda s: s.change(tr=TR_AT_RESET),
        tolerated=True,
    ),
    Exhibit(
        "pvh-real-mode",
        *(PVH, "the CPU is in real mode", "protected-mode"),
        lambda s: s.change(cr0=0x10),
    ),
    Exhibit(
        "pvh-64-bit-code-segment",
        *(PVH, "the state of the 64-bit entry for a kernel that is entered through PVH"),
        "cs-32-bit",
        lambda s: s.change(cs=replace(s.registers.cs, attributes=0xA09B)),
    ),
    Exhibit(
        "pvh-caches-off",
        *(PVH, "CR0 is as after reset, and PE: caches are off", "cr0-bits"),
        lambda s: s.change(cr0=0x60000011),
        tolerated=True,
    ),
    Exhibit(
        "pvh-start-info-of-version-0",
        *(PVH, "start_info is of the version that has no memory map", "memmap"),
        lambda s: s.start_info(version=0),
    ),
    Exhibit(
        "pvh-start-info-of-version-2",
        *(PVH, "start_info is of a version that nobody has defined", "start-info-version"),
        lambda s: s.start_info(version=2),
        tolerated=True,
    ),
    Exhibit(
        "pvh-map-not-zeroed",
        *(PVH, "the last field of an entry of the memory map is not 0", "memmap-reserved"),
        lambda s: s.write(s.regions["memmap"].start + 20, b"\1"),
        tolerated=True,
    ),
    Exhibit(
        "pvh-map-above-1-gib",
        *(SPLIT_PVH, "the memory map lies where Linux has not mapped it yet", "above-1-gib"),
        memory_map_at(GIB),
    ),
    Exhibit(
        "pvh-start-info-not-zeroed",
        *(PVH, "the last field of hvm_start_info is not 0", "start-info-reserved"),
        lambda s: s.start_info(reserved=1),
        tolerated=True,
    ),
    Exhibit(
        "pvh-map-has-more",
        *(PVH, "the memory map's last entry says 1 GiB: the map is computed twice", "map-no-ram"),
        memory_map(*LOW, (MIB, GIB - MIB, 1)),
    ),
    Exhibit(
        "pvh-map-of-130-entries",
        *(PVH, "Linux copies the memory map into a table of 128 entries", "map-count"),
        memory_map(*RIGHT, *[(32 * MIB, 0x1000, 1)] * 127),
    ),
    Exhibit(
        "pvh-all-in-bss",
        *(PVH, "start_info and all that it leads to lie in the kernel's BSS", "overlap"),
        all_into_bss,
    ),
    Exhibit(
        "pvh-module-elsewhere",
        *(PVH, "the module's address is wrong: no initrd is there", "region"),
        lambda s: s.module(paddr=0x4000),
        "bonzini/qboot PR #28",
    ),
    Exhibit(
        "pvh-module-outside",
        *(PVH, "the module lies just behind RAM", "module"),
        lambda s: s.module(paddr=64 * MIB),
        "bonzini/qboot PR #28",
    ),
    Exhibit(
        "pvh-module-too-large",
        *(PVH, "the module's size goes beyond the end of RAM", "module"),
        lambda s: s.module(size=4 * MIB),
    ),
    Exhibit(
        "pvh-module-in-the-kernel",
        *(PVH, "the module's address is inside of the kernel", "overlap"),
        lambda s: s.module(paddr=KERNEL + MIB),
        "bonzini/qboot PR #28",
    ),
    Exhibit(
        "pvh-no-module",
        *(PVH, "an initrd was given, and the boot has no module", "not-told"),
        lambda s: s.start_info(nr_modules=0),
        "cloud-hypervisor #963",
        tolerated=True,
    ),
    Exhibit(
        "pvh-module-above-4-gib",
        SPLIT_PVH,
        "Linux keeps the lower 32 bits of the module's address only",
        "above-4-gib",
        module_above_4_gib,
    ),
    Exhibit(
        "pvh-module-cmdline",
        *(PVH, "the module's command line is not in RAM", "cmdline"),
        lambda s: s.module(cmdline_paddr=2 * GIB),
    ),
    Exhibit(
        "pvh-empty-module",
        *(PVH, "the module has no bytes", "module"),
        lambda s: s.module(size=0),
        fixed=without("initrd"),
        tolerated=True,
    ),
    Exhibit(
        "pvh-cmdline-too-long",
        *(PVH, "the command line is longer than Linux keeps", "cmdline-size"),
        long_cmdline,
        fixed=without("cmdline"),
    ),
    Exhibit(
        "pvh-five-level-paging",
        *(MAX, "CR4.LA57 is set for a kernel that is entered without paging", "cr4-zero"),
        lambda s: s.change(cr4=1 << 12),
    ),
    Exhibit(
        "pvh-modules-overlap",
        *(PVH, "the module list lies in the first module", "overlap"),
        modlist_in_initrd,
    ),
)
