"""Register states as data: descriptors decoded bit by bit, JSON there and back."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootproof.loader.arch import from_json, to_json
from bootproof.loader.arch.aarch64 import Arm64Registers
from bootproof.loader.arch.riscv64 import RiscvRegisters
from bootproof.loader.arch.table import ARCHITECTURES
from bootproof.loader.arch.x86_64 import (
    ATTR_LDT,
    ATTR_TSS_BUSY,
    DescriptorTable,
    Segment,
    X86Registers,
)
from tests.builders.guests import flat32, flat64

# --- descriptors -------------------------------------------------------------------------------


def decoded(descriptor: int) -> dict[str, int]:
    """The fields of a segment descriptor, bit by bit as in figure 3-8 of SDM vol. 3A."""
    low, high = descriptor & 0xFFFFFFFF, descriptor >> 32
    return {
        "limit": low & 0xFFFF | high & 0xF0000,
        "base": low >> 16 | (high & 0xFF) << 16 | high & 0xFF000000,
        "type": high >> 8 & 0xF,
        "s": high >> 12 & 1,
        "dpl": high >> 13 & 3,
        "p": high >> 15 & 1,
        "avl": high >> 20 & 1,
        "l": high >> 21 & 1,
        "db": high >> 22 & 1,
        "g": high >> 23 & 1,
    }


FLAT = {"limit": 0xFFFFF, "base": 0, "s": 1, "dpl": 0, "p": 1, "avl": 0, "g": 1}


@pytest.mark.parametrize(
    ("segment", "fields"),
    [
        (flat32(0).cs, FLAT | {"type": 0b1011, "l": 0, "db": 1}),
        (flat64(0).cs, FLAT | {"type": 0b1011, "l": 1, "db": 0}),
        (flat32(0).ds, FLAT | {"type": 0b0011, "l": 0, "db": 1}),
        (
            Segment(8, 0xFEDCBA98, 0x12345, 0x40F3),
            {
                "limit": 0x12345,
                "base": 0xFEDCBA98,
                "type": 3,
                "s": 1,
                "dpl": 3,
                "p": 1,
                "avl": 0,
                "l": 0,
                "db": 1,
                "g": 0,
            },
        ),
        (
            Segment(8, 0, 0x12345FFF, 0xD093),
            FLAT | {"limit": 0x12345, "type": 3, "avl": 1, "l": 0, "db": 1},
        ),
        # LTR refuses a busy TSS (type 11) and makes an available one (9) busy itself.
        (
            Segment(0x18, limit=0x67, attributes=ATTR_TSS_BUSY),
            FLAT | {"limit": 0x67, "type": 9, "s": 0, "l": 0, "db": 0, "g": 0},
        ),
        (
            Segment(0x20, limit=0xFFFF, attributes=ATTR_LDT),
            FLAT | {"limit": 0xFFFF, "type": 2, "s": 0, "l": 0, "db": 0, "g": 0},
        ),
    ],
)
def test_descriptor(segment: Segment, fields: dict[str, int]) -> None:
    assert decoded(segment.descriptor()) == fields


def test_well_known_descriptors() -> None:
    assert flat32(0).cs.descriptor() == 0x00CF9B000000FFFF
    assert flat64(0).cs.descriptor() == 0x00AF9B000000FFFF
    assert flat32(0).ds.descriptor() == 0x00CF93000000FFFF


# --- states ------------------------------------------------------------------------------------


def test_mode_and_program_counter() -> None:
    assert (flat64(0x1234).long_mode, flat64(0x1234).pc) == (True, 0x1234)
    assert (flat32(0x1234).long_mode, flat32(0x1234).pc) == (False, 0x1234)
    # Long mode is active, but the code segment is a 32-bit one.
    assert not flat64(0, cs=flat32(0).cs).long_mode
    assert flat32(0x10, cs=Segment(8, base=0x1000)).pc == 0x1010


def test_arm64() -> None:
    cpu = Arm64Registers(0x40200000, sp=1).with_x(x0=5, x30=6)
    assert (cpu.x[0], cpu.x[30], sum(cpu.x)) == (5, 6, 11)
    assert (cpu.pc, cpu.sp) == (0x40200000, 1)
    levels = [Arm64Registers(0, pstate=p).exception_level for p in (0x3C5, 0x3C9, 0x3CD, 0x3C0)]
    assert levels == [1, 2, 3, 0]
    aarch32 = Arm64Registers(0, pstate=0x1D3)
    assert (aarch32.exception_level, aarch32.mode) == (None, "AArch32")


@pytest.mark.parametrize("count", [0, 30, 32])
def test_arm64_has_31_registers(count: int) -> None:
    with pytest.raises(ValueError, match=f"aarch64 has x0 to x30: 31 values, not {count}"):
        Arm64Registers(0, x=(0,) * count)


def test_riscv64() -> None:
    cpu = RiscvRegisters(0x80200000).with_x(x10=5, x31=6)
    assert (cpu.x[10], cpu.x[31], sum(cpu.x)) == (5, 6, 11)
    assert (cpu.mode, cpu.entered_at(4).pc) == ("S-mode", 4)
    modes = [RiscvRegisters(0, privilege=number).mode for number in (0, 2, 3)]
    assert modes == ["U-mode", "mode 2", "M-mode"]


@pytest.mark.parametrize("count", [0, 31, 33])
def test_riscv64_has_32_registers(count: int) -> None:
    with pytest.raises(ValueError, match=f"riscv64 has x0 to x31: 32 values, not {count}"):
        RiscvRegisters(0, x=(0,) * count)


def test_states_are_values() -> None:
    assert flat32(1) == flat32(1)
    assert hash(flat64(1)) == hash(flat64(1))
    assert flat32(1) != flat32(1, r15=1)
    with pytest.raises(FrozenInstanceError):
        flat32(1).rip = 2  # type: ignore[misc]


# --- JSON --------------------------------------------------------------------------------------

u64 = st.integers(0, (1 << 64) - 1)
segments = st.builds(Segment, u64, u64, u64, u64)
tables = st.builds(DescriptorTable, u64, u64)
x86 = st.builds(
    X86Registers,
    **{
        field.name: segments
        if field.name in ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldtr")
        else tables
        if field.name in ("gdtr", "idtr")
        else u64
        for field in fields(X86Registers)
    },
)
arm64 = st.builds(Arm64Registers, u64, st.tuples(*[u64] * 31), u64, u64)
riscv64 = st.builds(RiscvRegisters, u64, st.tuples(*[u64] * 32), u64, u64, u64)


@given(x86)
def test_x86_json_there_and_back(value: X86Registers) -> None:
    assert from_json(X86Registers, json.loads(json.dumps(to_json(value)))) == value


@given(arm64)
def test_arm64_json_there_and_back(value: Arm64Registers) -> None:
    assert from_json(Arm64Registers, json.loads(json.dumps(to_json(value)))) == value


@given(riscv64)
def test_riscv64_json_there_and_back(value: RiscvRegisters) -> None:
    assert from_json(RiscvRegisters, json.loads(json.dumps(to_json(value)))) == value


def test_json_is_hexadecimal_text() -> None:
    """A double, which is what many readers make of a number, has 53 bits."""
    data = to_json(flat64(1 << 63, rax=10))
    assert data["rip"] == "0x8000000000000000"
    assert data["rax"] == "0xa"
    assert data["cs"] == {
        "selector": "0x10",
        "base": "0x0",
        "limit": "0xffffffff",
        "attributes": "0xa09b",
    }
    assert data["gdtr"] == {"base": "0x0", "limit": "0x0"}
    assert to_json(Arm64Registers(0))["x"] == ["0x0"] * 31


SEGMENT = {"selector": 0x10}
LEAST: dict[str, Any] = {
    "rip": 0,
    **dict.fromkeys(("cs", "ds", "es", "fs", "gs", "ss"), SEGMENT),
    "gdtr": {},
}


def test_what_is_left_out_is_as_after_reset() -> None:
    found = from_json(X86Registers, LEAST)
    assert (found.cr0, found.rflags, found.idtr) == (0x11, 2, DescriptorTable(0, 0))
    assert (found.tr, found.ldtr) == (Segment(0, 0, 0xFFFF, 0x8B), Segment(0, 0, 0xFFFF, 0x82))
    assert from_json(Arm64Registers, {"pc": "0x10"}) == Arm64Registers(0x10)


@pytest.mark.parametrize(
    ("arch", "data", "path"),
    [
        ("x86_64", [], "$"),
        ("x86_64", {}, "$.rip"),
        ("x86_64", LEAST | {"rax": "0xg"}, "$.rax"),
        ("x86_64", LEAST | {"rax": 1.0}, "$.rax"),
        ("x86_64", LEAST | {"rax": True}, "$.rax"),
        ("x86_64", LEAST | {"rax": None}, "$.rax"),
        ("x86_64", LEAST | {"rax": -1}, "$.rax"),
        ("x86_64", LEAST | {"rax": 1 << 64}, "$.rax"),
        ("x86_64", LEAST | {"rax": "9" * 5000}, "$.rax"),
        ("x86_64", LEAST | {"eax": 1}, "$.eax"),
        ("x86_64", LEAST | {"cs": 8}, "$.cs"),
        ("x86_64", LEAST | {"cs": {}}, "$.cs.selector"),
        ("x86_64", LEAST | {"cs": SEGMENT | {"dpl": 3}}, "$.cs.dpl"),
        ("x86_64", LEAST | {"gdtr": {"limit": "x"}}, "$.gdtr.limit"),
        ("aarch64", {}, "$.pc"),
        ("aarch64", {"pc": 0, "x": {}}, "$.x"),
        ("aarch64", {"pc": 0, "x": [0] * 30}, "$.x"),
        ("aarch64", {"pc": 0, "x": [0] * 30 + ["y"]}, "$.x[30]"),
    ],
)
def test_malformed_json_is_named(arch: str, data: object, path: str) -> None:
    with pytest.raises(ValueError) as refused:
        from_json(ARCHITECTURES[arch].registers, data)
    assert str(refused.value).startswith(f"{path}: ")
    assert str(refused.value).isprintable()
