"""The tables that firmware leaves on a PC, and that say how many CPUs there are: ACPI, else MP.

What each of them must hold is in the modules of their documents. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bootproof.dataclass import dataclass
from bootproof.loader.address import counted
from bootproof.loader.arch import R
from bootproof.loader.boot_parameters import Read
from bootproof.loader.rules import (
    Findings,
    Grade,
    Hardware,
    acpi,
    documents,
    mp_table,
    tolerated,
    violation,
)
from bootproof.loader.rules.acpi import AcpiTables
from bootproof.loader.rules.mp_table import MpTable
from bootproof.loader.rules.pieces import Piece


@dataclass(frozen=True, slots=True)
class Firmware:
    """What a kernel finds."""

    acpi: AcpiTables
    mp: MpTable

    @property
    def cpus(self) -> int | None:
        """How many CPUs a kernel is told of; None where nothing says so."""
        return len(self.apic_ids) or None

    @property
    def apic_ids(self) -> tuple[int, ...]:
        """Of these CPUs."""
        return self.acpi.apic_ids or self.mp.apic_ids or ()

    def pieces(self) -> Iterator[Piece]:
        """The memory of every table."""
        for places, code, section in (
            (self.acpi.places, acpi.CODE, documents.acpi("5.2")),
            (self.mp.places, mp_table.CODE, documents.mp("4")),
        ):
            for region in places:
                yield Piece(region.name, region.range, "firmware tables", section, code)


def look(read: Read, rsdp: int) -> Firmware:
    """The tables that a kernel finds which is told that the RSDP is at a guest-physical address,
    or is told 0 and looks for it.
    """
    at = acpi.find(read, rsdp)
    tables = AcpiTables() if at is None else acpi.follow(read, at, searched=not rsdp)
    return Firmware(tables, mp_table.find(read))


def check(hardware: Hardware[R], found: Firmware) -> Findings:
    """What is wrong with the tables; with an MP table only where nothing better is there."""
    yield from found.acpi.findings
    for finding in found.mp.findings:
        yield replace(finding, grade=Grade.TOLERATED) if found.acpi.apic_ids else finding
    by_acpi, by_mp = (len(ids or ()) for ids in (found.acpi.apic_ids, found.mp.apic_ids))
    if by_acpi and by_mp and by_acpi != by_mp:
        what = f"the MADT tells of {counted(by_acpi, 'CPU')}, the MP table of {by_mp}"
        yield tolerated(mp_table.CODE, what, documents.mp("4"), value=by_mp, limit=by_acpi)
    yield from cpus(hardware, found.cpus or 1, "the MADT or MP table", documents.acpi("5.2.12"))


def cpus(hardware: Hardware[R], told: int, source: str, section: str) -> Findings:
    """The kernel is told of as many CPUs as there are."""
    if hardware.cpus is not None and hardware.cpus != told:
        what = f"{source} tells of {told}, but the machine has {counted(hardware.cpus, 'CPU')}"
        yield violation("cpus", what, section, value=told, limit=hardware.cpus)
