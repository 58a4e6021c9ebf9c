"""What is seen of a hand-over, what is derived, and what is assumed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

import pytest

from bootproof.loader.address import MIB
from bootproof.loader.arch import Registers
from bootproof.loader.arch.importing import Seen, SeenError
from bootproof.loader.arch.table import IMPORTING
from bootproof.loader.arch.x86_64 import Segment, X86Registers
from bootproof.loader.arch.x86_seen import from_descriptor
from bootproof.loader.bootimage import Unseen
from bootproof.loader.conformance import marked
from bootproof.loader.imports import complete
from bootproof.loader.memory import GuestMemory
from bootproof.loader.protocols.table import PROTOCOLS
from bootproof.loader.rules import RuleFinding, violation
from tests.builders import handover

X86 = ("linux64", "linux32", "pvh")


@contextmanager
def prepared(protocol: str) -> Iterator[tuple[GuestMemory, Registers]]:
    with GuestMemory([(handover.base(protocol), handover.SIZE)]) as memory:
        yield memory, handover.prepare(protocol, memory).registers


def everything(registers: Registers, *without: str) -> dict[str, Any]:
    names = {field.name for field in fields(registers)} - {*without}
    return {name: getattr(registers, name) for name in names}


def by_debugger(registers: X86Registers) -> Seen:
    """What Firecracker's and Cloud Hypervisor's stubs show."""
    general = [f"r{number}" for number in range(8, 16)]
    general += ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "rip", "rflags"]
    segments = ("cs", "ds", "es", "fs", "gs", "ss")
    return Seen(
        {name: getattr(registers, name) for name in general},
        {name: getattr(registers, name).selector for name in segments},
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_seen_is_taken_as_it_is(protocol: str) -> None:
    with prepared(protocol) as (memory, registers):
        seen = Seen(everything(registers))
        found = complete(PROTOCOLS[protocol].arch.name, seen, memory)
        assert (found.registers, found.protocol, found.unseen) == (registers, protocol, ())
        assert complete(PROTOCOLS[protocol].arch.name, seen, memory, "none").protocol == "none"


def test_the_branch_to_an_arm64_kernel_is_no_part_of_its_hand_over() -> None:
    """QEMU's own loader leaves PSTATE.BTYPE with `-cpu max`; a CPU without BTI has no such bits."""
    with prepared("arm64") as (memory, registers):
        seen = Seen(everything(registers, "pstate") | {"pstate": 0x400007C5})
        found = complete("aarch64", seen, memory)
    assert found.registers == replace(registers, pstate=0x400003C5)


def test_registers_that_lead_to_nothing_follow_no_protocol() -> None:
    with prepared("pvh") as (memory, registers):
        seen = Seen(everything(registers) | {"rbx": 0x100000})
        assert complete("x86_64", seen, memory).protocol == "none"


@pytest.mark.parametrize("protocol", X86)
def test_a_core_without_efer(protocol: str) -> None:
    with prepared(protocol) as (memory, registers):
        found = complete("x86_64", Seen(everything(registers, "efer")), memory)
        assert (found.registers, found.protocol) == (registers, protocol)
        assert [str(mark) for mark in found.unseen] == ["derived from cr0 and cs"]


@pytest.mark.parametrize("protocol", X86)
def test_a_debugger_without_control_registers(protocol: str) -> None:
    """GDT and page tables are in RAM; the rest is as the protocol demands."""
    with prepared(protocol) as (memory, registers):
        assert isinstance(registers, X86Registers)
        seen = by_debugger(registers)
        found = complete("x86_64", seen, memory, protocol)
        assert found.protocol == protocol
        assert isinstance(found.registers, X86Registers)
        left = replace(found.registers, gdtr=registers.gdtr, tr=registers.tr)
        assert left == registers
        assert found.registers.gdtr.base == registers.gdtr.base
        marks = {mark.field.removeprefix("cpus[0]."): str(mark) for mark in found.unseen}
        assert marks["cs"].startswith("derived from its selector")
        assert marks["gdtr"].startswith("derived from the table at ")
        assert marks["cr0"] == marks["idtr"] == f"assumed by {protocol}"
        if protocol == "linux64":
            assert marks["cr3"].startswith("derived from the page tables in RAM")
        assert not {"rip", "rsi", "rbx", "rsp"} & marks.keys()


@pytest.mark.parametrize("selector", [0, 3])
def test_a_null_selector_leads_to_no_table(selector: int) -> None:
    """Whatever its privilege level (Intel SDM volume 3, section 3.4.2)."""
    with prepared("linux64") as (memory, registers):
        assert isinstance(registers, X86Registers)
        seen = by_debugger(registers)
        seen = replace(seen, selectors={**seen.selectors, "fs": selector})
        found = complete("x86_64", seen, memory, "linux64")
        assert isinstance(found.registers, X86Registers)
        assert found.registers.fs == Segment(selector, limit=0, attributes=0)
        (mark,) = (str(mark) for mark in found.unseen if mark.field == "cpus[0].fs")
        assert mark == "derived from its null selector"


@pytest.mark.parametrize("protocol", ["pvh", "linux64"])
def test_a_debugger_is_told_the_protocol_by_ram(protocol: str) -> None:
    with prepared(protocol) as (memory, registers):
        assert isinstance(registers, X86Registers)
        assert complete("x86_64", by_debugger(registers), memory).protocol == protocol


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_but_ram_and_an_entry(protocol: str) -> None:
    arch = PROTOCOLS[protocol].arch.name
    counter = IMPORTING[arch].counter
    with prepared(protocol) as (memory, registers):
        seen = Seen({counter: handover.entry(protocol)})
        found = complete(arch, seen, memory, protocol)
        pointer = PROTOCOLS[protocol].pointer
        values = everything(found.registers)
        assert pointer.of(values) == pointer.of(everything(registers))
        marks = {item.field: str(item) for item in found.unseen}
        mark = marks[f"cpus[0].{pointer.register}"]
        assert mark == f"derived from the only {pointer.what} in RAM"
        if isinstance(registers, X86Registers):
            assert values["cr3"] == registers.cr3
            assert replace(registers, gdtr=values["gdtr"]) == found.registers


def test_what_is_there_twice_or_never_is_asked_for() -> None:
    with prepared("pvh") as (memory, registers):
        assert isinstance(registers, X86Registers)
        seen = Seen({"rip": registers.rip})
        memory.write(2 * MIB, memory.read(registers.rbx, 56))
        with pytest.raises(SeenError, match="RAM has 2 places with a hvm_start_info, 0x"):
            complete("x86_64", seen, memory, "pvh")
        with pytest.raises(SeenError, match="RAM has no boot_params; give it in --registers"):
            complete("x86_64", seen, memory, "linux64")
        with pytest.raises(SeenError, match="program counter was not seen; give it by --entry"):
            complete("x86_64", Seen({}), memory, "pvh")
        with pytest.raises(SeenError, match="cs was not seen, and nothing tells it"):
            complete("x86_64", seen, memory, "none")


def test_page_tables_that_are_nowhere_are_asked_for() -> None:
    with prepared("linux64") as (memory, registers):
        assert isinstance(registers, X86Registers)
        memory.fill(registers.cr3, 0x1000)
        with pytest.raises(SeenError, match=r"cr3 was not seen.*--registers"):
            complete("x86_64", by_debugger(registers), memory, "linux64")


def test_findings_that_rest_on_what_was_not_seen_say_so() -> None:
    from bootproof.loader.arch import How

    unseen = (
        Unseen("cpus[0].cs", How.DERIVED, "its selector 0x8, in the GDT in RAM"),
        Unseen("cpus[0].cr0", How.ASSUMED, "pvh"),
    )
    findings: list[RuleFinding] = [
        violation("cs-type", "CS has attributes 0x93"),
        violation("paging-off", "paging is on (cr0 0x80000011)"),
        violation("e820", "no map"),
    ]
    assert [finding.sentence for finding in marked(findings, unseen)] == [
        "CS has attributes 0x93 (cs is derived from its selector 0x8, in the GDT in RAM)",
        "paging is on (cr0 0x80000011) (cr0 is assumed by pvh)",
        "no map",
    ]


@pytest.mark.parametrize(
    ("descriptor", "base", "limit", "attributes"),
    [
        (0x00CF9B000000FFFF, 0, 0xFFFFFFFF, 0xC09B),
        (0x00AF9A000000FFFF, 0, 0xFFFFFFFF, 0xA09B),  # loading it marks it as accessed
        (0x000F92000000FFFF, 0, 0xFFFFF, 0x93),
        (0x00CF92000000FFFE, 0, 0xFFFFEFFF, 0xC093),
        (0x124092345678FFFF, 0x12345678, 0xFFFF, 0x4093),
        (0x12008B3456780067, 0x12345678, 0x67, 0x8B),
        (0xFF008200FFFF0000, 0xFF00FFFF, 0, 0x82),
    ],
)
def test_descriptors_of_x86(descriptor: int, base: int, limit: int, attributes: int) -> None:
    """Intel SDM vol. 3A 3.4.5, figure 3-8."""
    assert from_descriptor(8, descriptor) == Segment(8, base, limit, attributes)
