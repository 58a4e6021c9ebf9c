"""What counts as a difference of two boots, on small synthetic ones."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bootproof.harness.compare.differences import (
    BootDifference,
    ComparedBoot,
    Section,
    boot_differences,
    normalised,
)
from bootproof.harness.guest.memory_map import ABSENT, USABLE, MapEntry
from bootproof.harness.verdict import Verdict
from bootproof.loader.address import MIB, Range
from tests.builders.comparisons import LOG, console_log, side
from tests.builders.guests import flat32, flat64


def names(ours: ComparedBoot, reference: ComparedBoot) -> list[tuple[Section, str]]:
    return [(item.section, item.name) for item in boot_differences(ours, reference)]


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
    without = LOG.replace(b"[mem 0x0000000000100000-0x000000001fffffff] usable", b"nothing")
    found = boot_differences(ours, replace(ours, memory=shorter, transcript=without))
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
    other = console_log(low="00002000-0009fbff").replace(b"53068K reserved", b"9K reserved")
    assert boot_differences(side(), side(log=other)) == [
        BootDifference(
            Section.EVIDENCE,
            "ram",
            "00001000-0009fbff, 00100000-1fffffff",
            "00002000-0009fbff, 00100000-1fffffff",
        ),
        BootDifference(Section.MEMORY, "reserved", "53068", "9"),
    ]


@pytest.mark.parametrize(("reserved", "name"), [(304056, "available"), (53068, "available so far")])
def test_memory_that_is_taken_over_later(reserved: int, name: str) -> None:
    """Where much is neither available nor reserved, the figure says how far the kernel has come."""
    logs = [
        console_log()
        .replace(b"219840K", b"%dK" % available)
        .replace(b"53068K reserved", b"%dK reserved" % reserved)
        for available in (219840, 219000)
    ]
    found = boot_differences(side(log=logs[0]), side(log=logs[1]))
    assert found == [BootDifference(Section.MEMORY, name, "219840", "219000")]


def test_the_proof_line_is_no_difference() -> None:
    """It is over all the other evidence, which is compared by itself."""
    assert boot_differences(side(), side(log=console_log(proof="1" * 64))) == []


def test_log_lines_are_counted_whatever_their_order() -> None:
    one, two = b"[    1.0] one\r\n", b"[    2.0] two\r\n"
    assert boot_differences(side(log=one + two), side(log=two + one)) == []
    assert boot_differences(side(log=one), side(log=one + one + two)) == [
        BootDifference(Section.LOG, "one", "", "one"),
        BootDifference(Section.LOG, "two", "", "two"),
    ]


TRACE = b"""[    1.0] ------------[ cut here ]------------
[    1.0] WARNING: CPU: 0 PID: 1 at drivers/ata/libata-core.c:6158 ata_host_activate+0xf5/0x120
[    1.0] RIP: 0010:ata_host_activate+0xf5/0x120
[    1.0] RSP: 0018:ffffc9000000bc58 EFLAGS: 00000282
[    1.0]  <TASK>
[    1.0]  ? ahci_init_one+0x1/0x2
[    1.0]  local_pci_probe+0x1/0x2
[    1.0] ---[ end trace 0000000000000000 ]---
"""
WARNING = "WARNING: CPU: 0 PID: 1 at drivers/ata/libata-core.c:6158 ata_host_activate+0x#/0x#"


def test_a_warning_with_its_trace_is_one_line() -> None:
    ours = b"[    1.0] before\n" + TRACE + b"[    1.0] after\n"
    text = f"{WARNING} < ahci_init_one < local_pci_probe"
    assert boot_differences(side(log=ours), side(log=b"before\nafter\n")) == [
        BootDifference(Section.LOG, text, text, "")
    ]


def test_a_trace_without_an_end_loses_nothing() -> None:
    cut = TRACE[: TRACE.index(b"[    1.0] ---[")]
    found = boot_differences(side(log=cut + TRACE), side(log=TRACE))
    assert [item.name for item in found][:2] == [WARNING, "RIP: 0010:ata_host_activate+0x#/0x#"]
    assert boot_differences(side(log=cut), side(log=b""))[0].name == WARNING
    endless = TRACE[: TRACE.index(b"[    1.0] ---[")] + b"line\n" * 500
    assert len(boot_differences(side(log=endless), side(log=b""))) > 500


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
