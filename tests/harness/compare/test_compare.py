"""Comparison of two boots, on small synthetic sides: what counts as a difference, what explains it.

Each row of the table of known differences has an example that it explains and a near miss that it
must not explain.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bootproof.harness.case import Case
from bootproof.harness.compare import memory_at_entry
from bootproof.harness.compare.comparison import Comparison, Cost, ExplainedDifference
from bootproof.harness.compare.differences import (
    BootDifference,
    ComparedBoot,
    Section,
    boot_differences,
    normalised,
)
from bootproof.harness.compare.memory_at_entry import MemoryAtEntry
from bootproof.harness.compare.reasons import REASONS, Facts, code_for, facts
from bootproof.harness.compare.reference import default_offset, plan
from bootproof.harness.errors import UserError
from bootproof.harness.guest import memory_map
from bootproof.harness.guest.memory_map import ABSENT, USABLE, MapDifference, MapEntry
from bootproof.harness.guest.stages import Stage
from bootproof.harness.qemu.argv import Channels, DirectKernel, Launch, argv
from bootproof.harness.qemu.machine import Machine
from bootproof.harness.report.comparison import render
from bootproof.harness.verdict import Verdict
from bootproof.loader.address import GIB, MIB, Range
from bootproof.loader.arch.aarch64 import Arm64Registers
from bootproof.loader.arch.x86_64 import X86Registers
from bootproof.loader.device_tree import DeviceTree, Node
from bootproof.loader.memory import GuestMemory
from tests import ROOT
from tests.builders.guests import flat32, flat64
from tests.builders.images import elf, image, load, notes, pvh_entry

RAM = Range(0, 512 * MIB)
KERNEL = Range(16 * MIB, 0x3000)

LOG = (
    b"[    0.000000] Linux version 6.1.0\r\n"
    b"[    0.000000] BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable\r\n"
    b"[    0.000000] BIOS-e820: [mem 0x0000000000100000-0x000000001fffffff] usable\r\n"
    b"[    0.100000] Memory: 219840K/523896K available (14343K kernel code, 2327K rwdata,"
    b" 53068K reserved, 0K cma-reserved)\r\n"
    b"bootproof: cmdline console=ttyS0\n"
    b"bootproof: ram 00001000-0009fbff\n"
    b"bootproof: ram 00100000-1fffffff\n"
    b"bootproof: proof " + b"0" * 64 + b"\n"
)


def side(
    protocol: str = "pvh",
    registers: X86Registers | Arm64Registers | None = None,
    log: bytes = LOG,
    verdict: Verdict = Verdict.BOOTED,
    values: Mapping[str, str] | None = None,
) -> ComparedBoot:
    memory = MemoryAtEntry(
        {"cmdline": "console=ttyS0", "initrd": "512 bytes"} | dict(values or {}),
        (MapEntry(RAM, USABLE),),
        KERNEL,
        (1, 2, 3),
    )
    return ComparedBoot(verdict, "", protocol, registers or flat32(0x1000000), memory, log)


def names(ours: ComparedBoot, reference: ComparedBoot) -> list[tuple[Section, str]]:
    return [(item.section, item.name) for item in boot_differences(ours, reference)]


# --- what differs --------------------------------------------------------------------------------


def test_equal_boots_do_not_differ() -> None:
    assert boot_differences(side(), side()) == []


def test_a_boot_that_failed_is_a_difference_even_when_both_did() -> None:
    assert names(side(verdict=Verdict.PANIC), side()) == [(Section.VERDICT, "verdict")]
    assert names(side(verdict=Verdict.PANIC), side(verdict=Verdict.PANIC)) == [
        (Section.VERDICT, "verdict")
    ]


def test_registers_differ_field_by_field() -> None:
    other = flat32(0x1000000, rbx=0x5000, cr4=0x20)
    assert names(side(), side(registers=other)) == [
        (Section.REGISTERS, "cr4"),
        (Section.REGISTERS, "rbx"),
    ]


def test_an_entry_that_was_not_reached() -> None:
    found = boot_differences(replace(side(), registers=None), side())
    assert found == [BootDifference(Section.REGISTERS, "entry", "not reached", "reached")]


def test_through_different_protocols_only_shared_parameters_are_compared() -> None:
    ours = side("linux64", flat64(0x1000000), values={"boot_params.hdr.version": "0x20c"})
    other = side("pvh", values={"start_info.version": "1", "cmdline": "other"})
    assert names(ours, other) == [
        (Section.REGISTERS, "protocol"),
        (Section.PARAMETERS, "cmdline"),
    ]


def test_kernel_bytes_and_place() -> None:
    ours = side()
    moved = replace(ours, memory=replace(ours.memory, kernel=Range(18 * MIB, 0x3000)))
    assert names(ours, moved) == [(Section.KERNEL, "place")]
    changed = replace(ours, memory=replace(ours.memory, pages=(1, 9, 3)))
    assert [item.reference for item in boot_differences(ours, changed)] == [
        "1 of 3 pages differ, the first is 1"
    ]


def test_parameters_that_one_side_lacks() -> None:
    found = boot_differences(
        side(), side(values={"/chosen rng-seed": "", "start_info.flags": "0x0"})
    )
    assert found == [
        BootDifference(Section.DEVICE_TREE, "/chosen rng-seed", "", ""),
        BootDifference(Section.PARAMETERS, "start_info.flags", "", "0x0"),
    ]


def test_memory_map_at_the_entry_and_in_the_log() -> None:
    ours = side()
    shorter = replace(ours.memory, map=(MapEntry(Range(0, 511 * MIB), USABLE),))
    log = LOG.replace(b"[mem 0x0000000000100000-0x000000001fffffff] usable", b"nothing")
    found = boot_differences(ours, replace(ours, memory=shorter, transcript=log))
    assert found[:2] == [
        BootDifference(
            Section.MEMORY_MAP,
            f"{where}, {range_}",
            USABLE,
            ABSENT,
            range_,
        )
        for where, range_ in (
            ("at the entry", Range(511 * MIB, MIB)),
            ("in the log", Range.between(MIB, 512 * MIB)),
        )
    ]


def test_evidence_and_memory_figures() -> None:
    log = LOG.replace(b"ram 00001000", b"ram 00002000").replace(b"53068K reserved", b"9K reserved")
    assert boot_differences(side(), side(log=log)) == [
        BootDifference(
            Section.EVIDENCE,
            "ram",
            "00001000-0009fbff, 00100000-1fffffff",
            "00002000-0009fbff, 00100000-1fffffff",
        ),
        BootDifference(Section.MEMORY, "reserved", "53068", "9"),
    ]


def test_the_proof_line_is_no_difference() -> None:
    """It is over all the other evidence, which is compared by itself."""
    assert boot_differences(side(), side(log=LOG.replace(b"proof 00", b"proof 11"))) == []


def test_log_lines_are_counted_whatever_their_order() -> None:
    one, two = b"[    1.0] one\r\n", b"[    2.0] two\r\n"
    assert boot_differences(side(log=one + two), side(log=two + one)) == []
    assert boot_differences(side(log=one), side(log=one + one + two)) == [
        BootDifference(Section.LOG, "one", "", "one"),
        BootDifference(Section.LOG, "two", "", "two"),
    ]


@pytest.mark.parametrize(
    ("line", "same"),
    [
        ("[    0.000000] RAMDISK: [mem 0x1fe1-0x1fff]", "[    9.1] RAMDISK: [mem 0x2-0x3]"),
        ("audit: type=2000 audit(1.4:1): state", "audit: type=2000 audit(2.9:1): state"),
        ("sched_clock: Marking stable (1, 2)->(3)", "sched_clock: Marking stable (4)"),
        ("node 0 deferred pages initialised in 44ms", "node 0 deferred pages initialised in 4ms"),
        ("clocksource: tsc: max_idle_ns: 44 ns", "clocksource: tsc: max_idle_ns: 88 ns"),
        ("999.99 BogoMIPS (lpj=4)", "1000.0 BogoMIPS (lpj=5)"),
        ("x: Configuration UC-   ", "x: Configuration UC-"),
    ],
)
def test_normalised_lines(line: str, same: str) -> None:
    assert normalised(line) == normalised(same)


@pytest.mark.parametrize("line", ["Total pages: 128768", "[    1.0] 2 ACPI AML tables"])
def test_what_normalising_keeps(line: str) -> None:
    assert normalised(line) == line.removeprefix("[    1.0] ")


# --- memory maps ---------------------------------------------------------------------------------


def test_both_wordings_of_a_logged_map() -> None:
    old = b"BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable\r\n"
    new = b"BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff]  System RAM\r\n"
    gap = b"BIOS-e820: [gap 0x0000000020000000-0x00000000afffffff]\r\n"
    wanted = (MapEntry(Range(0, 0x9FC00), USABLE),)
    assert memory_map.logged(old) == memory_map.logged(gap + new) == wanted
    reserved = b"BIOS-e820: [mem 0x0000000000000000-0x0000000000000fff]  device reserved\n"
    assert memory_map.logged(reserved)[0].kind == "reserved"


def test_map_differences_are_joined() -> None:
    ours = [MapEntry(Range(0, 0x1000), USABLE), MapEntry(Range(0x1000, 0x1000), USABLE)]
    assert list(memory_map.differences(ours, [])) == [
        MapDifference(Range(0, 0x2000), USABLE, ABSENT)
    ]
    theirs = [MapEntry(Range(0x1000, 0x1000), "reserved")]
    assert list(memory_map.differences(ours, theirs)) == [
        MapDifference(Range(0, 0x1000), USABLE, ABSENT),
        MapDifference(Range(0x1000, 0x1000), USABLE, "reserved"),
    ]


def test_banks_end_where_the_firmware_says() -> None:
    firmware = [MapEntry(Range(0, 0x9FC00), USABLE), MapEntry(Range.between(MIB, 3 * MIB), USABLE)]
    banks = [Range(0, 4 * MIB), Range(4 * GIB, MIB)]
    assert memory_map.usable_banks(firmware, banks) == (Range(0, 3 * MIB), Range(4 * GIB, MIB))


# --- what explains it ----------------------------------------------------------------------------

R, P, T, M, E, F, L, K = (
    *(Section.REGISTERS, Section.PARAMETERS, Section.DEVICE_TREE, Section.MEMORY_MAP),
    *(Section.EVIDENCE, Section.MEMORY, Section.LOG, Section.KERNEL),
)


def of(section: Section, name: str, ours: str = "", reference: str = "") -> BootDifference:
    found = re.search(r"0x([0-9a-f]+)-0x([0-9a-f]+)$", name)
    first, last = (int(part, 16) for part in found.groups()) if found else (0, 0)
    range_ = Range.between(first, last + 1) if section is M else None
    return BootDifference(section, name, ours, reference, range_)


def ours_only(line: str) -> BootDifference:
    return of(L, line, line, "")


def theirs_only(line: str) -> BootDifference:
    return of(L, line, "", line)


# code, protocol, what it explains, and near misses that it does not.
ROWS: list[tuple[str, str, list[BootDifference], list[BootDifference]]] = [
    (
        "pvh-only",
        "linux64",
        [of(R, "protocol", "linux64", "pvh")],
        [of(R, "protocol", "pvh", "linux64"), of(R, "entry", "not reached", "reached")],
    ),
    (
        "place",
        "pvh",
        [
            of(R, "rbx", "0x1040", "0x21e0"),
            of(P, "start_info.memmap_paddr", "0x1080", "0x5a8"),
            of(P, "start_info.modlist[0].paddr", "0x1fe10000", "0x1fde8000"),
        ],
        [
            of(R, "rip", "0x1", "0x2"),
            of(P, "start_info.memmap_paddr", "0x0", "0x5a8"),
            of(P, "start_info.modlist[0].cmdline_paddr", "0x0", "0x5a8"),
            of(P, "start_info.magic", "0x1", "0x2"),
            of(P, "start_info.version", "0", "1"),
            of(P, "start_info.nr_modules", "0", "1"),
            of(P, "cmdline", "one", "two"),
            of(P, "initrd", "one", "two"),
            of(K, "place", "0x1", "0x2"),
        ],
    ),
    (
        "place",
        "linux32",
        [of(R, "rsi", "0x2000", "0x14790"), of(P, "boot_params.hdr.ramdisk_image", "0x1", "0x2")],
        [
            of(P, "boot_params.hdr.ramdisk_image", "0x0", "0x2"),
            of(P, "boot_params.hdr.ramdisk_size", "0x1", "0x2"),
        ],
    ),
    (
        "place",
        "arm64",
        [of(R, "x0", "0x1", "0x2"), of(T, "/chosen linux,initrd-end", "0x0 0x1", "0x0 0x2")],
        [
            of(R, "x0", "0x0", "0x2"),
            of(R, "x1", "0x1", "0x2"),
            of(R, "pc", "0x1", "0x2"),
            of(T, "/chosen linux,initrd-end", "", "0x0 0x2"),
        ],
    ),
    (
        "free-register",
        "pvh",
        [of(R, "rcx", "0x0", "0x1000850"), of(R, "rsp", "0x0", "0x6edc")],
        [of(R, "cr3", "0x0", "0x1"), of(R, "cr0", "0x11", "0x80000011")],
    ),
    (
        "free-register",
        "linux32",
        [of(R, "rax", "0x0", "0x100000")],
        [of(R, name, "0x0", "0x1") for name in ("rbp", "rdi", "rbx")],
    ),
    ("free-register", "linux64", [of(R, "r15", "0x0", "0x1")], [of(R, "cr4", "0x20", "0x0")]),
    ("free-register", "arm64", [of(R, "x4", "0x0", "0x1")], [of(R, "x3", "0x0", "0x1")]),
    ("flags", "pvh", [of(R, "rflags", "0x2", "0x46")], [of(R, "rflags", "0x2", "0x202")]),
    (
        "flags",
        "arm64",
        [of(R, "pstate", "0x3c5", "0x400003c5")],
        [of(R, "pstate", "0x3c5", "0x3c9")],
    ),
    (
        "accessed-bit",
        "pvh",
        [of(R, "cs.attributes", "0xc09b", "0xc09a")],
        [of(R, "cs.attributes", "0xc09b", "0xa09b"), of(R, "cs.selector", "0x8", "0x9")],
    ),
    (
        "tables",
        "pvh",
        [of(R, "gdtr", "a", "b"), of(R, "idtr", "a", "b")],
        [of(R, "efer", "0", "1")],
    ),
    (
        "pvh-tr",
        "pvh",
        [of(R, "tr.limit", "0x67", "0xffff")],
        [of(R, "tr.base", "0x0", "0x1"), of(R, "ldtr.limit", "0x0", "0x1")],
    ),
    (
        "own-setup",
        "linux64",
        [
            of(R, "tr.base", "0x0", "0x1000"),
            of(R, "tr.selector", "0x0", "0x20"),
            of(P, "boot_params.screen_info", "0", "fc00"),
            of(P, "boot_params.hdr.loadflags", "0x1", "0x81"),
            of(P, "boot_params.hdr.heap_end_ptr", "0x5be0", "0xfe00"),
            theirs_only("Console: colour *CGA 80x25"),
        ],
        [
            of(P, "boot_params.screen_info", "fc00", "0"),
            of(P, "boot_params.hdr.loadflags", "0x0", "0x81"),
            of(P, "boot_params.hdr.heap_end_ptr", "0x0", "0xfe00"),
            of(P, "boot_params.hdr.version", "0x20c", "0x20f"),
            theirs_only("Kernel panic - not syncing: no"),
            of(P, "boot_params.ext_ramdisk_image", "0x0", "0x1"),
        ],
    ),
    (
        "own-entry",
        "linux64",
        [
            of(R, "cr0", "0x80000011", "0x80050033"),
            of(R, "cr3", "0x3000", "0x4357000"),
            of(K, "bytes", "", "1 of 3450 pages differ, the first is 3448"),
        ],
        [
            of(R, "cr0", "0x80000011", "0x11"),
            of(K, "bytes", "", "9 of 3450 pages differ, the first is 3448"),
        ],
    ),
    (
        "acpi",
        "pvh",
        [
            of(P, "start_info.rsdp_paddr", "0x0", "0xf59e0"),
            theirs_only("ACPI: FACP 0x# 0000F4 (v03 BOCHS)"),
            theirs_only("00:02: ttyS0 at I/O 0x# (irq = 4, base_baud = 115200) is a 16550A"),
            ours_only("smpboot: SMP disabled"),
        ],
        [
            of(P, "start_info.rsdp_paddr", "0xe0000", "0xf59e0"),
            ours_only("Kernel panic - not syncing: no"),
            ours_only("Unknown kernel command line parameters"),
        ],
    ),
    ("pci-bars", "pvh", [ours_only("pci 0000:00:1f.2: BAR 5 [mem 0x#-0x#]: assigned")], []),
    ("smbios", "pvh", [theirs_only("SMBIOS 2.8 present.")], []),
    ("mtrr", "pvh", [ours_only("MTRRs disabled by BIOS")], []),
    (
        "loader-id",
        "linux32",
        [
            of(P, "boot_params.hdr.type_of_loader", "0xff", "0xb0"),
            of(E, "bootloader_type", "255", "176"),
        ],
        [
            of(P, "boot_params.hdr.type_of_loader", "0x0", "0xb0"),
            of(E, "bootloader_type", "176", "255"),
        ],
    ),
    (
        "seed",
        "arm64",
        [
            of(T, "/chosen kaslr-seed", "", "0x1 0x2"),
            of(T, "/chosen rng-seed", "0x1 0x2", "0x3 0x4"),
            ours_only("KASLR disabled due to lack of seed"),
        ],
        [
            of(T, "/chosen kaslr-seed", "0x3 0x4", "0x1 0x2"),
            of(T, "/chosen kaslr-seed", "0x3 0x4", ""),
            of(T, "/chosen rng-seed", "", "0x3 0x4"),
            of(T, "/chosen bootargs", "one", "two"),
            of(T, "/memory@40000000 reg", "0x1", "0x2"),
            theirs_only("random: crng init done"),
        ],
    ),
    (
        "request-label",
        "arm64",
        [
            of(T, "/chosen bootproof,request", "case", ""),
            of(E, "request", "case", ""),
            theirs_only("/bootproof/init: line 53: can't open .../chosen/bootproof,request"),
        ],
        [
            of(T, "/chosen bootproof,request", "case", "other"),
            of(E, "request", "", "case"),
            of(E, "machine", "aarch64", ""),
            ours_only("/bootproof/init: line 53: can't open .../chosen/bootproof,request"),
        ],
    ),
    (
        "tree-padding",
        "arm64",
        [
            of(T, "device tree.totalsize", "0x1e80", "0x100000"),
            of(E, "memory", "491448 kB", "490432 kB"),
            of(F, "available", "411860", "410832"),
        ],
        [
            of(E, "memory", "491448 kB", "480432 kB"),
            of(F, "total", "524288", "524280"),
            of(F, "reserved", "39380", "41396"),
            of(T, "device tree.totalsize", "", "0x100000"),
            of(F, "kernel code", "12032", "12033"),
        ],
    ),
    (
        "firmware-map",
        "pvh",
        [of(M, "at the entry, 0xb0000000-0xbfffffff", ABSENT, "reserved")],
        [
            of(M, "at the entry, 0x9fc00-0x9ffff", ABSENT, "reserved"),
            of(M, "at the entry, 0xb0000000-0xbfffffff", "reserved", ABSENT),
            of(M, "at the entry, 0xb0000000-0xbfffffff", ABSENT, USABLE),
        ],
    ),
    (
        "firmware-top",
        "pvh",
        [
            of(M, "in the log, 0x1ffe0000-0x1fffffff", USABLE, "reserved"),
            of(E, "ram", "00100000-1fffffff", "00100000-1ffdffff"),
            of(E, "memory", "481432 kB", "481300 kB"),
            of(F, "total", "523896", "523768"),
            theirs_only("On node 0, zone DMA32: 32 pages in unavailable ranges"),
            theirs_only("e820: register RAM buffer resource [mem 0x#-0x#]"),
        ],
        [
            of(M, "in the log, 0x1ff00000-0x1fffffff", USABLE, "reserved"),
            ours_only("e820: register RAM buffer resource [mem 0x#-0x#]"),
            of(M, "in the log, 0x1f000000-0x1f00ffff", USABLE, "reserved"),
            of(M, "in the log, 0x1ffe0000-0x1fffffff", USABLE, ABSENT),
            of(E, "ram", "00100000-1ffdffff", "00100000-1fffffff"),
            of(E, "ram", "00100000-1fffffff", "00100000-1f000000"),
            of(E, "ram", "", "00100000-1ffdffff"),
            of(E, "memory", "481432 kB", "471300 kB"),
            of(E, "code", "01000000-01e01fff", "01200000-02001fff"),
            of(E, "cmdline", "one", "two"),
            of(F, "kernel code", "14343", "14344"),
        ],
    ),
    (
        "legacy-hole",
        "pvh",
        [
            of(M, "at the entry, 0xa0000-0xeffff", "reserved", ABSENT),
            of(M, "at the entry, 0xd0000-0xeffff", "reserved", "ACPI NVS"),
        ],
        [
            of(M, "at the entry, 0xf0000-0x1fffff", "reserved", ABSENT),
            of(M, "at the entry, 0xa0000-0xeffff", USABLE, ABSENT),
        ],
    ),
]


def facts_for(protocol: str) -> Facts:
    firmware = protocol != "arm64"
    return Facts(protocol, (RAM,), firmware, without_acpi=True, without_seed=True)


def _examples(explained: bool) -> list[object]:
    return [
        pytest.param(
            *(code, protocol, item),
            id=f"{code}-{protocol}-{item.name}-{item.ours}-{item.reference}",
        )
        for code, protocol, hits, misses in ROWS
        for item in (hits if explained else misses)
    ]


@pytest.mark.parametrize(("code", "protocol", "difference"), _examples(True))
def test_explained(code: str, protocol: str, difference: BootDifference) -> None:
    assert code_for(difference, facts_for(protocol)) == code


@pytest.mark.parametrize(("code", "protocol", "difference"), _examples(False))
def test_near_miss_stays_unexplained(code: str, protocol: str, difference: BootDifference) -> None:
    assert code_for(difference, facts_for(protocol)) is None


# Log lines, and the change after which they are explained no more.
WITH_ACPI, WITH_SEED = {"without_acpi": False}, {"without_seed": False}
WITHOUT_FIRMWARE = {"firmware": False}
LINES: list[tuple[str, str, BootDifference, dict[str, Any]]] = [
    ("acpi", "pvh", theirs_only("hpet0: at MMIO 0x#, IRQs 2, 8, 0"), WITH_ACPI),
    ("acpi", "pvh", theirs_only("..TIMER: vector=0x# apic1=0 pin1=2"), WITH_ACPI),
    ("acpi", "pvh", theirs_only("PCI: ECAM [mem 0x#-0x#] reserved as E820 entry"), WITH_ACPI),
    ("acpi", "pvh", ours_only("pci_bus 0000:00: root bus resource [io  0x#-0x#]"), WITH_ACPI),
    ("acpi", "pvh", ours_only("rtc_cmos rtc_cmos: registered as rtc0"), WITH_ACPI),
    ("acpi", "pvh", ours_only("serial8250: ttyS0 at I/O 0x# is a 16550A"), WITH_ACPI),
    ("acpi", "pvh", theirs_only("clocksource: hpe: mask: 0x#"), WITH_ACPI),
    ("pci-bars", "pvh", ours_only("pci 0000:00:1f.3: BAR 4 [io  0x#-0x#]"), WITHOUT_FIRMWARE),
    ("smbios", "pvh", ours_only("DMI not present or invalid."), WITHOUT_FIRMWARE),
    ("mtrr", "pvh", ours_only("x86/PAT: Configuration [0-7]: WB"), WITHOUT_FIRMWARE),
    ("firmware-top", "pvh", ours_only("Built 1 zonelists, more"), WITHOUT_FIRMWARE),
    ("own-setup", "linux32", theirs_only("Probing EDD (edd=off to disable)"), {"protocol": "pvh"}),
    ("seed", "arm64", ours_only("KASLR disabled due to lack of seed"), WITH_SEED),
    ("seed", "arm64", theirs_only("ASID allocator initialised with 32768 entries"), WITH_SEED),
    ("seed", "arm64", theirs_only("0 pages in range for non-PLT usage"), WITH_SEED),
]


@pytest.mark.parametrize(("code", "protocol", "line", "change"), LINES)
def test_lines_need_the_fact_that_explains_them(
    code: str, protocol: str, line: BootDifference, change: dict[str, Any]
) -> None:
    before = facts_for(protocol)
    found = code_for(line, before), code_for(line, replace(before, **change))
    assert found == (code, None)


def test_every_code_has_an_example() -> None:
    assert {row[0] for row in ROWS} == {row.code for row in REASONS}


def test_codes_and_documentation_agree() -> None:
    text = (ROOT / "docs" / "compare.md").read_text()
    table = text.partition("## Known differences")[2]
    documented = re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)
    assert documented == sorted({row.code for row in REASONS})


def test_acpi_is_no_excuse_once_we_bring_tables() -> None:
    line = theirs_only("ACPI: FACP 0x# 0000F4")
    with_tables = facts(side(log=b"ACPI: RSDP 0x0"), [RAM], firmware=True)
    without = facts(
        side(log=b"ACPI BIOS Error (bug): A valid RSDP was not found\n"), [RAM], firmware=True
    )
    assert (code_for(line, with_tables), code_for(line, without)) == (None, "acpi")


def test_a_seed_is_no_excuse_when_ours_has_one() -> None:
    line = theirs_only("KASLR enabled")
    with_seed = facts(side("arm64", values={"/chosen kaslr-seed": "0x1"}), [RAM], firmware=False)
    without = facts(side("arm64"), [RAM], firmware=False)
    assert (code_for(line, with_seed), code_for(line, without)) == (None, "seed")


# --- what was handed over ------------------------------------------------------------------------


def test_start_info_is_read() -> None:
    with GuestMemory([(0, MIB)]) as ram:
        info = struct.pack("<IIIIQQQQII", 0x336EC578, 1, 0, 1, 0x2000, 0x3000, 0, 0x4000, 1, 0)
        ram.write(0x1000, info)
        ram.write(0x2000, struct.pack("<QQQQ", 0x5000, 3, 0, 0))
        ram.write(0x3000, b"console=ttyS0\0junk")
        ram.write(0x4000, struct.pack("<QQII", 0, MIB, 1, 0))
        ram.write(0x5000, b"abc")
        ram.write(0x8000, b"kernel")
        found = memory_at_entry.look("pvh", flat32(0, rbx=0x1000), ram, Range(0x8000, 0x1001))
    assert found.values["start_info.magic"] == "0x336ec578"
    assert found.values["cmdline"] == "console=ttyS0"
    assert found.values["initrd"] == "3 bytes, sha256 ba7816bf8f01cfea"
    assert found.map == (MapEntry(Range(0, MIB), USABLE),)
    assert (found.kernel, len(found.pages)) == (Range(0x8000, 0x1001), 2)


def test_boot_params_are_read() -> None:
    with GuestMemory([(0, MIB)]) as ram:
        page = bytearray(0x1000)
        page[0x0:0x2] = b"\x50\x19"
        page[0x1E8] = 2
        page[0x210] = 0xFF
        page[0x218:0x220] = struct.pack("<II", 0x5000, 3)
        page[0x228:0x22C] = struct.pack("<I", 0x3000)
        page[0x2D0:0x2F8] = struct.pack("<QQIQQI", 0, 0x9FC00, 1, 0x9FC00, 0x400, 2)
        ram.write(0x1000, page)
        ram.write(0x3000, b"quiet\0")
        ram.write(0x5000, b"abc")
        found = memory_at_entry.look("linux64", flat64(0, rsi=0x1000), ram, Range(0x8000, 1))
    assert found.values["boot_params.hdr.type_of_loader"] == "0xff"
    assert found.values["boot_params.screen_info"].startswith("5019")
    assert found.values["boot_params.acpi_rsdp_addr"] == "0x0"
    assert (found.values["cmdline"], found.values["initrd"][:7]) == ("quiet", "3 bytes")
    assert [entry.kind for entry in found.map] == [USABLE, "reserved"]


def test_device_tree_is_read() -> None:
    edges = {b"linux,initrd-start": 0x5000, b"linux,initrd-end": 0x5003}
    told = {b"bootargs": b"quiet\0"} | {n: at.to_bytes(8, "big") for n, at in edges.items()}
    tree = DeviceTree([Node(b"", 0), Node(b"chosen", 1, told)])
    with GuestMemory([(0, MIB)]) as ram:
        ram.write(0x1000, tree.to_bytes())
        ram.write(0x5000, b"abc")
        found = memory_at_entry.look("arm64", Arm64Registers(0).with_x(x0=0x1000), ram, Range(0, 1))
    assert found.values["/chosen linux,initrd-end"] == "0x0 0x5003"
    assert (found.values["cmdline"], found.values["initrd"][:7]) == ("quiet", "3 bytes")


@pytest.mark.parametrize("address", [0x2000, 2 * MIB])
def test_no_structure_where_the_register_points(address: int) -> None:
    """Zeros, or no RAM at all: the names are missing or empty, and nothing is raised."""
    with GuestMemory([(0, MIB)]) as ram:
        for protocol, registers in (
            ("pvh", flat32(0, rbx=address)),
            ("linux32", flat32(0, rsi=address)),
            ("arm64", Arm64Registers(0).with_x(x0=address)),
        ):
            found = memory_at_entry.look(protocol, registers, ram, Range(0, 1))
            assert found.values.get("initrd", "none") == "none"
            assert found.map == ()


# --- the reference's command line, and the report ------------------------------------------------


def test_only_the_reference_boot_has_qemus_own_loader() -> None:
    machine = Machine.with_defaults("x86_64", memory=64 * MIB)
    channels = Channels(console="console.log")
    ours = argv(machine, Launch((), (0x1000,)), channels)
    reference = argv(machine, DirectKernel("k", "i", "a,b"), channels)
    assert not {"-kernel", "-initrd", "-append", "-bios"} & set(ours)
    assert reference[-6:] == ["-kernel", "k", "-initrd", "i", "-append", "a,b"]
    loader = ours.index("-device")
    assert ours[:loader] == reference[:-6]  # the same machine in all else


@pytest.mark.parametrize(
    ("text_offset", "base"), [(0, GIB + 2 * MIB), (0xFFF, GIB + 2 * MIB), (0x80000, GIB)]
)
def test_where_qemu_puts_an_image(tmp_path: Path, text_offset: int, base: int) -> None:
    kernel = tmp_path / "Image"
    kernel.write_bytes(image(text_offset=text_offset))
    assert default_offset("aarch64", kernel) == base


def test_qemu_puts_a_vmlinux_where_it_says(tmp_path: Path) -> None:
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(elf(load(MIB, b"code"), entry=MIB))
    assert default_offset("x86_64", kernel) is None


def test_qemu_starts_no_vmlinux_without_a_pvh_note(tmp_path: Path) -> None:
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(elf(load(MIB, b"code"), entry=MIB))
    case = Case("x86_64", str(kernel), "elf", "linux64")
    with pytest.raises(UserError, match="has no PVH note"):
        plan(case, Machine.with_defaults("x86_64", memory=64 * MIB), "linux64")


def test_a_vmlinux_is_entered_at_its_pvh_note_however_we_enter_it(tmp_path: Path) -> None:
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(elf(load(MIB, b"code"), notes(pvh_entry(MIB + 0x10)), entry=MIB))
    case = Case("x86_64", str(kernel), "elf", "linux64", offset=2 * MIB)
    found = plan(case, Machine.with_defaults("x86_64", memory=64 * MIB), "linux64")
    assert (found.protocol, found.entry) == ("pvh", MIB + 0x10)


def comparison(*differences: ExplainedDifference) -> Comparison:
    stages = (Stage("first-output", None, 900_000), Stage("banner", 0.0, None))
    cost = Cost("booted", "pvh", 1_000_000, stages)
    return Comparison("case", differences, cost, cost, Path("/nowhere"))


BAD = ExplainedDifference(of(P, "cmdline", "console=ttyS0 quietly", "console=ttyS0"), None)
GOOD = ExplainedDifference(of(R, "rbx", "0x1040", "0x21e0"), "place")


def test_report_names_what_is_unexplained() -> None:
    text = render(comparison(BAD, GOOD))
    assert "UNEXPLAINED" in text
    assert re.search(r"parameters +cmdline +console=ttyS0 quietly +console=ttyS0", text)
    assert "✗ 1 of 2 differences are unexplained" in text
    assert "\x1b" not in text  # no terminal, no colours


def test_report_of_what_is_explained() -> None:
    text = render(comparison(GOOD))
    assert "UNEXPLAINED" not in text
    assert re.search(r"registers at the entry +place +1 +rbx", text)
    assert "✓ all 1 differences are explained" in text
    assert re.search(r"guest instructions +1,000,000 +1,000,000", text)
    assert re.search(r"guest instructions to: first-output +900,000 +900,000", text)
    assert re.search(r"guest seconds to: banner +0.000 +0.000", text)
    assert "instructions to: banner" not in text


def test_json_has_everything() -> None:
    data = json.loads(json.dumps(comparison(BAD, GOOD).to_json()))
    assert (data["version"], data["unexplained"]) == (2, 1)
    assert data["differences"][1] == {
        "section": "registers at the entry",
        "name": "rbx",
        "ours": "0x1040",
        "reference": "0x21e0",
        "code": "place",
    }
    assert data["ours"]["stages"] == [
        {"name": "first-output", "guest_seconds": None, "instructions": 900_000},
        {"name": "banner", "guest_seconds": 0.0, "instructions": None},
    ]
