"""ACPI tables of any loader: how many CPUs they tell of, and what is said of broken ones."""

from __future__ import annotations

import struct

import pytest

from bootproof.loader import BzImage, Elf
from bootproof.loader.address import MIB, Range
from bootproof.loader.boot_parameters import reader as ram_of
from bootproof.loader.memory import GuestMemory
from bootproof.loader.protocols import BootRequest, acpi
from bootproof.loader.protocols.table import PROTOCOLS, broken_rules
from bootproof.loader.rules import Grade, Hardware
from bootproof.loader.rules.acpi import AcpiTables, find, follow
from tests.builders import images
from tests.builders.acpi import PLACE, reader, split

VMLINUX = images.elf(
    images.load(16 * MIB, b"\xf4" * 0x3000), images.notes(images.pvh_entry(16 * MIB))
)
KERNELS: dict[str, tuple[Elf | BzImage, bytes]] = {
    "linux32": (BzImage(), images.bzimage(b"\xf4" * 0x1000))
}


def problem_of(found: AcpiTables) -> str | None:
    """What is broken first."""
    grave = (f.sentence for f in found.findings if f.grade is Grade.VIOLATION)
    return next(grave, None)


@pytest.mark.parametrize("cpus", [1, 2, 255])
def test_reading_back(cpus: int) -> None:
    found = follow(reader(acpi.tables(PLACE, cpus)), PLACE)
    assert (found.findings, len(found.apic_ids or ())) == ((), cpus)
    names = ["RSDP", "XSDT", "FACP", "APIC", "DSDT", "FACS"]
    assert [place.name.removeprefix("ACPI table ") for place in found.places] == names


def test_rsdt_of_an_old_rsdp() -> None:
    """ACPI 1.0: 20 bytes, revision 0, 32-bit addresses."""
    tables = bytearray(acpi.tables(PLACE, 2))
    found = split(bytes(tables))
    xsdt_at, xsdt = found["XSDT"]
    addresses = [address for (address,) in struct.iter_unpack("<Q", xsdt[36:])]
    rsdt = bytearray(b"RSDT" + struct.pack("<I", 44) + xsdt[8:36])
    rsdt += struct.pack("<2I", *addresses)
    rsdt[9] = -sum(rsdt[:9] + rsdt[10:]) & 0xFF
    tables[xsdt_at : xsdt_at + len(rsdt)] = rsdt
    tables[15] = 0
    tables[16:20] = struct.pack("<I", PLACE + xsdt_at)
    tables[8] = -sum(tables[:8] + tables[9:20]) & 0xFF
    back = follow(reader(bytes(tables)), PLACE)
    assert (back.findings, back.apic_ids) == ((), (0, 1))


@pytest.mark.parametrize(
    ("table", "offset", "value", "grade", "problem"),
    [
        ("RSDP", 0, b"X", Grade.VIOLATION, "0x9e000 does not point to an RSDP in RAM"),
        ("RSDP", 17, b"\1", Grade.TOLERATED, "the checksum of the RSDP at 0x9e000 is wrong"),
        ("RSDP", 33, b"\1", Grade.TOLERATED, "the checksum of the RSDP at 0x9e000 is wrong"),
        ("XSDT", 10, b"X", Grade.TOLERATED, "the checksum of the ACPI table 'XSDT' at"),
        ("XSDT", 4, b"\xff\xff\xff\x7f", Grade.VIOLATION, "has 0x7fffffff bytes"),
        ("APIC", 4, b"\1\0\0\0", Grade.VIOLATION, "has 0x1 bytes"),
        ("APIC", 50, b"\1", Grade.TOLERATED, "the checksum of the ACPI table 'APIC' at"),
        ("FACP", 112, b"\0", Grade.TOLERATED, "the checksum of the ACPI table 'FACP' at"),
    ],
)
@pytest.mark.parametrize("protocol", ["linux64", "linux32", "pvh"])
def test_broken_tables(
    protocol: str, table: str, offset: int, value: bytes, grade: Grade, problem: str
) -> None:
    """Linux warns of a wrong checksum, and takes the table (drivers/acpi/acpica/utcksum.c)."""
    with GuestMemory([(0, 64 * MIB)]) as memory:
        loader, image = KERNELS.get(protocol, (Elf(), VMLINUX))
        kernel = loader.load(memory, image)
        handover = PROTOCOLS[protocol].configure(memory, kernel, BootRequest(b"quiet", cpus=2))
        hardware = Hardware(handover.registers, ram_of(memory), [Range(0, 64 * MIB)])
        assert broken_rules(protocol, hardware) == []
        at, _ = split(memory.read(PLACE, 0x1000))[table]
        memory.write(PLACE + at + offset, value)
        (finding,) = broken_rules(protocol, hardware)
        assert (finding.code, finding.grade) == ("acpi", grade)
        assert problem in finding.sentence


def test_table_that_leads_out_of_ram() -> None:
    tables = bytearray(acpi.tables(PLACE, 2))
    at, xsdt = split(bytes(tables))["XSDT"]
    broken = bytearray(xsdt)
    broken[36:44] = struct.pack("<Q", 1 << 60)
    broken[9] = (broken[9] - sum(broken)) & 0xFF
    tables[at : at + len(broken)] = broken
    found = follow(reader(bytes(tables)), PLACE)
    problem = "the ACPI table at 0x1000000000000000 is not in RAM"
    assert (problem_of(found), found.apic_ids) == (problem, None)


def changed(tables: bytes, table: str, offset: int, value: bytes) -> bytes:
    """Bytes of a table that has the right checksum again."""
    at, old = split(TABLES)[table]
    found = tables[at : at + len(old)]
    new = bytearray(found[:offset] + value + found[offset + len(value) :])
    if table != "FACS":
        new[9] = (new[9] - sum(new)) & 0xFF
    return tables[:at] + bytes(new) + tables[at + len(new) :]


TABLES = acpi.tables(PLACE, 2)
FACS = (PLACE + split(TABLES)["FACS"][0]).to_bytes(8, "little")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([("FACP", 36, bytes(4))], ["leads to no FACS"]),
        ([("FACP", 36, bytes(4)), ("FACP", 114, b"\x10")], []),  # reduced hardware has none
        ([("FACP", 36, bytes(4)), ("FACP", 132, FACS)], []),
        ([("FACP", 36, b"\1")], ["where no FACS is"]),
        ([("FACP", 132, b"\1")], ["leads to 0x1, where no FACS is"]),
        ([("FACS", 4, b"\x3f")], ["where no FACS is"]),
        ([("FACS", 4, b"\0\1")], []),
        ([("FACP", 140, bytes(8))], []),
        ([("FACP", 40, bytes(4))], []),
        ([("FACP", 40, bytes(4)), ("FACP", 140, bytes(8))], ["leads to no DSDT"]),
        ([("DSDT", 0, b"S")], ["where no DSDT is"]),
        ([("XSDT", 0, b"R")], ["leads to no XSDT"]),
        ([("XSDT", 36, bytes(8))], ["an entry of 0", "there is no FADT"]),
        ([("XSDT", 44, bytes(8))], ["an entry of 0"]),
    ],
)
def test_where_tables_lead(changes: list[tuple[str, int, bytes]], said: list[str]) -> None:
    tables = TABLES
    for change in changes:
        tables = changed(tables, *change)
    found = follow(reader(tables), PLACE).findings
    assert len(found) == len(said)
    assert all(what in finding.sentence for what, finding in zip(said, found, strict=True))


def test_a_facs_anywhere() -> None:
    facs = split(TABLES)["FACS"][1]
    tables = TABLES + bytes(-len(TABLES) % 64 + 4) + facs
    place = PLACE + len(tables) - 64
    (finding,) = follow(
        reader(changed(tables, "FACP", 132, place.to_bytes(8, "little"))), PLACE
    ).findings
    assert finding.sentence == f"the FACS at {place:#x} is not at a multiple of 64"


def test_an_xsdt_that_ends_within_an_entry() -> None:
    """Kernels divide its size, and forget the rest."""
    tables = changed(TABLES + bytes(4), "XSDT", 4, (36 + 16 + 4).to_bytes(4, "little"))
    assert follow(reader(tables), PLACE).findings == ()


def local_apic(number: int, flags: int = 1, *, more: bytes = b"") -> bytes:
    return struct.pack("<BBBBI", 0, 8 + len(more), 0, number, flags) + more


def x2apic(number: int, flags: int = 1) -> bytes:
    return struct.pack("<BBHIII", 9, 16, 0, number, flags, 0)


def io_apic(base: int, address: int = 0xFEC00000) -> bytes:
    return struct.pack("<BBBBII", 1, 12, 0, 0, address, base)


def apics_at(address: int) -> bytes:
    return struct.pack("<BBHQ", 5, 12, 0, address)


def madt(*entries: bytes, local: int = 0xFEE00000) -> AcpiTables:
    """What is found by tables with this MADT."""
    at, old = split(TABLES)["APIC"]
    body = struct.pack("<II", local, 1) + b"".join(entries)
    new = bytearray(old[:4] + struct.pack("<I", 36 + len(body)) + old[8:36] + body)
    new[9] = (new[9] - sum(new)) & 0xFF
    assert len(new) <= split(TABLES)["XSDT"][0] - at
    return follow(reader(TABLES[:at] + bytes(new) + TABLES[at + len(new) :]), PLACE)


V, T = Grade.VIOLATION, Grade.TOLERATED
CPU0 = local_apic(0)


@pytest.mark.parametrize(
    ("entries", "ids", "said"),
    [
        ([CPU0, local_apic(254)], (0, 254), []),
        ([CPU0, x2apic(0xFF), x2apic(0xFFFFFFFE)], (0, 0xFF, 0xFFFFFFFE), []),
        ([CPU0, local_apic(0xFF)], (0, 0xFF), [(V, "APIC id 0xff, which means all")]),
        ([CPU0, x2apic(0xFFFFFFFF)], (0, 0xFFFFFFFF), [(V, "APIC id 0xffffffff, which means all")]),
        ([CPU0, local_apic(1, 2), x2apic(2, 2)], (0,), []),  # that can be enabled later
        ([CPU0, local_apic(0xFF, 0), x2apic(0xFFFFFFFF, 0)], (0,), []),
        ([local_apic(1), x2apic(2)], (1, 2), [(T, "has the APIC id 0")]),
        ([CPU0, x2apic(0)], (0, 0), [(V, "the APIC id 0x0 2 times")]),
        ([CPU0, io_apic(0), io_apic(24)], (0,), []),
        ([CPU0, io_apic(24), io_apic(24)], (0,), [(V, "I/O APIC with GSI base 0x18 2 times")]),
        ([CPU0, io_apic(0, 0)], (0,), [(V, "an I/O APIC at address 0")]),
        ([local_apic(0, more=b"\0\0")], (0,), [(T, "an entry of type 0 with 10 bytes, not 8")]),
        ([CPU0, b"\x07\2", b"\x80\3\0"], (0,), []),  # of no known length
        ([CPU0, b"\x80\1"], None, [(V, "an entry of 1 byte at offset 0x34")]),
        ([CPU0, b"\x80"], None, [(V, "an entry of 0 bytes at offset 0x34")]),
        ([CPU0, b"\x80\3"], None, [(V, "the entry at offset 0x34 of the MADT ends behind")]),
    ],
)
def test_cpus_of_a_madt(
    entries: list[bytes], ids: tuple[int, ...] | None, said: list[tuple[Grade, str]]
) -> None:
    found = madt(*entries)
    assert found.apic_ids == ids
    assert [finding.grade for finding in found.findings] == [grade for grade, _ in said]
    assert all(what in f.sentence for (_, what), f in zip(said, found.findings, strict=True))


@pytest.mark.parametrize(
    ("kind", "length"),
    [(0, 8), (1, 12), (2, 10), (3, 8), (4, 6), (6, 16), (8, 16), (9, 16), (10, 12)],
)
def test_lengths_of_entries(kind: int, length: int) -> None:
    """ACPI 6.5, section 5.2.12.2 on. A shorter one is none to kernels (BAD_MADT_ENTRY)."""
    assert madt(CPU0, bytes([kind, length]) + b"\2" * (length - 2)).findings == ()
    found = madt(CPU0, bytes([kind, length - 1]) + b"\2" * (length - 3))
    problem = f"an entry of type {kind} with {length - 1} bytes, not {length}, at 0x9e274"
    assert problem_of(found) == f"the MADT has {problem}"


@pytest.mark.parametrize(
    ("address", "override", "problem"),
    [
        (0xFEC00000, None, "0xfec00000"),
        (0xFEC00000, 0xFEE00000, None),
        (0xFEE00000, 0x8FEE00000, "0x8fee00000"),
    ],
)
def test_where_the_madt_has_the_local_apics(
    address: int, override: int | None, problem: str | None
) -> None:
    entries = [CPU0] if override is None else [CPU0, apics_at(override)]
    said = problem and (
        f"the MADT has the local APICs at {problem}, but CPUs have them at 0xfee00000 after a reset"
    )
    assert problem_of(madt(*entries, local=address)) == said


RSDP = acpi.tables(PLACE, 1)[:36]
SPOILT = RSDP[:19] + bytes([RSDP[19] ^ 1]) + RSDP[20:]
BEHIND = RSDP[:33] + b"\1" + RSDP[34:]  # of what the first checksum covers


@pytest.mark.parametrize(
    ("ebda", "places", "found"),
    [
        (0, {}, None),
        (0, {0xE0000: RSDP}, 0xE0000),
        (0, {0xFFFE0: RSDP}, 0xFFFE0),
        (0, {0xF0008: RSDP}, None),  # at no multiple of 16
        (0, {0xF0008: RSDP, 0xF0020: RSDP}, 0xF0020),
        (0, {0xF0000: SPOILT, 0xF0040: RSDP}, 0xF0040),
        (0, {0xF0000: SPOILT, 0xF0040: SPOILT}, 0xF0000),
        (0, {0x9FC00: RSDP}, None),  # nothing says that this is the EBDA
        (0x9FC0, {0x9FC00: RSDP, 0xF0000: RSDP}, 0x9FC00),
        (0x9FC0, {0x9FC00: SPOILT, 0xF0000: RSDP}, 0xF0000),
        (0x9F00, {0x9F400: RSDP}, None),  # behind its first KiB
        (0x9FC0, {0x9FFD0: RSDP}, 0x9FFD0),
        (0x30, {0x300: RSDP}, None),  # what small numbers there say is no EBDA
        (0x40, {0x500: RSDP}, None),
        (0x41, {0x500: RSDP}, 0x500),
        (0, {0xF0000: BEHIND, 0xF0040: RSDP}, 0xF0040),
    ],
)
def test_where_kernels_look_for_an_rsdp(
    ebda: int, places: dict[int, bytes], found: int | None
) -> None:
    """ACPI 6.5, section 5.2.5.1."""
    with GuestMemory([(0, 2 * MIB)]) as memory:
        memory.write(0x40E, ebda.to_bytes(2, "little"))
        for address, data in places.items():
            memory.write(address, data)
        assert find(ram_of(memory), 0) == found
        assert find(ram_of(memory), 0x1000) == 0x1000
