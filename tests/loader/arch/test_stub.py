"""The reset stub on real QEMU: every register of a demanded state, read back from the CPU."""

from __future__ import annotations

import re
import struct
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from bootproof.harness.qemu.machine import Machine
from bootproof.harness.registers import compare_registers
from bootproof.harness.terms import Placement
from bootproof.loader.address import GIB, MIB, Range
from bootproof.loader.arch import Copy, Registers, StubError
from bootproof.loader.arch.aarch64 import AARCH64, Arm64Registers
from bootproof.loader.arch.riscv64 import RISCV64, RiscvRegisters
from bootproof.loader.arch.x86_64 import X86_64, DescriptorTable, Segment, X86Registers
from bootproof.loader.layout import Region
from bootproof.loader.protocols.linux64 import identity_map
from tests.builders.guests import Guest, X86Program, flat32, flat64, live, machine, program

# Every flag that POPF sets at privilege level 0, but the trap and the interrupt flag.
ALL_FLAGS = 0x247CD7
TSS = Segment(0x50, base=0x6543210, limit=0x67, attributes=0x8B)

Found = dict[str, int | tuple[int, ...]]


def no_ram(_address: int, _size: int) -> None:
    return None


def distinct(bits: int) -> dict[str, int]:
    """Another value for each general register, with all of its bytes in use."""
    names = ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp"]
    names += [f"r{number}" for number in range(8, 16)] if bits == 64 else []
    mask = (1 << bits) - 1
    return {name: 0xA1B2C3D4E5F60718 * (2 * i + 1) & mask for i, name in enumerate(names)}


LINUX32 = flat32(2 * MIB, **distinct(32))
PVH = flat32(
    2 * MIB,
    **distinct(32),
    tr=replace(TSS, selector=0x20, base=0),
    gdtr=DescriptorTable(0x7000, 0x27),
)
EVERYTHING_32 = flat32(
    2 * MIB,
    **distinct(32),
    cs=Segment(0x48, attributes=0xC09B),
    es=Segment(0x20, base=0x11223000, limit=0xFFFFF, attributes=0x4093),
    fs=Segment(0x28, base=0x456789AB, limit=0x12345FFF, attributes=0xC093),
    gs=Segment(0x30, base=0x89ABCDEF, limit=0x0FFF, attributes=0xC091),
    ss=Segment(0x38, base=0x1000, limit=0xFFFFFFFF, attributes=0xC093),
    ds=Segment(0x40, base=0x2000, limit=0x7FFFF, attributes=0x00F3),
    tr=TSS,
    ldtr=Segment(0x58, base=0x13579BD, limit=0x1F, attributes=0x82),
    gdtr=DescriptorTable(0x81234560, 0xFFEF),
    idtr=DescriptorTable(0x91234560, 0x7FF),
    cr0=0x60010033,  # CD, NW, WP, NE, ET, MP, PE
    cr3=0x12345018,
    cr4=0x6B8,  # OSXMMEXCPT, OSFXSR, PGE, PAE, PSE, DE
    efer=0x801,  # NXE, SCE
    rflags=ALL_FLAGS,
)
_CHANGED_64: dict[str, Any] = {
    **distinct(64),
    "cs": Segment(0x48, limit=0, attributes=0x209B),
    "gdtr": DescriptorTable(0x00007FFF81234560, 0xFFEF),
    "idtr": DescriptorTable(0xFFFF800091234560, 0x7FF),
    "cr0": 0x80050033,  # PG, AM, WP, NE, ET, MP, PE
    "cr3": 0x9018,
    "efer": 0xD01,  # NXE, LMA, LME, SCE
}
EVERYTHING_64 = replace(EVERYTHING_32, **_CHANGED_64)
NULL = Segment(0, limit=0, attributes=0)
NULL_DATA_64 = flat64(2 * MIB, ds=NULL, es=NULL, fs=NULL, gs=NULL, ss=NULL)


@pytest.mark.parametrize(
    "registers",
    [
        pytest.param(LINUX32, id="linux32"),
        pytest.param(PVH, id="pvh"),
        pytest.param(flat64(2 * MIB, **distinct(64)), id="linux64"),
        pytest.param(EVERYTHING_32, id="everything-32"),
        pytest.param(EVERYTHING_64, id="everything-64"),
        pytest.param(NULL_DATA_64, id="null-selectors-64"),
        pytest.param(replace(flat32(2 * MIB), ds=NULL, gs=NULL), id="null-selectors-32"),
    ],
)
def test_x86_registers_are_as_demanded(registers: X86Registers, tmp_path: Path) -> None:
    guest = Guest(program("x86_64", registers.rip).wait(), registers)
    with live(guest, machine("x86_64"), tmp_path) as running:
        found = x86_found(running.registers(until="HLT=1"))
    assert found == x86_expected(registers)


@pytest.mark.parametrize(
    ("entry", "memory"),
    [pytest.param(0x90000000, 2700 * MIB, id="2.25G"), pytest.param(4 * GIB, 3 * GIB, id="4G")],
)
def test_x86_64_bit_entry_may_lie_anywhere(entry: int, memory: int, tmp_path: Path) -> None:
    registers = flat64(entry + 0x123, **distinct(64))
    guest = Guest(
        program("x86_64", registers.rip).wait(), registers, {0x9000: identity_map(0x9000, 5)}
    )
    with live(guest, machine("x86_64", memory=memory), tmp_path) as running:
        found = x86_found(running.registers(until="HLT=1"))
    assert found == x86_expected(registers)


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param({"cs": Segment(0x10, attributes=0xAF9B)}, id="limit-in-attributes"),
        pytest.param({"cs": Segment(0x10, attributes=0xA09A)}, id="code-not-accessed"),
        pytest.param({"ds": Segment(0x28, attributes=0xCF92)}, id="data-not-accessed"),
        pytest.param({"tr": replace(TSS, attributes=0x89)}, id="tss-available"),
        pytest.param({"tr": replace(TSS, attributes=0x808B, limit=0xFFFFF)}, id="tss-4k"),
        pytest.param({"ldtr": Segment(0, limit=0, attributes=0)}, id="no-ldt"),
        pytest.param({"gs": Segment(0, limit=0xFFFF, attributes=0x40)}, id="not-present"),
    ],
)
def test_x86_segments_in_every_documented_form(wanted: dict[str, Any], tmp_path: Path) -> None:
    """A descriptor's own bits 8 to 23, and what a VMM that sets caches itself may leave out."""
    registers = flat64(2 * MIB, **wanted)
    tables = {0x9000: identity_map(0x9000, 1)}
    guest = Guest(program("x86_64", registers.rip).wait(), registers, tables)
    computer = machine("x86_64")
    with live(guest, computer, tmp_path) as running:
        found = computer.arch.dump.parse(running.registers(until="HLT=1"), {})
    assert not list(compare_registers(registers.entered_at(found.pc), found))


_CODE64, _DATA64 = Segment(0x8, attributes=0xA09B), Segment(0x10, attributes=0xC093)
_FLAT: dict[str, Any] = dict.fromkeys(("ds", "es", "fs", "gs", "ss"), _DATA64)
_TSS64 = Segment(0x18, attributes=0x808B)
_TSS32 = Segment(0x18, limit=0x67, attributes=0x8B)
_AT_8FF0: dict[str, Any] = {"rsp": 0x8FF0, "rbp": 0x8FF0, "rsi": 0x7000}
_NULL_DATA: dict[str, Any] = {name: Segment(0) for name in _FLAT}
# As the sources of each set a vCPU for KVM; what they leave is KVM's reset.
AS_VMMS_SET_THEM = {
    "firecracker": flat64(
        *(2 * MIB,),
        **_FLAT | _AT_8FF0,
        cs=_CODE64,
        tr=_TSS64,
        gdtr=DescriptorTable(0x500, 31),
        idtr=DescriptorTable(0x520, 7),
        cr0=0xE0000011,  # PG, and CD and NW of the reset
    ),
    "cloud-hypervisor": flat32(
        *(2 * MIB,),
        **_FLAT,
        cs=Segment(0x8, attributes=0xC09B),
        tr=_TSS32,
        gdtr=DescriptorTable(0x500, 31),
        idtr=DescriptorTable(0x520, 7),
        cr0=0x1,  # without ET
        rbx=0x6000,
    ),
    "openvmm": flat64(
        *(2 * MIB,),
        **_FLAT,
        cs=_CODE64,
        tr=Segment(0, limit=0xFFFF, attributes=0x8B),
        cr0=0x80000021,
        cr4=0x60,  # PAE, MCE
        efer=0xD00,
    ),
    "kvm-host": flat32(
        *(2 * MIB,),
        **_NULL_DATA,
        cs=Segment(0xF000, attributes=0xC09B),
        gdtr=DescriptorTable(0, 0xFFFF),
        idtr=DescriptorTable(0, 0xFFFF),
        cr0=0x60000011,
        rsi=0x10000,
    ),
    "null-tss": flat64(2 * MIB, tr=Segment(0, limit=0x67, attributes=0x8B)),
    "null-everything": flat64(
        *(2 * MIB,), **_NULL_DATA, cs=Segment(0, attributes=0xA09B), rflags=0
    ),
}


@pytest.mark.parametrize("registers", AS_VMMS_SET_THEM.values(), ids=AS_VMMS_SET_THEM)
def test_x86_registers_as_vmms_set_them(registers: X86Registers, tmp_path: Path) -> None:
    """A hypervisor needs no descriptor for a segment, and no selector."""
    tables = {0x9000: identity_map(0x9000, 1)}
    guest = Guest(program("x86_64", registers.rip).wait(), registers, tables)
    computer = machine("x86_64")
    with live(guest, computer, tmp_path) as running:
        found = computer.arch.dump.parse(running.registers(until="HLT=1"), {})
    assert not list(compare_registers(registers.entered_at(found.pc), found))


HIGH = {"64K": 0x10000, "1G": GIB, "last": 2 * GIB - 0x1000}


@pytest.mark.parametrize("make", [flat32, flat64])
@pytest.mark.parametrize("free", HIGH.values(), ids=HIGH)
def test_x86_stub_may_lie_high(make: Any, free: int, tmp_path: Path) -> None:
    """All other RAM from 4 KiB to 2 GiB belongs to someone."""
    registers = make(2 * GIB + 2 * MIB, **distinct(64 if make is flat64 else 32))
    everything = (
        Region("below", Range.between(0, free)),
        Region("kernel", Range.between(free + 0x1000, 4 * GIB)),
    )
    extra = {0x9000: identity_map(0x9000, 4)}
    guest = Guest(program("x86_64", registers.rip).wait(), registers, extra, everything)
    with live(guest, machine("x86_64", memory=2700 * MIB), tmp_path) as running:
        found = x86_found(running.registers(until="HLT=1"))
    assert found == x86_expected(registers)


TABLES = 0x300000


def mapping(levels: int, page: int, entry: int, flags: int = 3) -> dict[int, bytes]:
    """Tables that map 2 MiB at `entry` and the page at `page`, with `flags`, and nothing else."""
    used: dict[int, dict[int, int]] = {TABLES: {}}
    following = TABLES
    for address, lowest, bits in ((entry, 2, 0x83), (page, 1, flags)):
        table = TABLES
        for level in range(levels, lowest, -1):
            slot = address >> 3 + 9 * level & 0x1FF
            if slot not in used[table]:
                following += 0x1000
                used[table][slot] = following | 3
                used[following] = {}
            table = used[table][slot] & ~0xFFF
        used[table][address >> 3 + 9 * lowest & 0x1FF] = address & ~0xFFF | bits
    return {
        table: b"".join(struct.pack("<Q", entries.get(slot, 0)) for slot in range(512))
        for table, entries in used.items()
    }


@pytest.mark.parametrize(
    ("free", "levels", "flags"),
    [
        pytest.param(0x1000, 4, 0, id="low"),
        pytest.param(0xA000, 4, 0, id="in-the-middle"),
        pytest.param(0x1FF000, 4, 0, id="last-of-a-table"),
        pytest.param(GIB + 0x200000, 4, 0, id="equal-indices"),
        pytest.param(0x1000, 4, 1, id="read-only"),
        pytest.param(0x1000, 4, 1 << 63 | 3, id="not-executable"),
        pytest.param(0x8000, 5, 0, id="five-levels"),
        pytest.param(0x8000, 5, 3, id="five-levels-mapped"),
    ],
)
def test_x86_page_tables_need_not_map_the_stub(
    free: int, levels: int, flags: int, tmp_path: Path
) -> None:
    """And nothing of it is left in them."""
    registers = flat64(
        6 * MIB,
        **distinct(64) | {"cr3": TABLES, "cr4": 0x1020 if levels == 5 else 0x20, "efer": 0xD00},
    )
    tables = mapping(levels, free, registers.rip, flags)
    everything = (
        Region("below", Range.between(0, free)),
        Region("kernel", Range.between(free + 0x1000, 4 * GIB)),
    )
    guest = Guest(program("x86_64", registers.rip).wait(), registers, tables, everything)
    computer = Machine.with_defaults(
        "x86_64", memory=1200 * MIB, cpu="max" if levels == 5 else "qemu64"
    )
    with live(guest, computer, tmp_path) as running:
        found = x86_found(running.registers(until="HLT=1"))
        seen = {address: running.memory(address, len(data)) for address, data in tables.items()}
    accessed = int.from_bytes((0x60).to_bytes(8, "little") * 512, "little")
    for address, data in tables.items():
        left, right = (int.from_bytes(side, "little") for side in (data, seen[address]))
        assert not (left ^ right) & ~accessed
    assert found == x86_expected(registers)


@pytest.mark.parametrize("levels", [4, 5])
def test_x86_page_tables_may_lie_above_4_gib(levels: int, tmp_path: Path) -> None:
    """Outside of long mode CR3 has 32 bits."""
    top, lower = 4 * GIB + 0x300000, 4 * GIB + 0x301000
    tables = {lower: identity_map(lower, 1)}
    if levels == 5:
        tables[top] = struct.pack("<Q", lower | 3)
    cr3, cr4 = (top, 0x1020) if levels == 5 else (lower, 0x20)
    registers = flat64(6 * MIB, **distinct(64) | {"cr3": cr3 | 0x18, "cr4": cr4})
    guest = Guest(program("x86_64", registers.rip).wait(), registers, tables)
    cpu = "max" if levels == 5 else "qemu64"
    computer = Machine.with_defaults("x86_64", memory=3 * GIB, cpu=cpu)
    with live(guest, computer, tmp_path) as running:
        found = x86_found(running.registers(until="HLT=1"))
    assert found == x86_expected(registers)


def test_x86_page_tables_above_4_gib_map_the_stub() -> None:
    """Their entries are out of its reach, so that it can lend none."""
    registers = flat64(6 * MIB, cr3=4 * GIB)
    with pytest.raises(StubError, match="map a free page below 2 GiB to itself, or put the tables"):
        X86_64.stub(registers, 0x1000, (), lambda address, size: bytes(size))


@pytest.mark.parametrize("make", [flat32, flat64])
def test_x86_interrupt_flag(make: Any, tmp_path: Path) -> None:
    """The guest itself looks at its flags first: an interrupt would end it (its IDT is empty)."""
    registers = make(2 * MIB, rsp=0x8000, rflags=0x202)
    code = X86Program(2 * MIB).flags_to_eax().wait()
    with live(Guest(code, registers), machine("x86_64"), tmp_path) as running:
        found = x86_found(running.registers(until="HLT=1"))
    assert found["rax"] == 0x202


def x86_expected(r: X86Registers) -> Found:
    """What `info registers` shows for a CPU that waits at its first instruction, one byte long."""
    values: Found = {}
    for field in fields(r):
        value = getattr(r, field.name)
        if isinstance(value, Segment):
            value = (value.selector, value.base, value.limit, value.attributes)
        elif isinstance(value, DescriptorTable):
            value = (value.base, value.limit)
        values[field.name] = value
    if not r.long_mode:
        for number in range(8, 16):  # not shown outside of 64-bit code
            del values[f"r{number}"]
    return values | {"rip": r.rip + 1}


def x86_found(text: str) -> Found:
    """`info registers` of an x86 CPU, by the names of X86Registers."""
    found: Found = {}
    for name, digits in re.findall(r"\b([A-Z]\w+) *=([0-9a-f]+)\b(?! [0-9a-f]{8})", text):
        wide = re.sub(r"^E(?=..$)", "r", name).lower()
        if wide in {f.name for f in fields(X86Registers)}:
            found[wide] = int(digits, 16)
    found["rflags"] = int(re.search(r"[ER]FL=(\w+)", text)[1], 16)  # type: ignore[index]
    segment = r"^(..|LDT) *=(\w{4}) (\w+) (\w{8}) (\w{8})"
    for name, *numbers in re.findall(segment, text, re.MULTILINE):
        selector, base, limit, flags = (int(number, 16) for number in numbers)
        key = "ldtr" if name == "LDT" else name.lower()
        attributes = flags >> 8 & 0xF0FF
        if key == "tr":
            attributes |= 0x2  # QEMU's TCG does not show a task register that LTR loaded as busy
        found[key] = (selector, base, limit, attributes)
    for name, *numbers in re.findall(r"^(GDT|IDT)= +(\w+) (\w+)", text, re.MULTILINE):
        found[f"{name.lower()}r"] = tuple(int(number, 16) for number in numbers)
    return found


# --- aarch64 -----------------------------------------------------------------------------------

ENTRY = GIB + 2 * MIB
DISTINCT_X = tuple(0xA1B2C3D4E5F60718 * (2 * n + 1) & 0xFFFFFFFFFFFFFFFF for n in range(31))


@pytest.mark.parametrize(
    ("registers", "options"),
    [
        pytest.param(Arm64Registers(ENTRY, sp=0xFEDCBA9876543210), "", id="el1"),
        pytest.param(Arm64Registers(ENTRY, pstate=0xA0000285), "", id="el1-flags"),
        pytest.param(Arm64Registers(ENTRY, pstate=0x500003C9), ",virtualization=on", id="el2"),
    ],
)
def test_arm64_registers_are_as_demanded(
    registers: Arm64Registers, options: str, tmp_path: Path
) -> None:
    registers = replace(registers, x=DISTINCT_X)
    guest = Guest(program("aarch64").wait(), registers)
    with live(guest, machine("aarch64"), tmp_path, machine_options=options) as running:
        # Behind the WFI: there the CPU waits.
        found = arm64_found(running.registers(until=f"PC={ENTRY + 4:016x}"))
    assert found == replace(registers, pc=ENTRY + 4)


def test_arm64_entry_may_lie_beyond_4_gib(tmp_path: Path) -> None:
    entry = GIB + 5 * GIB
    registers = Arm64Registers(entry, x=DISTINCT_X)
    guest = Guest(program("aarch64", entry).wait(), registers)
    with live(guest, machine("aarch64", memory=6 * GIB), tmp_path) as running:
        found = arm64_found(running.registers(until=f"PC={entry + 4:016x}"))
    assert found == replace(registers, pc=entry + 4)


@pytest.mark.parametrize("placement", Placement)
def test_arm64_copies_arrive_and_registers_are_as_demanded(
    placement: Placement, tmp_path: Path
) -> None:
    """QEMU's own device tree takes the first MiB of RAM: what belongs there is copied down."""
    low, across, high = (bytes(n * k & 0xFF for n in range(0x5010)) for k in (3, 5, 7))
    extra = {GIB: low, GIB + 0x80000: low, GIB + MIB - 0x2000: across, GIB + 4 * MIB: high}
    registers = Arm64Registers(ENTRY, x=DISTINCT_X, sp=0x123456789ABCDEF0)
    guest = Guest(program("aarch64").wait(), registers, extra)
    with live(guest, machine("aarch64"), tmp_path, placement=placement) as running:
        found = arm64_found(running.registers(until=f"PC={ENTRY + 4:016x}"))
        memory = {address: running.memory(address, len(data)) for address, data in extra.items()}
    assert memory == extra
    assert found == replace(registers, pc=ENTRY + 4)


def arm64_found(text: str) -> Arm64Registers:
    """`info registers` of an aarch64 CPU."""
    found = {name: int(digits, 16) for name, digits in re.findall(r"\b([A-Z]\w+)=(\w+)", text)}
    x = tuple(found[f"X{number:02}"] for number in range(31))
    return Arm64Registers(found["PC"], x, found["SP"], found["PSTATE"])


# --- riscv64 -----------------------------------------------------------------------------------

RISCV_ENTRY = 2 * GIB + 4 * MIB
DISTINCT_RISCV = (0, *DISTINCT_X)
IDENTITY = 2 * GIB + 8 * MIB  # of a page table


def sv39_identity() -> bytes:
    """One table of 512 pages of 1 GiB: V, R, W, X, A and D (RISC-V vol. II, Sv39)."""
    return b"".join((gib << 28 | 0xCF).to_bytes(8, "little") for gib in range(512))


@pytest.mark.parametrize(
    "registers",
    [
        pytest.param(RiscvRegisters(RISCV_ENTRY, DISTINCT_RISCV), id="s-mode"),
        pytest.param(RiscvRegisters(RISCV_ENTRY, DISTINCT_RISCV, sie=1), id="interrupts"),
        pytest.param(
            RiscvRegisters(RISCV_ENTRY, DISTINCT_RISCV, satp=8 << 60 | IDENTITY >> 12), id="sv39"
        ),
    ],
)
def test_riscv_registers_are_as_demanded(registers: RiscvRegisters, tmp_path: Path) -> None:
    extra = {IDENTITY: sv39_identity()}
    guest = Guest(program("riscv64", RISCV_ENTRY).wait(), registers, extra)
    with live(guest, machine("riscv64"), tmp_path) as running:
        found = riscv_found(running.registers(until=f"pc       {RISCV_ENTRY + 4:016x}"))
    assert found == replace(registers, pc=RISCV_ENTRY + 4)


@pytest.mark.parametrize("placement", Placement)
def test_riscv_copies_arrive_and_registers_are_as_demanded(
    placement: Placement, tmp_path: Path
) -> None:
    """QEMU's own device tree takes a half of the last 2 MiB of RAM."""
    end = 2 * GIB + 16 * MIB
    parts = (bytes(n * k & 0xFF for n in range(0x5010)) for k in (3, 5, 7))
    extra = dict(zip((end - 2 * MIB, end - MIB - 0x2000, end - 0x6000), parts, strict=True))
    registers = RiscvRegisters(RISCV_ENTRY, DISTINCT_RISCV)
    guest = Guest(program("riscv64", RISCV_ENTRY).wait(), registers, extra)
    with live(guest, machine("riscv64"), tmp_path, placement=placement) as running:
        found = riscv_found(running.registers(until=f"pc       {RISCV_ENTRY + 4:016x}"))
        memory = {address: running.memory(address, len(data)) for address, data in extra.items()}
    assert memory == extra
    assert found == replace(registers, pc=RISCV_ENTRY + 4)


def riscv_found(text: str) -> RiscvRegisters:
    """`info registers` of a riscv64 CPU; which does not show its privilege."""
    found = {name: int(digits, 16) for name, digits in re.findall(r"\b([\w/]+) +(\w{16})\b", text)}
    x = {int(name[1:].partition("/")[0]): v for name, v in found.items() if re.match(r"x\d", name)}
    return RiscvRegisters(
        found["pc"], tuple(x[n] for n in range(32)), found["satp"], found["mstatus"] >> 1 & 1
    )


# --- what cannot be brought about --------------------------------------------------------------

CODE, DATA = flat32(0).cs, flat32(0).ds


@pytest.mark.parametrize(
    ("registers", "field"),
    [
        (flat32(0, cr0=0x10), "cr0"),
        (flat32(0, cr0=1 << 40 | 0x11), "cr0"),
        (flat32(0, cr3=1 << 32), "cr3"),
        (flat64(0, cr4=1 << 32 | 0x20), "cr4"),
        (flat64(0, cr4=0), "cr4"),
        (flat64(0, cr4=0x20020), "cr4"),
        (flat64(0, efer=0x400), "efer"),
        (flat64(0, efer=0x100), "efer"),
        (flat64(0, cr0=0x11), "efer"),
        (flat32(0, efer=0x500), "efer"),
        (flat32(0, cr0=0x80000011, efer=0x100, cr4=0x20), "efer"),
        (flat32(0, cs=replace(CODE, base=0x1000)), "cs"),
        (flat32(0, cs=replace(CODE, attributes=0x809B)), "cs"),
        (flat64(0, cs=replace(CODE, attributes=0xE09B)), "cs"),
        (flat32(0, cs=replace(CODE, attributes=0xC093)), "cs"),
        (flat32(0, cs=replace(CODE, limit=0xFFFFFFF)), "cs"),
        (flat32(0, ss=NULL), "ss"),
        (flat32(0, ss=replace(DATA, selector=0x20, attributes=0xC091)), "ss"),
        (flat32(0, ss=replace(DATA, selector=0x20, attributes=0xC0F3)), "ss"),
        (flat32(0, es=replace(DATA, selector=0x24)), "es"),
        (flat32(0, es=replace(DATA, selector=0x23)), "es"),
        (flat32(0, es=replace(DATA, selector=0x10020)), "es"),
        (flat32(0, es=replace(DATA, selector=0x1800)), "es"),
        (flat32(0, gs=replace(DATA, selector=0x10)), "gs"),
        (flat32(0, es=replace(DATA, selector=0x20, attributes=0xC013)), "es"),
        (flat32(0, es=replace(DATA, selector=0x20, attributes=0xC099)), "es"),
        (flat32(0, es=replace(DATA, selector=0x20, attributes=0x1C093)), "es"),
        (flat64(0, fs=replace(DATA, selector=0x20, base=1 << 32)), "fs"),
        (flat32(0, gs=replace(DATA, selector=0x20, limit=0x123FFE)), "gs"),
        (flat32(0, gs=replace(DATA, selector=0x20, limit=0x100000, attributes=0x93)), "gs"),
        (flat32(0, gs=replace(DATA, selector=0x20, limit=1 << 32 | 0xFFF)), "gs"),
        (flat32(0, tr=Segment(0x20, limit=0x67, attributes=0x82)), "tr"),
        (flat32(0, tr=Segment(0x20, limit=0x67, attributes=0x0B)), "tr"),
        (flat32(0, ldtr=Segment(0x20, limit=0x67, attributes=0x8B)), "ldtr"),
        (flat32(0, ldtr=Segment(0, base=1, limit=0, attributes=0)), "ldtr"),
        (flat32(0, gdtr=DescriptorTable(0, 0x10000)), "gdtr"),
        (flat32(0, gdtr=DescriptorTable(1 << 32, 0)), "gdtr"),
        (flat32(0, idtr=DescriptorTable(0, 0x10000)), "idtr"),
        (flat64(0, idtr=DescriptorTable(1 << 64, 0)), "idtr"),
        (flat32(1 << 32), "rip"),
        (flat64(1 << 64), "rip"),
        (flat32(0, rax=1 << 32), "rax"),
        (flat64(0, rax=1 << 64), "rax"),
        (flat64(0, r15=-1), "r15"),
        (flat32(0, r8=1), "r8"),
        (flat32(0, rflags=0x102), "rflags"),
        (flat64(0, rflags=0x20002), "rflags"),
        (flat64(0, rflags=1 << 32 | 2), "rflags"),
        (flat64(0, cr0=0x8000_0051), "cr0"),
        (flat64(0, cr3=1 << 52), "cr3"),
        (flat64(0, cr4=1 << 31 | 0x20), "cr4"),
        (flat64(0, cr4=1 << 15 | 0x20), "cr4"),
        (flat64(0, efer=0x510), "efer"),
    ],
)
def test_x86_states_that_no_stub_reaches(registers: X86Registers, field: str) -> None:
    with pytest.raises(StubError) as refused:
        X86_64.stub(registers, 0x1000, (), no_ram)
    assert refused.value.field == field
    assert field in str(refused.value)


@pytest.mark.parametrize("bit", [23, 24, 25, 27, 28])  # CET, PKS, UINTR, LASS, LAM_SUP
def test_bits_that_only_new_cpus_have_are_not_reserved(bit: int) -> None:
    """Whether the machine's CPU has them shows when it gets them."""
    assert X86_64.stub(flat64(0x1000, cr4=1 << bit | 0x20), 0x1000, (), no_ram)


@pytest.mark.parametrize(
    ("registers", "field"),
    [
        (Arm64Registers(0x40000000, pstate=0x3C0), "pstate"),
        (Arm64Registers(0x40000000, pstate=0x3CD), "pstate"),
        (Arm64Registers(0x40000000, pstate=0x3C4), "pstate"),
        (Arm64Registers(0x40000000, pstate=0x1D3), "pstate"),
        (Arm64Registers(0x40000000, pstate=0x1003C5), "pstate"),
        (Arm64Registers(0x40000000, pstate=1 << 32 | 0x3C5), "pstate"),
        (Arm64Registers(0x40000002), "pc"),
        (Arm64Registers(1 << 64), "pc"),
        (Arm64Registers(0x40000000, sp=-1), "sp"),
        (Arm64Registers(0x40000000).with_x(x7=1 << 64), "x7"),
    ],
)
def test_arm64_states_that_no_stub_reaches(registers: Arm64Registers, field: str) -> None:
    with pytest.raises(StubError) as refused:
        AARCH64.stub(registers, 0x40200000, (), no_ram)
    assert refused.value.field == field
    assert field in str(refused.value)


@pytest.mark.parametrize(
    ("registers", "field"),
    [
        (RiscvRegisters(0x80200000, privilege=0), "privilege"),
        (RiscvRegisters(0x80200000, privilege=3), "privilege"),
        (RiscvRegisters(0x80200001), "pc"),
        (RiscvRegisters(1 << 64), "pc"),
        (RiscvRegisters(0x80200000, satp=1 << 64), "satp"),
        (RiscvRegisters(0x80200000, sie=2), "sie"),
        (RiscvRegisters(0x80200000).with_x(x0=1), "x0"),
        (RiscvRegisters(0x80200000).with_x(x7=1 << 64), "x7"),
    ],
)
def test_riscv_states_that_no_stub_reaches(registers: RiscvRegisters, field: str) -> None:
    with pytest.raises(StubError) as refused:
        RISCV64.stub(registers, 0x80400000, (), no_ram)
    assert refused.value.field == field
    assert field in str(refused.value)


@pytest.mark.parametrize("address", [8, 0x1008, 2 * GIB - 0xFF0, 2 * GIB, -16])
def test_x86_stub_must_lie_where_it_reaches_its_data(address: int) -> None:
    with pytest.raises(StubError, match="below 2 GiB"):
        X86_64.stub(flat32(0), address, (), no_ram)


def test_x86_stub_is_entered_where_the_cpu_adds_up_to_its_address() -> None:
    assert X86_64.stub(flat32(0), 0, (), no_ram).loader_entry == 0x10000
    assert X86_64.stub(flat32(0), 0xF000, (), no_ram).loader_entry == 0x1F000
    assert X86_64.stub(flat32(0), GIB, (), no_ram).loader_entry == GIB + 0x10000


def test_x86_stub_refuses_copies() -> None:
    with pytest.raises(StubError, match="does not copy"):
        X86_64.stub(flat32(0), 0x1000, (Copy(0x2000, 0x3000, 16),), no_ram)


ANYWHERE = ((AARCH64, Arm64Registers(0)), (RISCV64, RiscvRegisters(0)))


@pytest.mark.parametrize(("arch", "registers"), ANYWHERE)
def test_stub_must_be_aligned(arch: Any, registers: Registers) -> None:
    with pytest.raises(StubError, match="16-byte aligned"):
        arch.stub(registers, 0x40000008, (), no_ram)


@pytest.mark.parametrize("copy", [Copy(8, 0, 16), Copy(0, 8, 16), Copy(0, 0, 8), Copy(0, 0, 0)])
@pytest.mark.parametrize(("arch", "registers"), ANYWHERE)
def test_copies_must_be_aligned_and_not_empty(arch: Any, registers: Registers, copy: Copy) -> None:
    with pytest.raises(StubError, match="16-byte aligned"):
        arch.stub(registers, 0x40000000, (copy,), no_ram)


@pytest.mark.parametrize(("arch", "registers"), ANYWHERE)
def test_copies_must_fit_the_stub(arch: Any, registers: Registers) -> None:
    def copies(count: int) -> tuple[Copy, ...]:
        return tuple(Copy(i << 20, (i + 1) << 30, 0x1000) for i in range(count))

    assert len(arch.stub(registers, 0, copies(30), no_ram).code) <= arch.stub_size
    with pytest.raises(StubError, match="copies"):
        arch.stub(registers, 0, copies(200), no_ram)
