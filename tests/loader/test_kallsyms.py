"""The names that a kernel carries of itself: all of them where they belong, or none."""

from __future__ import annotations

import random
import struct
from dataclasses import replace

import pytest

from bootproof.loader import kallsyms
from bootproof.loader.arch.table import ARCHITECTURES
from tests.builders.kallsyms import LAYOUTS, Layout, Symbol, many, tables

RANKS = {"t": 0, "T": 1, "W": 2}
CODE = random.Random(1).randbytes(0x2000)
STEXT = ("_stext", 0x1_0000)
PER_CPU: list[Symbol] = [("V", 0, "__per_cpu_start"), ("V", 0x40, "irq_stack"), ("V", 0x80, "z")]
OLD, NEW = LAYOUTS["6.4"], LAYOUTS["7.0"]
START = 0x80_0000  # of the part of the image that has the tables


def kernel(symbols: list[Symbol], layout: Layout, before: bytes = b"") -> bytes:
    """A part of an image: the tables, between what else there is."""
    return before + tables(symbols, layout, START + len(before))


def found(data: bytes, landmark: tuple[str, int] | None = STEXT) -> list[kallsyms.Function]:
    return kallsyms.functions(memoryview(data), START, landmark)


def expected(symbols: list[Symbol]) -> list[kallsyms.Function]:
    return [(RANKS[kind], place, name) for kind, place, name in symbols if kind in RANKS]


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("count", [257, 512, 1000, 1025])
def test_every_layout(layout: Layout, count: int) -> None:
    symbols = (PER_CPU if layout.per_cpu else []) + many(count)
    assert found(kernel(symbols, layout, CODE) + CODE[:0x800]) == expected(symbols)


def test_a_name_longer_than_a_byte_counts() -> None:
    symbols = [*many(300), ("t", 0x2_0000, "rust_" + "x" * 400)]
    assert found(kernel(symbols, OLD)) == expected(symbols)


def test_addresses_from_where_they_lie_need_no_landmark() -> None:
    data, symbols = kernel(many(300), NEW), many(300)
    assert found(data, None) == expected(symbols)
    elsewhere = kallsyms.functions(memoryview(data), START + 0x1000, None)
    assert elsewhere[0] == (1, 0x1_1000, "_stext")


@pytest.mark.parametrize("landmark", [None, ("missing", 0x1_0000), ("_stext", 0x1_0010)])
def test_a_base_that_cannot_be_told(landmark: tuple[str, int] | None) -> None:
    """Without the landmark, or where it cannot be right: bases are at the start of a page."""
    assert found(kernel(many(300), OLD), landmark) == []


def test_what_looks_like_tables_is_passed_over() -> None:
    digits = b"".join(b"%d\0" % digit for digit in range(10))
    wide = b"".join(bytes([code, 0]) for code in range(256))  # a character set's table
    zeros = struct.pack("<8I", 0, 700, 900, 0, 300, 0, 0, 5)  # what may be marks
    symbols = many(600)
    data = kernel(symbols, LAYOUTS["6.2"], digits + wide * 3 + zeros + bytes(4))
    assert found(data + zeros + wide) == expected(symbols)


def marks_at(data: bytearray) -> int:
    """Where the marks of at least 600 names are."""
    words = struct.unpack(f"<{len(data) // 4}I", data[: len(data) & ~3])
    (found,) = (
        4 * n
        for n in range(len(words) - 2)
        if words[n] == 0 and words[n + 1] > 1000 and 1000 < words[n + 2] - words[n + 1] < 20_000
    )
    return found


@pytest.mark.parametrize("more", [1, 2])
def test_numbers_behind_the_marks_that_might_be_some(more: int) -> None:
    """The order of names may go on as the marks do."""
    symbols = many(600)
    data = bytearray(kernel(symbols, LAYOUTS["6.2"]))
    at = marks_at(data) + 8
    last = int.from_bytes(data[at : at + 4], "little")
    struct.pack_into(f"<{more + 1}I", data, at + 4, *(last + 900 * (n + 1) for n in range(more)), 0)
    assert found(bytes(data)) == expected(symbols)


@pytest.mark.parametrize(
    ("arch", "head", "landmark"),
    [
        ("x86_64", "", ("_text", 0)),
        ("aarch64", "4d5a40fa 53234e14", ("primary_entry", 0x138_8D50)),  # Debian's 6.1
        ("aarch64", "01000014 00000000", ("primary_entry", 4)),  # without CONFIG_EFI_STUB
        ("aarch64", "4d5a40fa 1f2003d5", None),
        ("riscv64", "4d5a 6f10600d 0100", ("_start_kernel", 0x10D8)),  # Debian's 6.12
        ("riscv64", "4d5a4d5a 6f10c00d", ("_start_kernel", 0x10E0)),
        ("riscv64", "6f10600d 00000000", ("_start_kernel", 0x10D6)),
        ("riscv64", "13000000 13000000", None),
        ("riscv64", "", None),
    ],
)
def test_landmarks(arch: str, head: str, landmark: tuple[str, int] | None) -> None:
    assert ARCHITECTURES[arch].landmark(bytes.fromhex(head)) == landmark


# --- what is no table ----------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [LAYOUTS["5.10"], OLD, NEW], ids=["5.10", "6.4", "7.0"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (struct.pack("<I", 600), struct.pack("<I", 601)),
        (b"\x05\x81500\x80", b"\x06\x81500\x80"),
        (b"\x05\x81500\x80", b"\x00\x81500\x80"),
        (struct.pack("<4H", 7, 8, 9, 10), struct.pack("<4H", 7, 8, 8, 10)),
        (b"0\x001\x002\x003\x004\0", b"0\x001\x002\x003\x005\0"),
    ],
    ids=["count", "longer name", "empty name", "index", "digits"],
)
def test_what_does_not_agree_is_no_table(old: bytes, new: bytes, layout: Layout) -> None:
    data = kernel(many(600), layout)
    assert data.count(old) == 1
    assert found(data) != []
    assert found(data.replace(old, new)) == []


def test_a_mark_that_is_elsewhere() -> None:
    data = bytearray(kernel(many(600), OLD))
    data[marks_at(data) + 4] ^= 1
    assert found(bytes(data)) == []


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_addresses_that_do_not_ascend(layout: Layout) -> None:
    symbols = many(600)
    symbols[300], symbols[301] = symbols[301], symbols[300]
    assert found(kernel(symbols, layout)) == []


@pytest.mark.parametrize("layout", [LAYOUTS["6.2"], NEW], ids=["6.2", "7.0"])
def test_a_kernel_that_is_cut_off(layout: Layout) -> None:
    """Anywhere: all of its names or none, and no other error."""
    data, symbols = kernel(many(300), layout), many(300)
    answers = {len(found(data[:size])) for size in range(len(data), 0, -13)}
    assert answers == {0, len(expected(symbols))}
    assert {len(found(data[size:])) for size in range(0, len(data), 52)} <= answers


def test_names_that_would_fill_the_memory() -> None:
    """135,000 of 511 bytes, out of a file of 1 MiB."""
    symbols: list[Symbol] = [("t", 0, "x" * 510)] * 135_000
    layout = replace(NEW, tokens={0x82: "t" + "x" * 510})
    assert found(kernel(symbols, layout), None) == []
    assert len(found(kernel(symbols[:1000], layout), None)) == 1000
