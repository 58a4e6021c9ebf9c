"""MP tables: where kernels look for one, and which they take (arch/x86/kernel/mpparse.c)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bootproof.loader.address import MIB
from bootproof.loader.boot_parameters import reader
from bootproof.loader.memory import GuestMemory
from bootproof.loader.rules import Grade
from bootproof.loader.rules.mp_table import MpTable, find
from bootproof.scenarios.museum.machine import floating_pointer, mp_table, put, summed

TABLE = 0x20000


def found(
    pointers: dict[int, bytes], table: bytes = b"", ebda: int = 0, size: int = MIB
) -> MpTable:
    with GuestMemory([(0, size)]) as memory:
        memory.write(TABLE, table)
        for at, pointer in pointers.items():
            memory.write(at, pointer)
        memory.write(0x40E, ebda.to_bytes(2, "little"))
        return find(reader(memory))


@pytest.mark.parametrize(
    ("at", "ebda", "there"),
    [
        (0x10, 0, True),
        (0x3F0, 0, True),
        (0x500, 0, False),
        (0x9FBF0, 0, False),
        (0x9FC00, 0, True),
        (0x9FFF0, 0, True),
        (0xEFFF0, 0, False),
        (0xF0000, 0, True),
        (0xF0008, 0, False),
        (0xFFFF0, 0, True),
        (0x80000, 0, False),
        (0x80000, 0x8000, True),
        (0x803F0, 0x8000, True),
        (0x80400, 0x8000, False),
    ],
)
def test_where_kernels_look(at: int, ebda: int, there: bool) -> None:
    taken = found({at: floating_pointer(TABLE)}, mp_table(3), ebda)
    assert (taken.apic_ids, taken.findings) == ((0, 1, 2) if there else None, ())


RIGHT = floating_pointer(TABLE)
DEFAULT = floating_pointer(0)


def pointer(change: Callable[[bytearray], None], right: bytes = RIGHT) -> bytes:
    data = bytearray(right)
    change(data)
    return summed(bytes(data), 10)


@pytest.mark.parametrize(
    ("data", "ids", "said"),
    [
        (RIGHT, (0, 1), ""),
        (pointer(put(9, b"\1")), (0, 1), ""),
        (pointer(put(9, b"\2")), None, "has a wrong length, revision or checksum"),
        (pointer(put(8, b"\2")), None, "has a wrong length, revision or checksum"),
        (RIGHT[:15] + b"\1", None, "has a wrong length, revision or checksum"),
        (DEFAULT, None, ""),
        (pointer(put(11, b"\5"), DEFAULT), (0, 1), ""),  # a default configuration
    ],
)
def test_floating_pointers(data: bytes, ids: tuple[int, ...] | None, said: str) -> None:
    taken = found({0xF0000: data}, mp_table(2))
    assert taken.apic_ids == ids
    assert [said in finding.sentence for finding in taken.findings] == [True] * bool(said)


def test_a_pointer_that_is_none_hides_no_other() -> None:
    spoilt = RIGHT[:15] + b"\1"
    taken = found({0x10: spoilt, 0xF0000: RIGHT}, mp_table(2))
    assert (taken.apic_ids, taken.findings) == ((0, 1), ())


def table(change: Callable[[bytearray], None], *, cpus: int = 2) -> bytes:
    data = bytearray(mp_table(cpus))
    change(data)
    return summed(bytes(data), 7)


def cut(size: int, *more: int) -> bytes:
    """The first bytes of a table, and more of them, which says that this is its length."""
    data = mp_table(2)[:size] + bytes(more)
    return summed(data[:4] + len(data).to_bytes(2, "little") + data[6:], 7)


V, T = Grade.VIOLATION, Grade.TOLERATED
ENTRIES, BUS = 44, 44 + 2 * 20


@pytest.mark.parametrize(
    ("data", "ids", "said"),
    [
        (table(put(6, b"\1")), (0, 1), []),
        (table(put(6, b"\2")), None, [(V, "revision of the MP table at 0x20000 is wrong")]),
        (table(put(0, b"X")), None, [(V, "leads to 0x20000, where no MP table is")]),
        (mp_table(2, wrong=1), None, [(V, "checksum or revision of the MP table at 0x20000")]),
        (cut(43), None, [(V, "has 0x2b bytes")]),
        (cut(44), (), [(T, "says that it has 4 entries, but has 0")]),
        (table(put(ENTRIES + 3, b"\2")), (1,), []),  # a CPU that is not enabled
        (table(put(ENTRIES + 21, b"\0")), None, [(V, "two CPUs of the same APIC id")]),
        (table(put(ENTRIES + 20, bytes(4))), (0,), []),
        (table(put(BUS, b"\3")), (0, 1), []),
        (table(put(BUS, b"\4")), (0, 1), []),
        (table(put(BUS, b"\5")), None, [(V, "entry at 0x20054 of the MP table has type 5, which")]),
        (cut(BUS + 7), None, [(V, "entry at 0x20054 of the MP table has type 1 and ends behind")]),
        (cut(BUS, 0), None, [(V, "entry at 0x20054 of the MP table has type 0 and ends behind")]),
        (mp_table(2, count=5), (0, 1), [(T, "says that it has 5 entries, but has 4")]),
        (mp_table(2, apics=0xFEC00000), None, [(V, "has the local APICs at 0xfec00000")]),
    ],
)
def test_tables(data: bytes, ids: tuple[int, ...] | None, said: list[tuple[Grade, str]]) -> None:
    taken = found({0xF0000: RIGHT}, data)
    assert taken.apic_ids == ids
    assert [finding.grade for finding in taken.findings] == [grade for grade, _ in said]
    assert all(what in f.sentence for (_, what), f in zip(said, taken.findings, strict=True))
    assert all(f"{finding.address:#x}" in finding.sentence for finding in taken.findings)


def test_a_table_outside_of_ram() -> None:
    (finding,) = found({0xF0000: floating_pointer(MIB)}).findings
    assert "leads to 0x100000, where no MP table is" in finding.sentence
    at_the_end = floating_pointer(2 * MIB - 44)
    with GuestMemory([(0, 2 * MIB)]) as memory:
        memory.write(0xF0000, at_the_end)
        memory.write(2 * MIB - 44, mp_table(2)[:44])
        (finding,) = find(reader(memory)).findings
    assert "has 0x64 bytes" in finding.sentence
