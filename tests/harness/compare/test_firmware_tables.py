"""What firmware leaves in memory for kernels to find: where it is looked for, and where not."""

from __future__ import annotations

import pytest

from bootproof.harness.compare import firmware_tables
from bootproof.harness.compare.firmware_tables import Table
from bootproof.loader.address import MIB
from bootproof.loader.boot_parameters import reader
from bootproof.loader.memory import GuestMemory


@pytest.mark.parametrize("table", Table)
@pytest.mark.parametrize("place", [0x9F800, 0x9FC00, 0xE0000, 0xF59E0, 0xFFFF0])
def test_found_where_kernels_look(table: Table, place: int) -> None:
    with GuestMemory([(0, MIB)]) as ram:
        ram.write(0x40E, (0x9F80).to_bytes(2, "little"))
        ram.write(place, table.value)
        assert firmware_tables.left_in(reader(ram)) == {table}


@pytest.mark.parametrize("place", [0x1000, 0xDFFF0, 0xF0008])
def test_not_found_elsewhere(place: int) -> None:
    with GuestMemory([(0, MIB)]) as ram:
        ram.write(place, b"RSD PTR ")
        assert firmware_tables.left_in(reader(ram)) == frozenset()


def test_no_such_memory() -> None:
    with GuestMemory([(0x40000000, MIB)]) as ram:
        assert firmware_tables.left_in(reader(ram)) == frozenset()
