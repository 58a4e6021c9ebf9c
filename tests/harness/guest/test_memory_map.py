"""What System RAM a kernel must show for the banks of its machine."""

from __future__ import annotations

import pytest

from bootproof.harness.guest.memory_map import system_ram
from bootproof.loader.address import GIB, MIB, Range


@pytest.mark.parametrize(
    ("device_tree", "banks", "wanted"),
    [
        (True, [(GIB, MIB)], [(GIB, MIB)]),
        (False, [(0, 16 * MIB)], [(0x1000, 0x9EC00), (MIB, 15 * MIB)]),
        (False, [(0, MIB)], [(0x1000, 0x9EC00)]),
        (False, [(0, 0x80000)], [(0x1000, 0x7F000)]),
        (False, [(0, 0x1000)], []),
        (
            False,
            [(0, 2 * GIB), (4 * GIB, GIB)],
            [(0x1000, 0x9EC00), (MIB, 2 * GIB - MIB), (4 * GIB, GIB)],
        ),
    ],
)
def test_system_ram(
    device_tree: bool, banks: list[tuple[int, int]], wanted: list[tuple[int, int]]
) -> None:
    ram = system_ram([Range(*bank) for bank in banks], device_tree=device_tree)
    assert ram == tuple(Range(*part) for part in wanted)


def test_system_ram_without_acpi_tables() -> None:
    acpi = Range(0x9E000, 0x1000)
    ram = system_ram([Range(0, 16 * MIB)], device_tree=False, acpi=acpi)
    parts = [(0x1000, 0x9D000), (0x9F000, 0xC00), (MIB, 15 * MIB)]
    assert ram == tuple(Range(*part) for part in parts)
