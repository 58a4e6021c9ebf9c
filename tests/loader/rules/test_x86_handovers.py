"""Hand-overs of x86 as VMMs legally differ in them, and single defects: no QEMU, no kernel."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any, Final

import pytest

from bootproof.loader import conformance
from bootproof.loader.address import GIB, MIB, Range
from bootproof.loader.arch.x86_64 import DescriptorTable, Segment
from bootproof.loader.boot_parameters import reader
from bootproof.loader.memory import GuestMemory
from bootproof.scenarios.museum.linux import (
    ELF,
    PACKED,
    PACKED32,
    blob,
    cmdline,
    efi_info,
    indirect,
    initrd_at,
    setup_data,
)
from bootproof.scenarios.museum.machine import RAM, TWO, e820, mp
from bootproof.scenarios.museum.pvh import PVH, SPLIT_PVH, memory_map, module_above_4_gib
from bootproof.scenarios.museum.scene import CMDLINE, SPLIT, Change, Scene, Setting, set_up

CR0_WP, CR4_SMEP, CR4_SMAP = 1 << 16, 1 << 20, 1 << 21
NOWHERE: Final = 0xFE000000
SPLIT64: Final = Setting("linux64", packed=True, banks=SPLIT, board="q35")


def found(setting: Setting, *changes: Change) -> list[tuple[str, str]]:
    """Grade and code of what is found, each once, of a right hand-over that was changed."""
    with GuestMemory(setting.banks) as memory:
        scene = set_up(setting, memory)
        for change in changes:
            change(scene)
        said = conformance.findings(scene.image(), reader(memory))
    return list(dict.fromkeys((finding.grade.value, finding.code) for finding in said))


def header(**values: int | bytes) -> Change:
    """Fields of the zero page, or of the setup header in it."""
    return lambda scene: scene.zero_page(**values)


def registers(**values: Any) -> Change:
    return lambda scene: scene.change(**values)


def without(*names: str) -> Change:
    """boot.json says nothing of these pieces."""

    def change(scene: Scene) -> None:
        for name in names:
            scene.regions.pop(name)

    return change


def bits(register: str, more: int) -> Change:
    """A register with bits set as well."""
    return lambda scene: scene.change(**{register: getattr(scene.registers, register) | more})


def large_pages(scene: Scene) -> None:
    """Four pages of 1 GiB instead of the tables below the PDPT."""
    pages = b"".join(struct.pack("<Q", number * GIB | 0x83) for number in range(4))
    scene.write(scene.registers.cr3 + 0x1000, pages)


def small_pages(scene: Scene) -> None:
    """The kernel's first 2 MiB in pages of 4 KiB, in a table of its own."""
    table = 0x40000
    rows = (16 * MIB + number * 0x1000 | 3 for number in range(512))
    scene.write(table, struct.pack("<512Q", *rows))
    scene.write(scene.registers.cr3 + 0x2000 + 8 * 8, struct.pack("<Q", table | 3))


def read_only(scene: Scene) -> None:
    """Every page of 2 MiB, which counts where CR0.WP is set."""
    pages = struct.pack("<512Q", *(number * 2 * MIB | 0x81 for number in range(512)))
    scene.write(scene.registers.cr3 + 0x2000, pages)
    scene.change(cr0=scene.registers.cr0 & ~CR0_WP)


def read_only_cmdline(scene: Scene) -> None:
    """The first 2 MiB in pages of 4 KiB, that of the command line alone is not to be written."""
    cmdline(CMDLINE)(scene)
    rows = (number * 0x1000 | (1 if number == 0x20 else 3) for number in range(512))
    scene.write(0x40000, struct.pack("<512Q", *rows))
    scene.write(scene.registers.cr3 + 0x2000, struct.pack("<Q", 0x40000 | 3))
    scene.change(cr0=scene.registers.cr0 | CR0_WP)


def gdt_ends(limit: int) -> Change:
    return lambda s: s.change(gdtr=DescriptorTable(s.registers.gdtr.base, limit))


def entered_elsewhere(scene: Scene) -> None:
    scene.write(40 * MIB, b"\xf4" * 16)
    scene.change(rip=40 * MIB)


def cmdline_above(scene: Scene) -> None:
    scene.regions.pop("cmdline")
    scene.write(0x1A0000000, b"quiet\0")
    scene.start_info(cmdline_paddr=0x1A0000000)


def ima(address: int) -> Change:
    """A node of setup_data with what another kernel measured."""
    return setup_data((0x20000, 0, 8, struct.pack("<2Q", address, 0x1000)))


def not_executable(scene: Scene) -> None:
    """Data from 24 MiB on."""
    at = scene.registers.cr3 + 0x2000 + 8 * 12
    rows = struct.unpack("<500Q", scene.memory.read(at, 4000))
    scene.write(at, struct.pack("<500Q", *(row | 1 << 63 for row in rows)))
    bits("efer", 0x800)(scene)


def module_with_words(scene: Scene) -> None:
    scene.write(0x50000, b"its own words\0")
    scene.module(cmdline_paddr=0x50000)


def second_module(scene: Scene) -> None:
    at = 0x51000
    first = scene.memory.read(scene.info.modlist_paddr, 32)
    scene.write(at, first + struct.pack("<4Q", 0x60000, 0x1000, 0, 0))
    scene.regions["modlist"] = Range(at, 64)
    scene.start_info(nr_modules=2, modlist_paddr=at)


def many_modules(count: int) -> Change:
    """All but the first in one place, which a kernel does not look at."""

    def change(scene: Scene) -> None:
        first = scene.memory.read(scene.info.modlist_paddr, 32)
        scene.write(0x200000, first + bytes(32 * (count - 1)))
        scene.regions["modlist"] = Range(0x200000, 32 * 1024)
        scene.start_info(nr_modules=count, modlist_paddr=0x200000)

    return change


INDIRECT: Final = struct.pack("<2I3Q", 9, 0, 32, 0x30000, 0)
ROWS: Final = ((0, 0x9FC00, 1), (0x9FC00, 0x60400, 2))
MADE_UP: Final = {"version": 0, "loadflags": 0, "initrd_addr_max": 0, "kernel_alignment": 0}

LEGAL: Final[dict[str, tuple[Setting, tuple[Change, ...]]]] = {
    **{
        f"type_of_loader {kind:#x}": (PACKED, (header(type_of_loader=kind),))
        for kind in (0x10, 0x50, 0x72, 0x80, 0xB0, 0xC0, 0xD0, 0xF1)
    },
    "an extended type of loader": (
        PACKED,
        (header(type_of_loader=0xE1, ext_loader_type=2, ext_loader_ver=3),),
    ),
    "no loader, no initrd": (
        PACKED,
        (without("initrd"), header(type_of_loader=0, ramdisk_image=0, ramdisk_size=0)),
    ),
    "an initrd of no size": (PACKED, (without("initrd"), header(ramdisk_size=0))),
    "an initrd above 4 GiB": (SPLIT64, (initrd_at(0x13F000000, high=1),)),
    "a command line above 4 GiB": (SPLIT64, (cmdline(CMDLINE, 0x1A0001000, high=1),)),
    "no command line": (PACKED, (without("cmdline"), header(cmd_line_ptr=0))),
    "an empty command line": (PACKED, (cmdline(b""),)),
    "the longest command line": (ELF, (cmdline(b"x" * 2047),)),
    "what the bzImage takes": (PACKED, (header(cmdline_size=4095), cmdline(b"x" * 4000))),
    "a cmdline_size that was made up": (ELF, (header(cmdline_size=8),)),
    **{
        f"loadflags {flags:#x}": (PACKED, (header(loadflags=flags, heap_end_ptr=0xDE00),))
        for flags in (0x21, 0x41, 0x61, 0x81, 0xE1)
    },
    "xloadflags all set": (PACKED, (header(xloadflags=0x7F),)),
    "an older version than the image's": (PACKED, (header(version=0x20C),)),
    "what real mode needs": (
        PACKED,
        (
            header(
                root_flags=1, vid_mode=0xFFFF, root_dev=0x301, jump=0x6AEB, kernel_version=0x3000
            ),
        ),
    ),
    "what firmware and UEFI tell": (
        PACKED,
        (
            header(
                screen_info=b"\1" * 64, edid_info=b"\1" * 128, tboot_addr=0x123000, secure_boot=1
            ),
        ),
    ),
    "a header of a vmlinux with nothing in it": (ELF, (header(**MADE_UP),)),
    "a header of a vmlinux of 2.01": (ELF, (header(version=0x201),)),
    **{
        f"setup_data {kind:#x}": (PACKED, (setup_data((0x20000, 0, kind, b"seed" * 8)),))
        for kind in (0, 2, 3, 4, 5, 6, 9, 10, 0x7FFF0001)
    },
    "setup_data of an IMA buffer": (PACKED, (ima(32 * MIB),)),
    "setup_data of a CC blob": (PACKED, (blob,)),
    "setup_data of no CC blob": (ELF, (setup_data((0x20000, 0, 7, bytes(4))),)),
    "what UEFI tells": (PACKED, (efi_info(32 * MIB, 48, b"IBI SYST"),)),
    "another alignment": (PACKED, (header(kernel_alignment=32 * MIB, init_size=0x1000),)),
    "setup_data that leads elsewhere": (PACKED, (setup_data((0x20000, 0, 1 << 31, INDIRECT)),)),
    "setup_data of no size": (PACKED, (setup_data((0x20000, 0, 9, b"")),)),
    "setup_data anywhere": (
        PACKED,
        (setup_data((0x20003, 0x20103, 9, b"s"), (0x20103, 0, 7, b"")),),
    ),
    "setup_data above 4 GiB": (SPLIT64, (setup_data((0x150000000, 0, 9, b"s" * 32)),)),
    "a map with gaps": (ELF, (e820((0, 0x9FC00, 1), (MIB, RAM, 1)),)),
    "a map as Cloud Hypervisor's": (ELF, (e820((0, 0xA0000, 1), (MIB, RAM, 1)),)),
    "a map with adjacent entries": (
        ELF,
        (e820(*ROWS, (MIB, 15 * MIB, 1), (16 * MIB, 48 * MIB, 1)),),
    ),
    "a map as small as can be": (
        ELF,
        (e820((0, 0x17000, 1), (0x17000, 0xE9000, 2), (MIB, RAM, 1)),),
    ),
    "a map with a gap within a page": (
        *(ELF, (e820(*ROWS, (MIB, 47 * MIB, 1), (48 * MIB + 0x800, 16 * MIB - 0x800, 1)),)),
    ),
    "a map in no order": (ELF, (e820((MIB, RAM, 1), *reversed(ROWS)),)),
    "a map without page 0": (
        ELF,
        (e820((0, 0x1000, 2), (0x1000, 0x9EC00, 1), ROWS[1], (MIB, RAM, 1)),),
    ),
    "a map of every type": (
        ELF,
        (
            e820(
                *((0, 0x9E000, 1), (0x9E000, 0x1000, 3), (0x9F000, 0xC00, 4), ROWS[1]),
                *((MIB, RAM, 1), (0xB0000000, 0x10000000, 2), (0xFD00000000, 1 << 32, 2)),
                *((4 * GIB, GIB, 7), (5 * GIB, GIB, 0xEFFFFFFF), (6 * GIB, GIB, 128)),
            ),
        ),
    ),
    "a map that goes on": (
        ELF,
        (
            e820((0, 0x9FC00, 1), (MIB, 16 * MIB, 1)),
            setup_data((0x20000, 0, 1, struct.pack("<QQI", 17 * MIB, 47 * MIB, 1))),
        ),
    ),
    "registers that nobody asks for": (ELF, (registers(rax=1, rbx=2, rcx=3, rdi=4, rbp=5, r8=6),)),
    "FS and GS null": (
        ELF,
        (registers(**{name: Segment(0, limit=0, attributes=0) for name in ("fs", "gs")}),),
    ),
    "more of CR0": (ELF, (bits("cr0", 0x50032),)),
    "more of CR4": (ELF, (bits("cr4", 0x6F8),)),
    "more of EFER": (ELF, (bits("efer", 0x801),)),
    "SMEP and SMAP": (ELF, (bits("cr4", CR4_SMEP | CR4_SMAP),)),
    "pages that no one guards": (ELF, (read_only,)),
    "a command line that is not to be written": (ELF, (read_only_cmdline,)),
    "no room for a gate": (ELF, (registers(idtr=DescriptorTable(NOWHERE, 6)),)),
    "a GDT of four": (ELF, (gdt_ends(0x1F),)),
    "a large GDT": (ELF, (registers(gdtr=DescriptorTable(0x1000, 0xFFFF)),)),
    "a region larger than its words": (
        *(ELF, (cmdline(CMDLINE), lambda s: s.regions.update(cmdline=Range(0x20000, 0x3000)))),
    ),
    "two tables that agree": (TWO, (mp(2),)),
    "pages of 1 GiB": (ELF, (large_pages,)),
    "pages of 4 KiB": (ELF, (small_pages,)),
    "32 bits, registers that nobody asks for": (PACKED32, (registers(rax=1, rcx=2, rdx=3, rsp=9),)),
    "32 bits, what is in upper halves": (
        PACKED32,
        (registers(rbp=1 << 32, rdi=2 << 32, rbx=3 << 32),),
    ),
    "32 bits, a kernel of 2.04": (PACKED32, (header(version=0x204),)),
    "pages that no code of a bzImage comes to, not executable": (PACKED, (not_executable,)),
    "32 bits, code32_start 0": (PACKED32, (header(code32_start=0),)),
    "PVH without an RSDP": (PVH, (lambda scene: scene.start_info(rsdp_paddr=0),)),
    "PVH with a map of two": (PVH, (memory_map((0, 0x9FC00, 1), (MIB, RAM, 1)),)),
    "PVH without a command line": (
        PVH,
        (without("cmdline"), lambda scene: scene.start_info(cmdline_paddr=0)),
    ),
    "PVH without modules": (
        PVH,
        (without("initrd", "modlist"), lambda scene: scene.start_info(nr_modules=0)),
    ),
    "PVH with a module's own words": (PVH, (module_with_words,)),
    "PVH with two modules": (PVH, (second_module,)),
    "PVH with a 16-bit stack": (PVH, (registers(ss=Segment(0x28, attributes=0x8093)),)),
    "PVH with no stack": (PVH, (registers(ss=Segment(0, limit=0, attributes=0)),)),
    "PVH with flags": (PVH, (lambda scene: scene.start_info(flags=3),)),
    "PVH, registers that nobody asks for": (PVH, (registers(rax=1, rcx=2, rsi=3, rdi=4, rsp=5),)),
}


@pytest.mark.parametrize("variant", LEGAL)
def test_legal_variants(variant: str) -> None:
    setting, changes = LEGAL[variant]
    assert found(setting, *changes) == []


VIOLATION, TOLERATED = "violation", "tolerated"
DEFECTS: Final[dict[str, tuple[Setting, Change, str, str]]] = {
    "a map that begins with an empty entry": (
        *(ELF, e820((0, 0, 0), *ROWS, (MIB, RAM, 1))),
        *(TOLERATED, "map-empty-entry"),
    ),
    "a map of empty entries": (ELF, e820((0, 0, 1), (0, 0, 1)), VIOLATION, "e820"),
    "a map with too little low RAM": (
        *(ELF, e820((0, 0x16FFF, 1), (0x17000, 0xE9000, 2), (MIB, RAM, 1))),
        *(VIOLATION, "map-low"),
    ),
    "a map with no room for the initrd": (
        *(ELF, e820(*ROWS, (16 * MIB, 4 * MIB, 1))),
        *(VIOLATION, "map-misses"),
    ),
    "PVH with a map without low RAM": (
        *(PVH, memory_map((0, MIB, 2), (MIB, RAM, 1))),
        *(VIOLATION, "map-low"),
    ),
    "a CC blob that unpacking code leaves out": (
        *(PACKED, header(cc_blob_address=32 * MIB)),
        *(TOLERATED, "cc-blob"),
    ),
    "an IMA buffer out of RAM": (ELF, ima(GIB), VIOLATION, "setup-data"),
    "an IMA buffer in the kernel": (ELF, ima(16 * MIB), VIOLATION, "overlap"),
    "an RSDP in RAM": (
        *(TWO, e820((0, 0x9E040, 1), (0x9E040, 0x61FC0, 3), (MIB, RAM, 1))),
        *(TOLERATED, "acpi-in-ram"),
    ),
    "ACPI tables in RAM where code comes": (
        *(TWO, e820(*ROWS, (MIB, RAM, 1))),
        *(VIOLATION, "acpi-in-ram"),
    ),
    "setup_data that leads out of RAM": (ELF, indirect(GIB), VIOLATION, "setup-data"),
    "a map of one entry": (ELF, e820((0, 0x9FC00, 1), count=1), VIOLATION, "map-count"),
    "no data segments": (
        *(ELF, registers(ds=Segment(0, limit=0, attributes=0))),
        *(TOLERATED, "ds-type"),
    ),
    "an entry outside of RAM": (ELF, registers(rip=NOWHERE), VIOLATION, "entry"),
    "an entry of nothing": (ELF, lambda s: s.write(16 * MIB, bytes(16)), VIOLATION, "entry"),
    "32 bits, an entry outside of RAM": (PACKED32, registers(rip=NOWHERE), VIOLATION, "entry"),
    **{
        f"32 bits, {name} of 1": (PACKED32, registers(**{name: 1}), VIOLATION, f"{name}-zero")
        for name in ("rbp", "rdi", "rbx")
    },
    **{
        f"32 bits, CS of {bits} bits": (
            *(PACKED32, registers(cs=Segment(0x10, attributes=attributes))),
            *(VIOLATION, "cs-32-bit"),
        )
        for bits, attributes in ((16, 0x809B), (64, 0xA09B), (96, 0xE09B))
    },
    "32 bits, a segment of 1 MiB": (
        *(PACKED32, registers(es=Segment(0x18, limit=0xFFFFF, attributes=0xC093))),
        *(VIOLATION, "es-flat"),
    ),
    "32 bits, a segment with a base": (
        *(PACKED32, registers(es=Segment(0x18, base=16, attributes=0xC093))),
        *(VIOLATION, "es-flat"),
    ),
    **{
        f"32 bits, a data segment {what}": (
            *(PACKED32, registers(es=Segment(0x18, attributes=attributes))),
            *(VIOLATION, "es-type"),
        )
        for what, attributes in (("not present", 0xC013), ("of the system", 0xC083))
    },
    "long mode without PAE": (ELF, registers(cr4=0), VIOLATION, "paging"),
    "long mode without paging": (ELF, registers(cr0=0x11), VIOLATION, "paging"),
    "long mode without protection": (ELF, registers(cr0=0x80000010), VIOLATION, "paging"),
    "a GDT that is a byte short": (ELF, gdt_ends(0x1E), TOLERATED, "gdt"),
    "32 bits, another selector": (
        *(PACKED32, lambda s: s.change(cs=replace(s.registers.cs, selector=8))),
        *(TOLERATED, "cs-selector"),
    ),
    "32 bits, a gate nowhere": (
        *(PACKED32, registers(idtr=DescriptorTable(NOWHERE, 7))),
        *(TOLERATED, "idt"),
    ),
    "an RSDP nowhere": (TWO, header(acpi_rsdp_addr=NOWHERE), VIOLATION, "acpi"),
    "an entry outside of the kernel": (ELF, entered_elsewhere, VIOLATION, "entry"),
    "PVH, a command line above 4 GiB": (SPLIT_PVH, cmdline_above, VIOLATION, "above-4-gib"),
    "PVH, a module above 4 GiB": (SPLIT_PVH, module_above_4_gib, VIOLATION, "above-4-gib"),
    **{
        f"{setting.protocol}, EFLAGS.{name}": (setting, bits("rflags", bit), VIOLATION, code)
        for setting in (ELF, PACKED32, PVH)
        for name, bit, code in (
            ("TF", 1 << 8, "eflags-tf"),
            ("IF", 1 << 9, "eflags-if" if setting is PVH else "interrupts"),
            ("VM", 1 << 17, "eflags-vm"),
        )
    },
    "PVH, a segment that is not written": (
        *(PVH, registers(ds=Segment(0x18, attributes=0xC091))),
        *(VIOLATION, "ds-type"),
    ),
    "PVH, a map that ends outside of RAM": (
        *(PVH, lambda s: s.start_info(memmap_paddr=64 * MIB - 24, memmap_entries=2)),
        *(VIOLATION, "memmap"),
    ),
    "one gate nowhere": (ELF, registers(idtr=DescriptorTable(NOWHERE, 7)), TOLERATED, "idt"),
    "a GDT over others": (
        *(ELF, lambda s: s.change(gdtr=DescriptorTable(s.registers.rsi - 31, 31))),
        *(TOLERATED, "overlap"),
    ),
    "two tables that differ": (TWO, mp(3), TOLERATED, "mp-table"),
    "an MP table that no one needs": (TWO, mp(2, wrong=1), TOLERATED, "mp-table"),
    "PVH with tables outside of the map": (
        *(Setting("pvh", cpus=2), memory_map((0, 0x9E000, 1), (MIB, RAM, 1))),
        *(TOLERATED, "map-misses"),
    ),
    "PVH with modules nowhere": (
        *(PVH, lambda s: s.start_info(modlist_paddr=NOWHERE)),
        *(VIOLATION, "modlist"),
    ),
    "PVH with a map of one": (PVH, memory_map((0, 64 * MIB, 1)), TOLERATED, "map-hole"),
    "no loader": (PACKED, header(type_of_loader=0), VIOLATION, "type-of-loader"),
    "more than the bzImage takes": (
        *(PACKED, header(cmdline_size=len(CMDLINE) - 1)),
        *(VIOLATION, "cmdline-size"),
    ),
    "more than Linux takes": (ELF, cmdline(b"x" * 2048), VIOLATION, "cmdline-size"),
    "not relocatable": (
        *(Setting("linux64", packed=True, load=8 * MIB), header(relocatable_kernel=0)),
        *(TOLERATED, "not-relocatable"),
    ),
    "older than relocation": (
        *(Setting("linux32", packed=True, load=8 * MIB), header(version=0x204)),
        *(VIOLATION, "not-relocatable"),
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_single_defects(defect: str) -> None:
    setting, change, grade, code = DEFECTS[defect]
    assert (grade, code) in found(setting, change)


def test_a_first_entry_that_is_empty_is_no_missing_map() -> None:
    empty_first = e820((0, 0, 0), *ROWS, (MIB, RAM, 1))
    assert found(ELF, empty_first) == [(TOLERATED, "map-empty-entry")]


def test_pvh_modules_of_no_bytes() -> None:
    assert found(PVH, many_modules(1025)) == [(TOLERATED, "module")]  # all but the first
    one = [without("initrd"), lambda scene: scene.module(paddr=NOWHERE, size=0)]
    assert found(PVH, *one) == [(TOLERATED, "module")]


@pytest.mark.parametrize(
    ("setting", "start", "end", "wanted"),
    [
        (ELF, MIB, 64 * MIB + 0x800, [(TOLERATED, "map-no-ram")]),
        (ELF, MIB, 64 * MIB + 0x1000, [(VIOLATION, "map-no-ram")]),
        (SPLIT64, 4 * GIB - 0x800, 7 * GIB, [(TOLERATED, "map-no-ram")]),
        (SPLIT64, 4 * GIB - 0x1000, 7 * GIB, [(VIOLATION, "map-no-ram")]),
        (ELF, MIB, 64 * MIB - 0x800, []),
        (ELF, MIB, 64 * MIB - 0x1000, [(TOLERATED, "map-less")]),
    ],
)
def test_parts_of_a_page(
    setting: Setting, start: int, end: int, wanted: list[tuple[str, str]]
) -> None:
    """Kernels take whole pages of RAM."""
    below = [(MIB, 2 * GIB - MIB, 1)] if start > GIB else []
    told = e820(*ROWS, *below, (start, end - start, 1))
    assert found(setting, initrd_at(32 * MIB), told) == wanted
