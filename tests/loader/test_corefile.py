"""Cores of whole machines: what is read, and what is refused whatever the file says."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest

from bootproof.loader.address import MIB, Range
from bootproof.loader.arch.aarch64_seen import IMPORTING as ARM64
from bootproof.loader.arch.importing import Importing
from bootproof.loader.arch.riscv64_seen import IMPORTING as RISCV64
from bootproof.loader.arch.x86_64 import DescriptorTable, Segment
from bootproof.loader.arch.x86_seen import IMPORTING as X86
from bootproof.loader.corefile import Core, CoreError, Load, Note, read_core
from bootproof.loader.image import open_image
from tests.builders.images import ElfFile, load, note, notes


def qemu_state(**changes: int) -> bytes:
    """QEMUCPUState: general registers 1 to 16, rip 17, rflags 18, and the rest as named."""
    general = range(1, 19)
    segments = [(0x8 * n, 0xFFFFFFFF, 0x00CF9300, 0, 0x1000 * n) for n in range(10)]
    flat = [value for segment in segments for value in segment]
    control = [changes.get(name, 0) for name in ("cr0", "cr1", "cr2", "cr3", "cr4", "gs")]
    return struct.pack("<2I18Q" + 10 * "4IQ" + "6Q", 1, 440, *general, *flat, *control)


def core(*segments: Any, machine: int = 62) -> bytes:
    return replace(ElfFile(segments, machine=machine), type=4).build()


def read(data: bytes) -> Core:
    with open_image(data) as source:
        return read_core(source)


def test_memory_and_notes_are_found() -> None:
    found = read(
        core(
            notes(note(b"CORE\0", 1, bytes(336)), note(b"QEMU\0", 0, b"state")),
            load(2 * MIB, b"high", memsz=0x2000),
            load(0, b"low"),
        )
    )
    assert [(part.place, part.in_file) for part in found.loads] == [
        (Range(0, 3), 3),
        (Range(2 * MIB, 0x2000), 4),
    ]
    assert found.notes == (Note(b"CORE", 1, bytes(336)), Note(b"QEMU", 0, b"state"))
    assert isinstance(found.loads[0], Load)


def test_qemus_state_of_an_x86_cpu() -> None:
    state = Note(b"QEMU", 0, qemu_state(cr0=0x80000011, cr3=0x9000, cr4=0x20))
    (seen,) = X86.from_notes([Note(b"CORE", 1, bytes(336)), state])
    assert seen.values["rax"] == 1 and seen.values["r15"] == 16
    assert (seen.values["rip"], seen.values["rflags"]) == (17, 18)
    assert seen.values["ds"] == Segment(0x8, 0x1000, 0xFFFFFFFF, 0xC093)
    assert seen.values["tr"] == Segment(0x38, 0x7000, 0xFFFFFFFF, 0xC093)
    assert seen.values["idtr"] == DescriptorTable(0x9000, 0xFFFFFFFF)
    assert (seen.values["cr0"], seen.values["cr3"]) == (0x80000011, 0x9000)
    assert "efer" not in seen.values


def test_cores_without_qemus_notes_show_selectors() -> None:
    numbers = struct.pack("<27Q", *range(100, 127))
    (seen,) = X86.from_notes([Note(b"CORE", 1, bytes(112) + numbers + bytes(8))])
    assert seen.values["r15"] == 100 and seen.values["rip"] == 116
    assert seen.selectors == {"cs": 117, "ss": 120, "ds": 123, "es": 124, "fs": 125, "gs": 126}


def test_each_cpu_has_its_note() -> None:
    numbers = struct.pack("<34Q", *range(34))
    one = Note(b"CORE", 1, bytes(112) + numbers + bytes(8))
    # NT_PRPSINFO is of the process, and a type means something by the name only.
    others = [replace(one, type=3), replace(one, name=b"LINUX")]
    first, second = ARM64.from_notes([one, *others, one])
    assert first == second
    assert first.values == {"x": tuple(range(31)), "sp": 31, "pc": 32, "pstate": 33}


@pytest.mark.parametrize(("importing", "general"), [(ARM64, 31), (RISCV64, 32)])
def test_general_registers_of_a_debugger_are_all_there_or_none(
    importing: Importing[Any], general: int
) -> None:
    found = {name: number for number, (name, _) in enumerate(importing.debugger)}
    assert importing.from_debugger(found).values["x"] == tuple(range(general))
    del found[next(iter(found))]
    assert "x" not in importing.from_debugger(found).values


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no ELF core"),
        (b"\x7fELF", "no ELF core"),
        (core(load(0, b"x"))[:60], "no ELF core"),
        (ElfFile((load(0, b"x"),)).build(), "no ELF core"),
        (core(), "the core has no PT_LOAD"),
        (replace(ElfFile((load(0, b"x"),), phnum=5000), type=4).build(), "5000 program headers"),
        (replace(ElfFile((load(0, b"x"),), phentsize=8), type=4).build(), "headers of 8 bytes"),
        (replace(ElfFile((load(0, b"x"),), phoff=1 << 40), type=4).build(), "headers end at"),
        (core(load(0, b"x", filesz=1 << 40, memsz=1 << 41)), "PT_LOAD[0] ends at"),
        (core(load((1 << 64) - 1, b"x", memsz=2)), "goes beyond 64 bits"),
        (core(load(0, b"xx"), load(1, b"x")), "overlap in guest memory"),
        (core(load(0, b"x"), notes(note(b"a", 1, b"", descsz=1 << 31))), "runs to"),
        (core(load(0, b"x"), notes(b"", filesz=1 << 30)), "the notes have 0x40000000 bytes"),
    ],
)
def test_what_is_no_core_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(CoreError) as refused, open_image(data, "vm.core", allow_empty=True) as it:
        read_core(it)
    assert reason in str(refused.value) and str(refused.value).startswith("vm.core: ")


@pytest.mark.parametrize("content", [b"", bytes(439)])
def test_short_notes_of_cpus_are_refused(content: bytes) -> None:
    with pytest.raises(CoreError, match="bytes"):
        X86.from_notes([Note(b"QEMU", 0, content)])
    with pytest.raises(CoreError, match="bytes"):
        X86.from_notes([Note(b"CORE", 1, content[:144])])
    with pytest.raises(CoreError, match="bytes"):
        ARM64.from_notes([Note(b"CORE", 1, content[:144])])
