"""Register dumps of real QEMU read back, and CPUs that go round in place recognised."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bootproof.harness.qemu import machine as qemu
from bootproof.harness.qemu.dump import DumpFormat, each_cpu, parse_arm64, parse_x86
from bootproof.harness.qemu.stuck import IdleDetector, StuckDetector
from bootproof.loader.address import GIB, MIB
from bootproof.loader.arch.aarch64 import Arm64Registers
from bootproof.loader.arch.x86_64 import Segment
from tests.builders.guests import Guest, flat32, flat64, live, machine, program

X86, ARM64 = qemu.ARCHES["x86_64"].dump, qemu.ARCHES["aarch64"].dump


def x86_dump(rip: int, flags: int = 2, rax: int = 0) -> str:
    return f"\nCPU#0\nRAX={rax:016x} RBX=0\nRIP={rip:016x} RFL={flags:08x} [-------] HLT=0\n"


def arm64_dump(pc: int, pstate: int = 0x3C5) -> str:
    return f"\nCPU#0\n PC={pc:016x} X00=0\nPSTATE={pstate:08x} ---- EL1h\n"


# --- dumps -------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [flat32, flat64])
def test_x86_dump_of_a_real_cpu(make: type, tmp_path: Path) -> None:
    """As it was demanded; the pc is behind the HLT. tests/loader/arch/test_stub.py has the rest."""
    registers = make(2 * MIB, rax=0x11223344, rsp=0x8000, fs=Segment(0x28, 0x1234, 0xFFF, 0x93))
    with live(Guest(program("x86_64").wait(), registers), machine("x86_64"), tmp_path) as running:
        dump = running.registers(until="HLT=1")
    found = parse_x86(dump)
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
    assert parse_arm64(dump) == registers.__class__(
        GIB + 2 * MIB + 4, registers.x, 5, registers.pstate
    )
    assert ARM64.program_counter(dump) == GIB + 2 * MIB + 4
    assert ARM64.interrupts_off(dump)


@pytest.mark.parametrize("dump", ["", "garbage", x86_dump(0), arm64_dump(0)])
def test_incomplete_dumps_are_named(dump: str) -> None:
    with pytest.raises(ValueError, match="QEMU's register dump shows no "):
        parse_x86(dump)
    with pytest.raises(ValueError, match="QEMU's register dump shows no "):
        parse_arm64(dump)


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
    ],
)
def test_interrupts_off(format_: DumpFormat, dump: str, off: bool) -> None:
    assert format_.interrupts_off(dump) is off


# --- the detector ------------------------------------------------------------------------------


def seen_stuck(dumps: list[str], seconds: float, detector: StuckDetector | None = None) -> bool:
    """Whether one of the samples, spread evenly over CPU time, says so."""
    found = detector or StuckDetector(X86)
    return any(
        found.stuck(dump, 5 + seconds * number / len(dumps)) for number, dump in enumerate(dumps)
    )


def test_a_small_loop_seen_long_enough() -> None:
    loop = [x86_dump(0x1000 + number % 3) for number in range(30)]
    assert seen_stuck(loop, 2.0)


def test_not_long_enough_or_not_often_enough() -> None:
    loop = [x86_dump(0x1000)] * 30
    assert not seen_stuck(loop, 0.9)
    assert not seen_stuck(loop[:14], 100.0)


def test_a_loop_that_counts_is_no_standstill() -> None:
    assert not seen_stuck([x86_dump(0x1000, rax=number) for number in range(500)], 100.0)


def test_a_loop_of_more_states_than_a_loop_in_place_has() -> None:
    assert not seen_stuck([x86_dump(0x1000 + number % 7) for number in range(500)], 100.0)
    assert seen_stuck([x86_dump(0x1000 + number % 6) for number in range(500)], 100.0)


def test_with_interrupts_on_nothing_can_be_said() -> None:
    assert not seen_stuck([x86_dump(0x1000, 0x202)] * 100, 100.0)
    mixed = [x86_dump(0x1000, 0x202 if number % 10 == 9 else 2) for number in range(100)]
    assert not seen_stuck(mixed, 100.0)


def test_progress_begins_anew() -> None:
    detector = StuckDetector(X86)
    assert not seen_stuck([x86_dump(0x1000)] * 14, 0.95, detector)
    detector.clear()
    assert not detector.stuck(x86_dump(0x1000), 10.0)
    detector.clear()
    assert seen_stuck([x86_dump(0x1000)] * 30, 2.0, detector)


def test_program_counters_that_were_seen() -> None:
    detector = StuckDetector(ARM64)
    for pc in (0x4020000C, 0x40200008, 0, 0x40200008):
        detector.stuck(arm64_dump(pc), 0)
    assert detector.counters == (0, 0x40200008, 0x4020000C)


# --- halted CPUs -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format_", "dump", "before", "halted"),
    [
        (X86, "HLT=1", b"", True),
        (X86, "HLT=0", b"\x7f\x20\x03\xd5", False),
        (ARM64, "HLT=1", b"", False),
        (ARM64, "", bytes.fromhex("000000007f2003d5"), True),
        (ARM64, "", bytes.fromhex("7f2003d500000000"), False),
    ],
)
def test_halted(format_: DumpFormat, dump: str, before: bytes, halted: bool) -> None:
    assert format_.halted(dump, before) is halted


def idle_for(looks: list[bool], detector: IdleDetector | None = None) -> float:
    """After looks one CPU second apart."""
    found = detector or IdleDetector(10)
    return [found.since(halted, number) for number, halted in enumerate(looks)][-1]


def test_idle_cpu() -> None:
    assert idle_for([True] * 10) == 9
    assert idle_for([True] * 9) == 0  # not looked at often enough
    assert idle_for([True, False] * 10) == 19  # a timer now and then is no work


def test_cpu_at_work_is_not_idle() -> None:
    assert idle_for([False] * 100) == 0
    assert idle_for([True] * 10 + [False] * 12 + [True] * 9) == 0
    detector = IdleDetector(10)
    idle_for([True] * 10, detector)
    detector.clear()
    assert detector.since(True, 100) == 0


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
    ],
)
def test_reset_cause(format_: DumpFormat, dump: str, before: str, at: str, cause: str) -> None:
    found = format_.reset_cause(dump, bytes.fromhex(before), bytes.fromhex(at))
    assert cause in found
