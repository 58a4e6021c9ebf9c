"""Register dumps of real QEMU read back, and what they tell of a CPU's end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bootproof.harness.arch.dump import DumpFormat, each_cpu
from bootproof.loader.address import GIB, MIB
from bootproof.loader.arch.aarch64 import Arm64Registers
from bootproof.loader.arch.riscv64 import RiscvRegisters
from bootproof.loader.arch.x86_64 import Segment, X86Registers
from tests.builders.dumps import ARM64, RISCV, X86, arm64_dump, riscv_dump, x86_dump
from tests.builders.guests import Guest, flat32, flat64, live, machine, program

# --- registers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [flat32, flat64])
def test_x86_dump_of_a_real_cpu(make: type, tmp_path: Path) -> None:
    """As it was demanded; the pc is behind the HLT. tests/loader/arch/test_stub.py has the rest."""
    registers = make(2 * MIB, rax=0x11223344, rsp=0x8000, fs=Segment(0x28, 0x1234, 0xFFF, 0x93))
    with live(Guest(program("x86_64").wait(), registers), machine("x86_64"), tmp_path) as running:
        dump = running.registers(until="HLT=1")
    found = X86.parse(dump, {})
    assert isinstance(found, X86Registers)
    assert (found.pc, found.rax, found.rsp, found.fs) == (
        *(2 * MIB + 1, 0x11223344, 0x8000),
        Segment(0x28, 0x1234, 0xFFF, 0x93),
    )
    assert found.long_mode == (make is flat64)
    assert X86.program_counter(dump) == found.pc
    assert X86.interrupts_off(dump)


def test_arm64_dump_of_a_real_cpu(tmp_path: Path) -> None:
    registers = Arm64Registers(GIB + 2 * MIB, sp=5).with_x(x0=7, x30=9)
    guest = Guest(program("aarch64").wait(), registers)
    with live(guest, machine("aarch64"), tmp_path) as running:
        dump = running.registers(until=f"PC={GIB + 2 * MIB + 4:016x}")
    assert ARM64.parse(dump, {}) == registers.__class__(
        GIB + 2 * MIB + 4, registers.x, 5, registers.pstate
    )
    assert ARM64.program_counter(dump) == GIB + 2 * MIB + 4
    assert ARM64.interrupts_off(dump)


def test_riscv_dump_of_a_real_cpu(tmp_path: Path) -> None:
    entry = 2 * GIB + 2 * MIB
    registers = RiscvRegisters(entry).with_x(x1=3, x10=7, x31=9)
    guest = Guest(program("riscv64").wait(), registers)
    with live(guest, machine("riscv64"), tmp_path) as running:
        dump = running.registers(until=f"pc       {entry + 4:016x}")
    assert (
        RISCV.parse(dump, {"priv": 1}) == RISCV.parse(dump, {}) == replace(registers, pc=entry + 4)
    )
    assert RISCV.program_counter(dump) == entry + 4
    assert RISCV.interrupts_off(dump)


@pytest.mark.parametrize("dump", ["", "garbage", x86_dump(0), arm64_dump(0), riscv_dump(0)])
def test_incomplete_dumps_are_named(dump: str) -> None:
    with pytest.raises(ValueError, match="QEMU's register dump shows no "):
        X86.parse(dump, {})
    with pytest.raises(ValueError, match="QEMU's register dump shows no "):
        ARM64.parse(dump, {})
    with pytest.raises(ValueError, match="QEMU's register dump shows no "):
        RISCV.parse(dump, {})


@pytest.mark.parametrize("working", [False, True])
def test_each_cpu_of_a_real_machine(working: bool, tmp_path: Path) -> None:
    """CPU 1 waits to be started, and says HLT=1, whether CPU 0 works or not."""
    code = program("x86_64")
    guest = Guest(code.spin() if working else code.wait(), flat64(2 * MIB))
    with live(guest, replace(machine("x86_64"), cpus=2), tmp_path) as running:
        running.registers(until=f"RIP={2 * MIB:016x}" if working else "HLT=1")
        dump = running.hmp("info registers -a")
    assert [X86.halted(part, b"") for part in each_cpu(dump)] == [not working, True]


def test_cpus_of_a_dump() -> None:
    both = x86_dump(0x10) + x86_dump(0x20).replace("CPU#0", "CPU#1")
    assert [X86.program_counter(part) for part in each_cpu(both)] == [0x10, 0x20]
    assert each_cpu("HLT=1") == ["HLT=1"]


def test_only_the_first_cpu_counts() -> None:
    both = x86_dump(0x10) + x86_dump(0x20).replace("CPU#0", "CPU#1")
    assert X86.program_counter(both) == 0x10


@pytest.mark.parametrize(
    ("format_", "dump", "off"),
    [
        (X86, x86_dump(0, 0x2), True),
        (X86, x86_dump(0, 0x202), False),
        (X86, "EIP=0 EFL=00000202 [", False),
        (X86, "", False),
        (ARM64, arm64_dump(0, 0x3C5), True),
        (ARM64, arm64_dump(0, 0xC5), True),
        (ARM64, arm64_dump(0, 0x345), False),  # FIQs come through
        (ARM64, arm64_dump(0, 0x385), False),
        (ARM64, "", False),
        (RISCV, riscv_dump(0, 0xA00000180), True),
        (RISCV, riscv_dump(0, 0xA00000182), False),
        (RISCV, "", False),
    ],
)
def test_interrupts_off(format_: DumpFormat, dump: str, off: bool) -> None:
    assert format_.interrupts_off(dump) is off


@pytest.mark.parametrize(
    ("format_", "dump", "before", "halted"),
    [
        (X86, "HLT=1", b"", True),
        (X86, "HLT=0", b"\x7f\x20\x03\xd5", False),
        (ARM64, "HLT=1", b"", False),
        (ARM64, "", bytes.fromhex("000000007f2003d5"), True),
        (ARM64, "", bytes.fromhex("7f2003d500000000"), False),
        (RISCV, "", bytes.fromhex("0000000073005010"), True),
        (RISCV, "", bytes.fromhex("7300501000000000"), False),
    ],
)
def test_halted(format_: DumpFormat, dump: str, before: bytes, halted: bool) -> None:
    assert format_.halted(dump, before) is halted


# --- resets ------------------------------------------------------------------------------------

EMPTY_IDT = "GDT=     00001000 00000037\nIDT=     00000000 00000000\n"
KERNELS_IDT = "IDT=     fffffe0000000000 00000fff\n"
PORT = "the last instruction wrote to an I/O port, which may have asked for a reset"
CALL = "the guest asked for it; the call is not the last thing it did"


@pytest.mark.parametrize(
    ("format_", "dump", "before", "at", "cause"),
    [
        (X86, EMPTY_IDT, "0f011d00", "cc", "a triple fault by int3 with an empty IDT, as a kernel"),
        (X86, EMPTY_IDT, "0f0110b8", "8ed8", "a triple fault, with an empty IDT"),
        (X86, EMPTY_IDT, "", "", "a triple fault, with an empty IDT"),
        (X86, KERNELS_IDT, "90", "cc", "a triple fault, with an IDT of limit 0xfff"),
        (X86, KERNELS_IDT, "b0fee664", "90", PORT),
        (X86, EMPTY_IDT, "ee", "cc", PORT),
        (
            ARM64,
            " X00=0000000084000009 X01",
            "00000000020000d4",
            "",
            "the guest asked the firmware",
        ),
        (ARM64, " X00=00000000c4000012 X01", "030000d4", "", "(PSCI SYSTEM_RESET2)"),
        (ARM64, " X00=0000000084000008 X01", "020000d4", "", CALL),
        (ARM64, " X00=0000000084000009 X01", "1f2003d5", "", CALL),
        (RISCV, riscv_dump(0x80001234, mcause=9, mepc=0x8020), "", "", "(SBI call at 0x8020)"),
        (RISCV, riscv_dump(0x80001234, mcause=2), "", "", "the guest wrote to the test device"),
        (RISCV, riscv_dump(0x80201234, mcause=9), "", "", "the guest wrote to the test device"),
    ],
)
def test_reset_cause(format_: DumpFormat, dump: str, before: str, at: str, cause: str) -> None:
    found = format_.reset_cause(dump, bytes.fromhex(before), bytes.fromhex(at))
    assert cause in found
