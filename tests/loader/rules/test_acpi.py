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
from bootproof.loader.rules import Hardware
from bootproof.loader.rules.acpi import find, follow
from tests.builders import images
from tests.builders.acpi import PLACE, reader, split

VMLINUX = images.elf(
    images.load(16 * MIB, b"\xf4" * 0x3000), images.notes(images.pvh_entry(16 * MIB))
)
KERNELS: dict[str, tuple[Elf | BzImage, bytes]] = {
    "linux32": (BzImage(), images.bzimage(b"\xf4" * 0x1000))
}


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
    ("table", "offset", "value", "problem"),
    [
        ("RSDP", 0, b"X", "0x9e000 does not point to an RSDP in RAM"),
        ("RSDP", 17, b"\1", "the checksum of the RSDP at 0x9e000 is wrong"),
        ("RSDP", 33, b"\1", "the checksum of the RSDP at 0x9e000 is wrong"),
        ("XSDT", 40, b"\1", "the checksum of the ACPI table 'XSDT' at"),
        ("XSDT", 4, b"\xff\xff\xff\x7f", "has 0x7fffffff bytes"),
        ("APIC", 4, b"\1\0\0\0", "has 0x1 bytes"),
        ("APIC", 50, b"\1", "the checksum of the ACPI table 'APIC' at"),
        ("FACP", 112, b"\0", "the checksum of the ACPI table 'FACP' at"),
    ],
)
@pytest.mark.parametrize("protocol", ["linux64", "linux32", "pvh"])
def test_broken_tables_break_the_protocol(
    protocol: str, table: str, offset: int, value: bytes, problem: str
) -> None:
    with GuestMemory([(0, 64 * MIB)]) as memory:
        loader, image = KERNELS.get(protocol, (Elf(), VMLINUX))
        kernel = loader.load(memory, image)
        handover = PROTOCOLS[protocol].configure(memory, kernel, BootRequest(b"quiet", cpus=2))
        hardware = Hardware(handover.registers, ram_of(memory), [Range(0, 64 * MIB)])
        assert broken_rules(protocol, hardware) == []
        at, _ = split(memory.read(PLACE, 0x1000))[table]
        memory.write(PLACE + at + offset, value)
        (finding,) = broken_rules(protocol, hardware)
        assert finding.code == "acpi"
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
    assert (found.problem, found.apic_ids) == (problem, None)


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
    tables = bytearray(acpi.tables(PLACE, 2))
    at, madt = split(bytes(tables))["APIC"]
    changed = bytearray(madt[:36] + struct.pack("<I", address) + madt[40:])
    if override is not None:  # in place of the I/O APIC, which is of the same length
        changed[60:72] = struct.pack("<BBHQ", 5, 12, 0, override)
    changed[9] = (changed[9] - sum(changed)) & 0xFF
    tables[at : at + len(changed)] = changed
    said = problem and (
        f"the MADT has the local APICs at {problem}, but CPUs have them at 0xfee00000 after a reset"
    )
    assert follow(reader(bytes(tables)), PLACE).problem == said


def test_madt_that_goes_round_in_place() -> None:
    tables = bytearray(acpi.tables(PLACE, 2))
    at, madt = split(bytes(tables))["APIC"]
    broken = bytearray(madt)
    broken[45] = 0
    broken[9] = (broken[9] - sum(broken)) & 0xFF
    tables[at : at + len(broken)] = broken
    found = follow(reader(bytes(tables)), PLACE)
    problem = "the MADT has an entry of 0 bytes at offset 0x2c"
    assert (found.problem, found.apic_ids) == (problem, None)


RSDP = acpi.tables(PLACE, 1)[:20]
SPOILT = RSDP[:19] + bytes([RSDP[19] ^ 1])


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
        (0x30, {0x300: RSDP}, None),  # what small numbers there say is no EBDA
    ],
)
def test_where_kernels_look_for_an_rsdp(
    ebda: int, places: dict[int, bytes], found: int | None
) -> None:
    """ACPI 6.5, section 5.2.5.1."""
    with GuestMemory([(0, MIB)]) as memory:
        memory.write(0x40E, ebda.to_bytes(2, "little"))
        for address, data in places.items():
            memory.write(address, data)
        assert find(ram_of(memory), 0) == found
        assert find(ram_of(memory), 0x1000) == 0x1000
