"""Device trees against the rules: those that VMMs write, legal variants, and single defects."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import pytest

from bootproof.loader import conformance
from bootproof.loader.address import GIB, MIB, Range
from bootproof.loader.arch.aarch64 import Arm64Registers
from bootproof.loader.arch.riscv64 import FIRMWARE, RiscvRegisters
from bootproof.loader.boot_parameters import reader
from bootproof.loader.bootimage import BootImage
from bootproof.loader.layout import Region
from bootproof.loader.memory import GuestMemory
from bootproof.scenarios.museum.scene import FOOTPRINT, IMAGES
from tests.builders import trees
from tests.builders.trees import CELLS, EMPTY, Tree, changed, quad

SIZE: Final = 64 * MIB
ARM_START, RISCV_START = GIB, FIRMWARE.range.start
ARM64: Final = trees.arm64(ARM_START, SIZE)
RISCV64: Final = trees.riscv64(RISCV_START, SIZE)
INITRD: Final = b"07070100000000" + b"0" * 80 + b"0000000B00000000TRAILER!!!\0" + bytes(5)
Changes = Mapping[str, Mapping[str, Any] | None]


def found(
    protocol: str,
    tree: Tree,
    reservations: list[tuple[int, int]] | None = None,
    *,
    at: int = 48 * MIB,
    cpus: int = 2,
    banks: tuple[tuple[int, int], ...] = (),
    image: bytes | None = None,
    privilege: int = 1,
    pstate: int = 0x3C5,
) -> list[tuple[str, str]]:
    """Grade and code of what is found, each once, of a right Image, an initrd and this tree."""
    start = ARM_START if protocol == "arm64" else RISCV_START
    kernel, dtb = start + 16 * MIB, start + at
    with GuestMemory(banks or [(start, SIZE)]) as memory:
        memory.write(kernel, image or IMAGES[protocol])
        memory.write(start + 56 * MIB, INITRD)
        memory.write(dtb, trees.device_tree(tree, reservations).to_bytes())
        first: Any
        if protocol == "arm64":
            first = Arm64Registers(kernel, pstate=pstate).with_x(x0=dtb)
            others = [replace(first, pc=0)] * (cpus - 1)
        else:
            first = RiscvRegisters(kernel, privilege=privilege).with_x(x10=0, x11=dtb)
            others = [RiscvRegisters(start)] * (cpus - 1)
        regions = (Region("kernel", Range(kernel, FOOTPRINT)),)
        arch = "aarch64" if protocol == "arm64" else "riscv64"
        boot = BootImage(arch, protocol, memory.banks, (first, *others), regions)
        resident = [FIRMWARE.range] if protocol == "riscv64" else []
        said = conformance.findings(boot, reader(memory), cpus=cpus, resident=resident)
    return list(dict.fromkeys((finding.grade.value, finding.code) for finding in said))


@pytest.mark.parametrize("vmm", ARM64)
def test_arm64_trees_of_vmms(vmm: str) -> None:
    assert found("arm64", ARM64[vmm]) == []


@pytest.mark.parametrize("vmm", RISCV64)
def test_riscv64_trees(vmm: str) -> None:
    assert found("riscv64", RISCV64[vmm]) == []


QEMU: Final = ARM64["qemu"]
MEMORY: Final = f"/memory@{ARM_START:x}"
RESERVED: Final = {"/reserved-memory": {**CELLS, "ranges": EMPTY}}
ONE: Final = {"#address-cells": 1, "#size-cells": 1}
INITRD_AT: Final = ARM_START + 56 * MIB
INITRD_END: Final = INITRD_AT + len(INITRD)
SPIN: Final = {"enable-method": "spin-table", "cpu-release-addr": quad(ARM_START + 40 * MIB)}

LEGAL: Final[dict[str, Changes]] = {
    "cells of one": {
        "/": ONE,
        MEMORY: {"reg": (ARM_START, SIZE)},
        "/secram@e000000": None,
        "/platform-bus@c000000": None,
    },
    "a size of one cell, as without #size-cells": {
        "/": {"#size-cells": 1},
        MEMORY: {"reg": (quad(ARM_START), SIZE)},
        "/secram@e000000": None,
    },
    "initrd in 64 bits": {
        "/chosen": {"linux,initrd-start": quad(INITRD_AT), "linux,initrd-end": quad(INITRD_END)}
    },
    "initrd in 32 bits": {
        "/chosen": {"linux,initrd-start": INITRD_AT, "linux,initrd-end": INITRD_END}
    },
    "initrd in both": {
        "/chosen": {"linux,initrd-start": INITRD_AT, "linux,initrd-end": quad(INITRD_END)}
    },
    "no initrd, as zeros": {
        "/chosen": {"linux,initrd-start": quad(0), "linux,initrd-end": quad(0)}
    },
    "an initrd of no size": {
        "/chosen": {"linux,initrd-start": quad(INITRD_AT), "linux,initrd-end": quad(INITRD_AT)}
    },
    "no /chosen": {"/chosen": None},
    "seeds": {"/chosen": {"kaslr-seed": quad(1), "rng-seed": bytes(64)}},
    "bootargs with room behind them": {"/chosen": {"bootargs": b"quiet\0" + bytes(4096)}},
    "bootargs with what was there before": {"/chosen": {"bootargs": b"quiet\0" + b"x" * 4096}},
    "a place for memory of which there is none": {
        "/memory@0": {"device_type": "memory", "reg": quad(0, 0)}
    },
    "ranges in no order": {
        MEMORY: {"reg": quad(ARM_START + 32 * MIB, 32 * MIB, ARM_START, 32 * MIB)}
    },
    "less of it to be used": {
        MEMORY: {"reg": quad(0, GIB), "linux,usable-memory": quad(ARM_START, SIZE)}
    },
    "a place of /chosen": {"/chosen": None, "/chosen@0": {"bootargs": "quiet"}},
    "leading zeros": {
        MEMORY: None,
        "/memory@0000000040000000": {"device_type": "memory", "reg": quad(ARM_START, SIZE)},
        "/cpus/cpu@0": None,
        "/cpus/cpu@000": {**trees.ARM, "reg": 0},
    },
    "no unit address": {
        MEMORY: None,
        "/memory": {"device_type": "memory", "reg": quad(ARM_START, SIZE)},
    },
    "another name": {
        MEMORY: None,
        "/ram@40000000": {"device_type": "memory", "reg": quad(ARM_START, SIZE), "status": "ok"},
    },
    "memory that is off": {
        "/memory@80000000": {"reg": quad(2 * GIB, GIB), "status": "disabled"},
    },
    "CPUs by their type": {
        "/cpus/cpu@0": None,
        "/cpus/PowerArm,970@0": {**trees.ARM, "reg": 0},
    },
    "CPUs by their name": {"/cpus/cpu@0": {"device_type": None}},
    "a CPU that is broken": {"/cpus/cpu@2": {**trees.ARM, "reg": 2, "status": "fail-sss"}},
    "a CPU that waits": {"/cpus/cpu@1": {"status": "disabled"}},
    "the first CPU without a method": {"/cpus/cpu@0": {"enable-method": None}},
    "psci elsewhere": {
        "/psci": None,
        "/firmware": {},
        "/firmware/psci": {"compatible": "arm,psci-0.2", "method": "smc", "status": "okay"},
    },
    "psci with numbers of its own": {
        "/psci": {"compatible": "arm,psci", "method": "smc", "cpu_on": 0x95C10002}
    },
    "a spin-table outside of RAM": {
        "/cpus/cpu@1": {"enable-method": "spin-table", "cpu-release-addr": quad(0x8000FFF8)},
    },
    "a spin-table that a node reserves": {
        "/cpus/cpu@1": SPIN,
        **RESERVED,
        "/reserved-memory/spin@42800000": {"reg": quad(ARM_START + 40 * MIB, 4096)},
    },
    "reserved memory": {
        **RESERVED,
        "/reserved-memory/kept@42800000": {"reg": quad(ARM_START + 40 * MIB, MIB), "no-map": EMPTY},
        "/reserved-memory/off@41000000": {
            "reg": quad(ARM_START + 16 * MIB, MIB),
            "no-map": EMPTY,
            "status": "disabled",
        },
        "/reserved-memory/pool": {"size": quad(4096), "no-map": EMPTY},
        "/reserved-memory/linux,cma": {
            "compatible": "shared-dma-pool",
            "reusable": EMPTY,
            "size": quad(8 * MIB),
            "linux,cma-default": EMPTY,
        },
        "/reserved-memory/ramoops@43000000": {"reg": quad(ARM_START + 47 * MIB, MIB)},
    },
    "what UEFI tells": {
        MEMORY: None,
        "/cpus": None,
        "/chosen": {"linux,uefi-system-table": quad(1), "linux,uefi-mmap-start": quad(2)},
    },
}


@pytest.mark.parametrize("variant", LEGAL)
def test_legal_variants(variant: str) -> None:
    assert found("arm64", changed(QEMU, LEGAL[variant])) == []


def test_more_that_is_legal() -> None:
    reserved = [(ARM_START + 16 * MIB, FOOTPRINT), (INITRD_AT, 4096), (ARM_START + 48 * MIB, 8192)]
    assert found("arm64", QEMU, reserved) == []
    assert found("arm64", QEMU, at=0) == []  # Cloud Hypervisor has it where RAM begins
    alone = changed(QEMU, {"/cpus/cpu@1": None, "/psci": None})
    assert found("arm64", alone, cpus=1) == []
    alone = changed(alone, {"/cpus/cpu@0": {"enable-method": None}})
    assert found("arm64", alone, cpus=1) == []
    banks = ((ARM_START, SIZE), (8 * GIB, MIB))
    high = changed(
        QEMU, {"/memory@200000000": {"device_type": "memory", "reg": quad(8 * GIB, MIB)}}
    )
    assert found("arm64", high, banks=banks) == []
    far = ((ARM_START, SIZE), (64 * GIB, MIB))
    high = changed(
        QEMU, {"/memory@1000000000": {"device_type": "memory", "reg": quad(64 * GIB, MIB)}}
    )
    assert found("arm64", high, banks=far, at=63 * GIB) == []
    assert found("arm64", changed(QEMU, {"/cpus/cpu@1": SPIN}), [(ARM_START + 40 * MIB, 8)]) == []


VIOLATION, TOLERATED = "violation", "tolerated"
KEPT: Final = quad(ARM_START + 16 * MIB, MIB)
DEFECTS: Final[dict[str, tuple[Changes, str, str]]] = {
    "no memory": ({MEMORY: None}, VIOLATION, "memory-node"),
    "memory without a type": ({MEMORY: {"device_type": None}}, VIOLATION, "memory-node"),
    "memory of another type": ({MEMORY: {"device_type": "ram"}}, VIOLATION, "memory-node"),
    "memory that is off": ({MEMORY: {"status": "disabled"}}, VIOLATION, "memory-node"),
    "no cells": (
        {"/": {"#size-cells": None}, MEMORY: {"reg": (quad(ARM_START), SIZE)}},
        *(VIOLATION, "root-cells"),
    ),
    "more memory": ({MEMORY: {"reg": quad(ARM_START, GIB)}}, VIOLATION, "map-no-ram"),
    "memory elsewhere": (
        {MEMORY: {"reg": quad(ARM_START, SIZE, 8 * GIB, MIB)}},
        *(VIOLATION, "map-no-ram"),
    ),
    "memory twice": (
        {MEMORY: {"reg": quad(ARM_START, SIZE, ARM_START, MIB)}},
        *(TOLERATED, "map-overlap"),
    ),
    "less memory": ({MEMORY: {"reg": quad(ARM_START, 60 * MIB)}}, TOLERATED, "map-less"),
    "initrd without an end": (
        {"/chosen": {"linux,initrd-start": INITRD_AT}},
        *(VIOLATION, "chosen-initrd"),
    ),
    "initrd in 16 bits": (
        {"/chosen": {"linux,initrd-start": b"\1\2", "linux,initrd-end": b"\3\4"}},
        *(VIOLATION, "chosen-initrd"),
    ),
    "initrd backwards": (
        {"/chosen": {"linux,initrd-start": INITRD_END, "linux,initrd-end": INITRD_AT}},
        *(VIOLATION, "chosen-initrd"),
    ),
    "initrd that is none": (
        {"/chosen": {"linux,initrd-start": INITRD_AT + 8, "linux,initrd-end": INITRD_END}},
        *(VIOLATION, "initrd"),
    ),
    "bootargs without a NUL": ({"/chosen": {"bootargs": b"quiet"}}, VIOLATION, "bootargs"),
    "long bootargs": ({"/chosen": {"bootargs": "x" * 2048}}, VIOLATION, "cmdline-size"),
    "one CPU twice": ({"/cpus/cpu@1": {"reg": 0}}, VIOLATION, "cpu-twice"),
    "another first CPU": ({"/cpus/cpu@0": {"reg": 9}}, VIOLATION, "cpu-in-dtb"),
    "a CPU too many": ({"/cpus/cpu@2": {**trees.ARM, "reg": 2}}, VIOLATION, "cpus"),
    "a CPU too few": ({"/cpus/cpu@1": None}, VIOLATION, "cpus"),
    "a CPU that is off for good": (
        {"/cpus/cpu@1": {"status": "disabled", "enable-method": None}},
        *(VIOLATION, "cpus"),
    ),
    "no method": ({"/cpus/cpu@1": {"enable-method": None}}, VIOLATION, "enable-method"),
    "another method": ({"/cpus/cpu@1": {"enable-method": "mbox"}}, VIOLATION, "enable-method"),
    "no psci": ({"/psci": None}, VIOLATION, "enable-method"),
    "psci that is off": ({"/psci": {"status": "disabled"}}, VIOLATION, "enable-method"),
    "psci that is called by no one": ({"/psci": {"method": "svc"}}, VIOLATION, "enable-method"),
    "old psci without numbers": (
        {"/psci": {"compatible": "arm,psci"}},
        *(VIOLATION, "enable-method"),
    ),
    "a spin-table nowhere": (
        {"/cpus/cpu@1": {"enable-method": "spin-table"}},
        *(VIOLATION, "spin-table"),
    ),
    "a spin-table in 32 bits": (
        {"/cpus/cpu@1": {**SPIN, "cpu-release-addr": 0x1000}},
        *(VIOLATION, "spin-table"),
    ),
    "a spin-table anywhere": (
        {"/cpus/cpu@1": {**SPIN, "cpu-release-addr": quad(0x8000FFFC)}},
        *(VIOLATION, "spin-table"),
    ),
    "a spin-table that is taken": ({"/cpus/cpu@1": SPIN}, VIOLATION, "spin-table"),
    "a kernel that is not mapped": (
        {**RESERVED, "/reserved-memory/kept": {"reg": KEPT, "no-map": EMPTY}},
        *(VIOLATION, "reserved-memory"),
    ),
    "a kernel that is reserved": (
        {**RESERVED, "/reserved-memory/kept": {"reg": KEPT}},
        *(TOLERATED, "reserved-memory"),
    ),
    "reserved memory without ranges": (
        {"/reserved-memory": CELLS, "/reserved-memory/kept": {"reg": KEPT, "no-map": EMPTY}},
        *(TOLERATED, "reserved-memory-format"),
    ),
    "reserved memory in other cells": (
        {"/reserved-memory": {**ONE, "ranges": EMPTY}},
        *(TOLERATED, "reserved-memory-format"),
    ),
    "reserved memory of no whole ranges": (
        {**RESERVED, "/reserved-memory/kept": {"reg": KEPT[:12], "no-map": EMPTY}},
        *(TOLERATED, "reserved-memory-format"),
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_single_defects(defect: str) -> None:
    changes, grade, code = DEFECTS[defect]
    assert found("arm64", changed(QEMU, changes)) == [(grade, code)]


def test_a_tree_without_cpus_tells_of_the_one_that_runs() -> None:
    none = changed(QEMU, {"/cpus": None})
    assert found("arm64", none, cpus=1) == [(VIOLATION, "cpu-in-dtb")]
    assert found("arm64", none) == [(VIOLATION, "cpus"), (VIOLATION, "cpu-in-dtb")]


def test_the_longest_command_lines() -> None:
    assert found("arm64", changed(QEMU, {"/chosen": {"bootargs": "x" * 2047}})) == []
    assert found("riscv64", changed(HARTS, {"/chosen": {"bootargs": "x" * 1023}})) == []


def test_defects_of_the_hand_over() -> None:
    assert found("arm64", QEMU, at=48 * MIB + 4) == [(VIOLATION, "dtb-alignment")]
    assert found("arm64", QEMU, at=18 * MIB) == [(VIOLATION, "overlap")]
    alone = changed(QEMU, {"/cpus/cpu@1": None, "/cpus/cpu@0": {"reg": 9}})
    assert found("arm64", alone, cpus=1) == [(VIOLATION, "cpu-in-dtb")]
    at = [(ARM_START + 56 * MIB, 4096)]  # where there is an initrd, and no zero
    full = {"/cpus/cpu@1": {**SPIN, "cpu-release-addr": quad(INITRD_AT)}}
    assert found("arm64", changed(QEMU, full), at) == [(VIOLATION, "spin-table")]


def test_firmware_is_called_from_the_level_of_the_entry() -> None:
    by_smc = changed(QEMU, {"/psci": {"method": "smc"}})
    assert found("arm64", by_smc) == found("arm64", by_smc, pstate=0x3C9) == []
    assert found("arm64", QEMU, pstate=0x3C9) == [(VIOLATION, "enable-method")]
    alone = changed(QEMU, {"/cpus/cpu@1": None})
    assert found("arm64", alone, pstate=0x3C9, cpus=1) == []


HARTS: Final = RISCV64["qemu"]
RISCV_MEMORY: Final = f"/memory@{RISCV_START:x}"
FIRMWARES: Final = f"/reserved-memory/mmode_resv0@{RISCV_START:x}"
INTC: Final = "/cpus/cpu@0/interrupt-controller"
RISCV_LEGAL: Final[dict[str, Changes]] = {
    "capitals": {"/cpus/cpu@0": {"riscv,isa": "RV64IMAFDC"}},
    "extensions alone": {
        "/cpus/cpu@0": {
            "riscv,isa": None,
            "riscv,isa-base": "rv64i",
            "riscv,isa-extensions": ("i", "m", "a", "zicsr"),
        }
    },
    "a second hart without interrupts": {"/cpus/cpu@1/interrupt-controller": None},
    "another maker's": {INTC: {"compatible": ("andestech,cpu-intc", "riscv,cpu-intc")}},
    "no MMU that is told of": {"/cpus/cpu@0": {"mmu-type": None}},
}


@pytest.mark.parametrize("variant", RISCV_LEGAL)
def test_legal_variants_of_riscv64(variant: str) -> None:
    assert found("riscv64", changed(HARTS, RISCV_LEGAL[variant])) == []


RISCV_DEFECTS: Final[dict[str, tuple[Changes, str, str]]] = {
    "no memory": ({RISCV_MEMORY: None}, VIOLATION, "memory-node"),
    "another first hart": ({"/cpus/cpu@0": {"reg": 9}}, VIOLATION, "hart-in-dtb"),
    "one hart twice": ({"/cpus/cpu@1": {"reg": 0}}, VIOLATION, "cpu-twice"),
    "a hart that is off": ({"/cpus/cpu@1": {"status": "disabled"}}, VIOLATION, "cpus"),
    "a hart of no ISA": ({"/cpus/cpu@1": {"riscv,isa": None}}, VIOLATION, "hart-isa"),
    "a hart of another ISA": ({"/cpus/cpu@1": {"compatible": "arm"}}, VIOLATION, "hart-isa"),
    "a hart that is short for more": (
        {"/cpus/cpu@1": {"riscv,isa": "rv64gc"}},
        *(VIOLATION, "hart-isa"),
    ),
    "a hart of 32 bits": ({"/cpus/cpu@1": {"riscv,isa": "rv32ima"}}, VIOLATION, "hart-isa"),
    "a base of 32 bits": (
        {"/cpus/cpu@1": {"riscv,isa-base": "rv32i", "riscv,isa-extensions": ("i", "m", "a")}},
        *(VIOLATION, "hart-isa"),
    ),
    "a base alone": ({"/cpus/cpu@1": {"riscv,isa-base": "rv64i"}}, VIOLATION, "hart-isa"),
    "a hart without atomics": (
        {"/cpus/cpu@1": {"riscv,isa-base": "rv64i", "riscv,isa-extensions": ("i", "m")}},
        *(VIOLATION, "hart-isa"),
    ),
    "the first hart's interrupts": ({INTC: None}, VIOLATION, "hart-intc"),
    "the first hart's interrupts are off": (
        {INTC: {"status": "disabled"}},
        *(VIOLATION, "hart-intc"),
    ),
    "no clock": ({"/cpus": {"timebase-frequency": None}}, VIOLATION, "timebase"),
    "a clock of the hart's own": (
        {"/cpus": {"timebase-frequency": None}, "/cpus/cpu@0": {"timebase-frequency": 10}},
        *(VIOLATION, "timebase"),
    ),
    "the firmware is not reserved": (
        {"/reserved-memory": None},
        *(VIOLATION, "firmware-reserved"),
    ),
    "the firmware is mapped": ({FIRMWARES: {"no-map": None}}, TOLERATED, "firmware-reserved"),
    "half of the firmware is reserved": (
        {
            FIRMWARES: None,
            "/reserved-memory/kept": {"reg": quad(RISCV_START, MIB), "no-map": EMPTY},
        },
        *(VIOLATION, "firmware-reserved"),
    ),
    "long bootargs": ({"/chosen": {"bootargs": "x" * 1024}}, VIOLATION, "cmdline-size"),
}


@pytest.mark.parametrize("defect", RISCV_DEFECTS)
def test_single_defects_of_riscv64(defect: str) -> None:
    changes, grade, code = RISCV_DEFECTS[defect]
    assert found("riscv64", changed(HARTS, changes)) == [(grade, code)]


def test_riscv64_firmware_that_is_not_in_memory() -> None:
    behind = quad(RISCV_START + 2 * MIB, SIZE - 2 * MIB)
    tree = changed(HARTS, {"/reserved-memory": None, RISCV_MEMORY: {"reg": behind}})
    assert found("riscv64", tree) == [(TOLERATED, "map-less")]


@pytest.mark.parametrize(
    ("text_offset", "privilege", "wanted"),
    [
        (2 * MIB, 1, []),
        (2 * MIB, 3, [(VIOLATION, "privilege")]),
        (0, 1, []),
        (0, 3, []),  # with CONFIG_RISCV_M_MODE
        (0, 0, [(VIOLATION, "privilege")]),
    ],
)
def test_riscv64_kernels_for_machine_mode(
    text_offset: int, privilege: int, wanted: list[tuple[str, str]]
) -> None:
    image = IMAGES["riscv64"]
    image = image[:8] + text_offset.to_bytes(8, "little") + image[16:]
    assert found("riscv64", HARTS, image=image, privilege=privilege) == wanted


JUMP: Final = bytes.fromhex("5d000014")  # to what is behind a header: also how lzma may begin
PACKED: Final = {
    "gzip": gzip.compress(IMAGES["arm64"], mtime=0),
    "zboot": b"MZ\0\0zimg" + bytes(56),
    "elf": b"\x7fELF\2\1\1" + bytes(57),
    "uImage": bytes.fromhex("27051956") + bytes(60),
    "boot.img": b"ANDROID!" + bytes(56),
    "FIT": bytes.fromhex("d00dfeed") + bytes(60),
    "lz4": bytes.fromhex("02214c18") + bytes(60),
    "another CPU's": IMAGES["riscv64"],
}


@pytest.mark.parametrize("file", PACKED)
def test_a_file_that_is_no_code_is_entered(file: str) -> None:
    assert found("arm64", QEMU, image=PACKED[file]) == [(VIOLATION, "entry")]


def test_code_of_guests_that_are_no_linux() -> None:
    assert found("arm64", QEMU, image=JUMP + bytes(12) + b"U-Boot 2026.01") == []
    assert found("riscv64", HARTS, image=IMAGES["arm64"]) == [(VIOLATION, "entry")]
    assert found("riscv64", HARTS, image=PACKED["gzip"]) == [(VIOLATION, "entry")]
