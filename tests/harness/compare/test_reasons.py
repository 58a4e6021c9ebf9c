"""Each reason has an example that it explains, and a near miss that it must not explain."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from bootproof.harness.compare.differences import BootDifference, ComparedBoot, Section
from bootproof.harness.compare.firmware_tables import Table
from bootproof.harness.compare.reasons import REASONS, Facts, code_for, facts
from bootproof.harness.guest.memory_map import ABSENT, USABLE
from bootproof.loader.address import Range
from tests import ROOT
from tests.builders.comparisons import RAM, side

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
    ("place", "riscv64", [of(R, "x11", "0x1", "0x2")], [of(R, "x10", "0x1", "0x2")]),
    (
        "free-register",
        "riscv64",
        [of(R, name, "0x0", "0x1") for name in ("x1", "x9", "x12", "x31")],
        [of(R, name, "0x0", "0x1") for name in ("x10", "satp", "sie", "privilege")],
    ),
    (
        "firmware-ram",
        "riscv64",
        [
            of(T, "/reserved-memory/mmode_resv0@80000000", "", "present"),
            of(T, "/reserved-memory/firmware@80000000 reg", "0x0 0x80000000 0x0 0x200000", ""),
            of(E, "ram", "80200000-9fffffff", "80000000-9fffffff"),
            of(E, "memory", "448168 kB", "449696 kB"),
            of(F, "reserved", "80388", "78860"),
            of(L, "OF: reserved mem: 0x#..0x# (512 KiB) map non-reusable mmode_resv0@80000000"),
        ],
        [
            of(T, "/reserved-memory/mine@90000000", "", "present"),
            of(E, "ram", "80600000-9fffffff", "80000000-9fffffff"),
            of(E, "ram", "80200000-8fffffff", "80000000-9fffffff"),
            of(E, "memory", "448168 kB", "459696 kB"),
        ],
    ),
    (
        "firmware-fixups",
        "riscv64",
        [
            of(T, "/pmu riscv,event-to-mhpmcounters", "0x1 0x1", ""),
            of(
                T,
                "/soc/plic@c000000 interrupts-extended",
                "0x2 0xb 0x2 0x9",
                "0x2 0xffffffff 0x2 0x9",
            ),
        ],
        [of(T, "/soc/plic@c000000 interrupts-extended", "0x2 0xb 0x2 0x9", "0x2 0xb 0x2 0x8")],
    ),
    ("flags", "pvh", [of(R, "rflags", "0x2", "0x46")], [of(R, "rflags", "0x2", "0x202")]),
    (
        "flags",
        "arm64",
        [of(R, "pstate", "0x3c5", "0x400003c5"), of(R, "pstate", "0x3c5", "0x400007c5")],
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
            ours_only("SFI: Simple Firmware Interface v0.81 http://simplefirmware.org"),
        ],
        [
            of(P, "start_info.rsdp_paddr", "0xe0000", "0xf59e0"),
            ours_only("Kernel panic - not syncing: no"),
            ours_only("Unknown kernel command line parameters"),
        ],
    ),
    (
        "mp-table",
        "linux64",
        [
            theirs_only("found SMP MP-table at [mem 0x#-0x#]"),
            theirs_only("MPTABLE: OEM ID: BOCHSCPU"),
            theirs_only("Processor #0 (Bootup-CPU)"),
        ],
        [theirs_only("Processor is broken")],
    ),
    (
        "interrupts",
        "pvh",
        [
            ours_only("smpboot: SMP disabled"),
            theirs_only("IOAPIC[0]: apic_id 0, version 32, address 0x#, GSI 0-23"),
            ours_only("Not enabling interrupt remapping due to skipped IO-APIC setup"),
        ],
        [
            ours_only("do_IRQ: 0.55 No irq handler for vector"),
            ours_only("WARNING: CPU: 0 PID: 1 at mm/x.c:1 x+0x#/0x# < start_kernel"),
            ours_only("sata 0000:00:1f.2: Failed to allocate irq 0: -16"),
        ],
    ),
    (
        "devices",
        "pvh",
        [
            ours_only("pci 0000:00:1f.2: BAR 5 [mem 0x#-0x#]: assigned"),
            ours_only("pci 0000:00:1f.3: BAR 4: assigned [io  0x#-0x#]"),
            theirs_only("00:02: ttyS0 at I/O 0x# (irq = 4, base_baud = 115200) is a 16550A"),
            theirs_only("input: Power Button as /devices/LNXSYSTM:00/LNXPWRBN:00/input/input0"),
            theirs_only("ahci 0000:00:1f.2: AHCI 0001.0000 32 slots 6 ports 1.5 Gbps"),
            theirs_only("input: ImExPS/2 Generic Explorer Mouse as /devices/platform/input/input3"),
            theirs_only("ata1: SATA max UDMA/133 abar m4096@0x# port 0x# irq 16"),
        ],
        [
            ours_only("pci 0000:00:1f.2: BAR 5: no space for [mem size 0x#]"),
            ours_only("ata1: SRST failed (errno=-16)"),
            ours_only("PCI: Fatal: No config space access function found"),
            theirs_only("CPU0: Thermal monitoring enabled"),
            ours_only("RAMDISK: [mem 0x#-0x#]"),
        ],
    ),
    (
        "kaslr",
        "linux32",
        [of(E, "code", "12c00000-13801f41", "18c00000-19801f41")],
        [of(E, "cmdline", "one", "two")],
    ),
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
            theirs_only("PM: hibernation: Registered nosave memory: [mem 0x#-0x#]"),
        ],
        [
            of(M, "in the log, 0x1ff00000-0x1fffffff", USABLE, "reserved"),
            ours_only("RAMDISK: [mem 0x#-0x#]"),
            of(M, "in the log, 0x1f000000-0x1f00ffff", USABLE, "reserved"),
            of(M, "in the log, 0x1ffe0000-0x1fffffff", USABLE, ABSENT),
            of(E, "ram", "00100000-1ffdffff", "00100000-1fffffff"),
            of(E, "ram", "00100000-1fffffff", "00100000-1f000000"),
            of(E, "ram", "", "00100000-1ffdffff"),
            of(E, "ram", "00100000-1fffffff", "000f0000-1fffffff"),
            of(E, "ram", "1000-9fbff, 100000-1fffffff", "1000-9fcff, 100000-1ffdffff"),
            of(E, "memory", "481432 kB", "471300 kB"),
            of(E, "code", "01000000-01e01fff", "01200000-02001fff"),
            of(E, "cmdline", "one", "two"),
            of(F, "kernel code", "14343", "14344"),
        ],
    ),
    (
        "deferred-memory",
        "arm64",
        [of(F, "available so far", "3112972", "3110020")],
        [
            of(F, "available", "3112972", "3110020"),
            of(F, "total", "3112972", "3110020"),
            of(F, "available so far", "", "3110020"),
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
    (
        "hosts-clock",
        "riscv64",
        [theirs_only("hrtimer: interrupt took 20440100 ns")],
        [ours_only("hrtimer: interrupt took 20440100 ns"), theirs_only("hrtimer: lost")],
    ),
]


BROUGHT = frozenset({Table.ACPI, Table.MULTIPROCESSOR, Table.SMBIOS})


def facts_for(protocol: str) -> Facts:
    firmware = protocol != "arm64"
    brought = BROUGHT if firmware else frozenset()
    return Facts(
        *(protocol, (RAM,), firmware, brought),
        without_seed=True,
        code_anywhere=protocol == "linux32",
        unrouted=frozenset({"i801_smbus", "0000:00:1f.3"}),
        firmware_stays=protocol == "riscv64",
        hosts_clock=protocol == "riscv64",
    )


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
WITH_SEED = {"without_seed": False}
WITHOUT_FIRMWARE: dict[str, Any] = {"firmware": False, "tables": frozenset()}
NO_ACPI, NO_MP = {"tables": BROUGHT - {Table.ACPI}}, {"tables": BROUGHT - {Table.MULTIPROCESSOR}}
NO_TABLES: dict[str, Any] = {"tables": frozenset()}
LINES: list[tuple[str, str, BootDifference, dict[str, Any]]] = [
    ("acpi", "pvh", theirs_only("ACPI: FACP 0x# 0000F4"), NO_ACPI),
    ("acpi", "pvh", theirs_only("clocksource: hpe: mask: 0x#"), NO_ACPI),
    ("acpi", "pvh", ours_only("SFI: Simple Firmware Interface v0.81"), NO_ACPI),
    ("mp-table", "pvh", theirs_only("found SMP MP-table at [mem 0x#-0x#]"), NO_MP),
    (
        *("interrupts", "pvh"),
        ours_only("i801_smbus 0000:00:1f.3: Failed to allocate irq 0: -16"),
        {"unrouted": frozenset()},
    ),
    (
        *("interrupts", "pvh"),
        ours_only("genirq: Flags mismatch irq 0. 00200080 (i801_smbus) vs. 00215a00 (timer)"),
        NO_TABLES,
    ),
    (
        *("interrupts", "pvh"),
        ours_only("WARNING: CPU: 0 PID: 1 at x.c:1 x+0x#/0x# < ahci_init_one < pci_device_probe"),
        {"unrouted": frozenset()},
    ),
    ("interrupts", "pvh", theirs_only("..TIMER: vector=0x# apic1=0 pin1=2"), NO_TABLES),
    (
        "devices",
        "pvh",
        ours_only("input: AT Raw Set 2 keyboard as /devices/platform/i8042/x"),
        WITHOUT_FIRMWARE,
    ),
    ("devices", "pvh", theirs_only("PCI: ECAM [mem 0x#-0x#] reserved"), WITHOUT_FIRMWARE),
    ("devices", "pvh", ours_only("pci_bus 0000:00: root bus resource [io ]"), WITHOUT_FIRMWARE),
    ("devices", "pvh", ours_only("rtc_cmos rtc_cmos: registered as rtc0"), WITHOUT_FIRMWARE),
    ("devices", "pvh", ours_only("serial8250: ttyS0 at I/O 0x# is a 16550A"), WITHOUT_FIRMWARE),
    ("devices", "pvh", ours_only("pci 0000:00:1f.3: BAR 4 [io  0x#-0x#]"), WITHOUT_FIRMWARE),
    ("smbios", "pvh", ours_only("DMI not present or invalid."), NO_TABLES),
    ("mtrr", "pvh", ours_only("x86/PAT: Configuration [0-7]: WB"), WITHOUT_FIRMWARE),
    ("firmware-top", "pvh", ours_only("Built 1 zonelists, more"), WITHOUT_FIRMWARE),
    ("kaslr", "linux32", of(E, "code", "1", "2"), {"code_anywhere": False}),
    ("own-setup", "linux32", theirs_only("Probing EDD (edd=off to disable)"), {"protocol": "pvh"}),
    ("seed", "arm64", ours_only("KASLR disabled due to lack of seed"), WITH_SEED),
    (
        *("hosts-clock", "riscv64", theirs_only("hrtimer: interrupt took 9 ns")),
        {"hosts_clock": False},
    ),
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


def with_tables(tables: frozenset[Table], **values: str) -> ComparedBoot:
    boot = side(values={f"start_info.{name}": value for name, value in values.items()})
    return replace(boot, memory=replace(boot.memory, tables=tables))


@pytest.mark.parametrize(
    ("ours", "reference", "code"),
    [
        (with_tables(frozenset()), with_tables(BROUGHT), "acpi"),
        (with_tables(frozenset()), with_tables(frozenset(), rsdp_paddr="0xf59e0"), "acpi"),
        (with_tables(BROUGHT), with_tables(BROUGHT), None),
        (with_tables(frozenset(), rsdp_paddr="0xe0000"), with_tables(BROUGHT), None),
        (with_tables(frozenset()), with_tables(frozenset(), rsdp_paddr="0x0"), None),
    ],
    ids=["firmware's only", "pointed to", "in both", "we point to ours", "in neither"],
)
def test_tables_are_an_excuse_where_only_firmware_brings_them(
    ours: ComparedBoot, reference: ComparedBoot, code: str | None
) -> None:
    found = facts(ours, reference, [RAM], firmware=True)
    assert code_for(theirs_only("ACPI: FACP 0x# 0000F4"), found) == code


@pytest.mark.parametrize(
    "line",
    [
        b"[    0.6] ahci 0000:00:1f.2: can't find IRQ for PCI INT A; please try using pci=biosirq",
        b"[    0.6] ahci 0000:00:1f.2: PCI INT A: no GSI",
    ],
)
def test_devices_without_an_interrupt_are_known_from_our_log(line: bytes) -> None:
    found = facts(side(log=line + b"\r\n"), side(), [RAM], firmware=True)
    assert found.unrouted == {"ahci", "0000:00:1f.2"}
    assert not facts(side(), side(log=line), [RAM], firmware=True).unrouted


def test_a_seed_is_no_excuse_when_ours_has_one() -> None:
    line = theirs_only("KASLR enabled")
    with_seed = facts(
        side("arm64", values={"/chosen kaslr-seed": "0x1"}), side("arm64"), [RAM], firmware=False
    )
    without = facts(side("arm64"), side("arm64"), [RAM], firmware=False)
    assert (code_for(line, with_seed), code_for(line, without)) == (None, "seed")
