"""CPUs beside the first one: which of their states mean that they wait for the kernel."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import replace

import pytest

from bootproof.loader.address import GIB, MIB
from bootproof.loader.arch import Read
from bootproof.loader.arch.aarch64 import AARCH64, Arm64Registers
from bootproof.loader.arch.riscv64 import FIRMWARE, RISCV64, RiscvRegisters
from bootproof.loader.arch.x86_64 import X86_64, Segment, X86Registers
from bootproof.loader.protocols.linux64 import identity_map
from tests.builders.guests import PAGE_TABLES, flat32, flat64

ENTRY = 2 * MIB
PARKED = 0x8000
FIRST = flat64(ENTRY)
RESET = flat32(0xFFF0, cs=Segment(0xF000, 0xFFFF0000, 0xFFFF, 0x9B), cr0=0x60000010)
HALTS, SPINS, WORKS = b"\xf4\xeb\xfd", b"\xeb\xfe", b"\x90\x90\x90"


def with_code(code: bytes, at: int, others: Mapping[int, bytes] = {}) -> Read:
    """RAM of 4 MiB from the MiB of `at`, in which there is nothing but this."""
    base = at & ~0xFFFFF
    ram = bytearray(4 * MIB)
    for place, data in {at: code, **others}.items():
        ram[place - base : place - base + len(data)] = data

    def read(address: int, size: int) -> bytes | None:
        start = address - base
        return bytes(ram[start : start + size]) if 0 <= start <= len(ram) - size else None

    return read


@pytest.mark.parametrize(
    ("registers", "code", "waits"),
    [
        pytest.param(RESET, WORKS, True, id="after its reset"),
        pytest.param(FIRST, WORKS, True, id="with the first one's registers"),
        pytest.param(flat32(PARKED + 1), HALTS, True, id="halted"),
        pytest.param(flat32(PARKED), HALTS, True, id="before it halts"),
        pytest.param(flat32(PARKED), SPINS, True, id="loops in place"),
        pytest.param(flat32(PARKED + 1, rflags=0x202), HALTS, False, id="halted, interrupts on"),
        pytest.param(flat32(PARKED), WORKS, False, id="runs"),
        pytest.param(flat32(PARKED + 0x100), WORKS, True, id="where nothing is"),
        pytest.param(flat32(GIB), WORKS, True, id="outside of RAM"),
        pytest.param(
            replace(RESET, rip=PARKED, cs=Segment(0, 0, 0xFFFF, 0x9B)), WORKS, False, id="real mode"
        ),
    ],
)
def test_x86(registers: X86Registers, code: bytes, waits: bool) -> None:
    assert (X86_64.runs(registers, FIRST, with_code(code, PARKED)) == "") is waits


@pytest.mark.parametrize(("linear", "code", "waits"), [(WORKS, HALTS, True), (HALTS, WORKS, False)])
def test_x86_where_its_page_tables_lead(linear: bytes, code: bytes, waits: bool) -> None:
    """The first 2 MiB lead to the next ones."""
    tables = bytearray(identity_map(PAGE_TABLES, 1))
    struct.pack_into("<Q", tables, 0x2000, ENTRY | 0x83)
    read = with_code(linear, PARKED, {PAGE_TABLES: bytes(tables), ENTRY + PARKED: code})
    assert (X86_64.runs(flat64(PARKED), FIRST, read) == "") is waits


def words(*instructions: int) -> bytes:
    return struct.pack(f"<{len(instructions)}I", *instructions)


WFE, WFI, NOP, BRANCH = 0xD503205F, 0xD503207F, 0xD503201F, 0x17FFFFFE


@pytest.mark.parametrize(
    ("pc", "code", "waits"),
    [
        (0, words(NOP, NOP), True),  # off, as PSCI keeps it: also where RAM is at 0
        (GIB + 8, words(WFE, NOP, BRANCH), True),
        (GIB, words(NOP, WFI, BRANCH), True),
        (GIB, words(NOP, NOP, BRANCH), False),
        (GIB + 0x100, words(NOP), True),  # nothing is there
    ],
)
def test_arm64(pc: int, code: bytes, waits: bool) -> None:
    read = with_code(code, GIB if pc else 0)
    assert (AARCH64.runs(Arm64Registers(pc), Arm64Registers(GIB), read) == "") is waits


BASE = FIRMWARE.range.start


@pytest.mark.parametrize(
    ("pc", "code", "waits"),
    [
        (BASE + 0x4A7C, words(0x13), True),  # the firmware's own code
        (FIRMWARE.range.end, words(0x13, 0x13), False),
        (FIRMWARE.range.end + 4, words(0x1050_0073, 0xFFDF_F06F), True),
        (FIRMWARE.range.end + 0x100, words(0x13), True),
    ],
)
def test_riscv64(pc: int, code: bytes, waits: bool) -> None:
    at = FIRMWARE.range.end if pc >= FIRMWARE.range.end else pc
    first = RiscvRegisters(FIRMWARE.range.end)
    assert (RISCV64.runs(RiscvRegisters(pc), first, with_code(code, at)) == "") is waits


LOTTERY, JUMP = 0x00C6_A6AF, 0x0400_006F  # amoadd.w a3, a2, (a3); j +64


@pytest.mark.parametrize(
    ("code", "other", "waits"),
    [
        (words(0x13, LOTTERY, 0x13), {"x10": 1}, True),
        (words(JUMP, *[0x13] * 16, LOTTERY), {"x10": 1}, True),  # behind an Image's header
        (b"\x01\x00" + words(LOTTERY), {"x10": 1}, True),  # behind a compressed instruction
        (b"\x13\0" + words(LOTTERY) + b"\1\0", {"x10": 1}, False),  # parts of two instructions
        (words(JUMP, *[0x13] * 100, LOTTERY), {"x10": 1}, False),  # far from the beginning
        (words(0x13, 0x13), {"x10": 1}, False),
        (words(LOTTERY), {"x10": 0}, False),
        (words(LOTTERY), {"x10": 1, "satp": 1}, False),
    ],
)
def test_riscv64_harts_that_all_enter_the_kernel(
    code: bytes, other: dict[str, int], waits: bool
) -> None:
    """boot.rst, "Kernel entry": RISCV_BOOT_SPINWAIT."""
    first = RiscvRegisters(FIRMWARE.range.end)
    second = replace(first.with_x(x10=other["x10"]), satp=other.get("satp", 0))
    assert (RISCV64.runs(second, first, with_code(code, first.pc)) == "") is waits
