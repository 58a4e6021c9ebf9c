"""The x86 memory map: RAM is RAM, the legacy area is reserved, nothing is told twice."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootproof.loader.address import GIB, KIB, MIB, Range
from bootproof.loader.protocols.e820 import memory_map
from bootproof.loader.structures.zero_page import E820Entry

RESERVED = (0x9FC00, 0x60400, 2)


@pytest.mark.parametrize(
    ("banks", "entries"),
    [
        ([(0, 64 * MIB)], [(0, 0x9FC00, 1), RESERVED, (MIB, 63 * MIB, 1)]),
        ([(0, MIB)], [(0, 0x9FC00, 1), RESERVED]),
        ([(0, 700 * KIB)], [(0, 0x9FC00, 1), (0x9FC00, 0xF400, 2)]),
        ([(0, 0x9FC00)], [(0, 0x9FC00, 1)]),
        ([(0, 64 * KIB)], [(0, 64 * KIB, 1)]),
        (
            [(0, 2 * GIB), (4 * GIB, GIB)],
            [(0, 0x9FC00, 1), RESERVED, (MIB, 2 * GIB - MIB, 1), (4 * GIB, GIB, 1)],
        ),
        ([(GIB, GIB)], [(GIB, GIB, 1)]),
    ],
)
def test_memory_map(banks: list[tuple[int, int]], entries: list[tuple[int, int, int]]) -> None:
    found = memory_map([Range(*bank) for bank in banks])
    assert [(e.range.start, e.range.size, e.type) for e in found] == entries


@given(st.integers(1, 1 << 40))
def test_a_bank_is_covered_once(size: int) -> None:
    found = memory_map([Range(0, size)])
    assert [entry.range.start for entry in found] == [0, *(e.range.end for e in found)][:-1]
    assert found[-1].range.end == size
    for entry in found:
        assert entry.range.size > 0
        legacy = entry.range.overlaps(Range.between(0x9FC00, MIB))
        assert (entry.type == 2) == legacy


def test_packed_as_in_boot_params() -> None:
    packed = E820Entry(0x1122334455667788, 0x99, 3).to_bytes()
    assert packed == struct.pack("<Q", 0x1122334455667788) + b"\x99" + bytes(7) + b"\3\0\0\0"
    assert len(packed) == 20
