"""An ELF kernel's own symbol table and code: what is in the file, and nothing of a lie."""

from __future__ import annotations

import struct

import pytest

from bootproof.loader import symtab
from tests.builders.images import bss, elf, elf32, load, with_symbols

NAMES = {0: "startup_64", 0x40: "start_kernel"}
FUNCTION, GLOBAL = 2 << 4, 1
PLAIN = with_symbols(NAMES, b"code" * 64)


def functions(data: bytes) -> list[tuple[int, int, str]]:
    return symtab.functions(memoryview(data))


def segments(data: bytes) -> list[tuple[int, bytes]]:
    return [(start, bytes(part)) for start, part in symtab.segments(memoryview(data))]


def test_what_a_table_names() -> None:
    assert functions(PLAIN) == [
        (FUNCTION | GLOBAL, 0, "startup_64"),
        (FUNCTION | GLOBAL, 0x40, "start_kernel"),
    ]
    assert segments(PLAIN) == [(0, b"code" * 64)]


def test_segments_go_by_the_first() -> None:
    """x86-64's per-CPU variables are linked to 0."""
    parts = (load(0x1000, b"text"), load(0x5000, b"data"), load(0, b"per-CPU"), bss(0x9000, 64))
    assert segments(elf(*parts)) == [(0, b"text"), (0x4000, b"data")]


@pytest.mark.parametrize(
    "data",
    [
        b"\x7fELF",
        PLAIN[:63],
        elf32((1, 0, b"text")),
        elf(load(0, bytes(64), filesz=1 << 40)),
        elf(*[load(0, bytes(64), offset=0, filesz=500)] * 3),
        elf(load(0, b"text"), phoff=1 << 60),
    ],
    ids=["short", "cut off", "32 bits", "beyond the file", "many times the file", "no table"],
)
def test_segments_that_are_none(data: bytes) -> None:
    assert segments(data) == []
    assert functions(data) == []


def test_a_name_without_an_end() -> None:
    texts = b"\0".join(name.encode() for name in ("", *NAMES.values(), ""))
    assert PLAIN.count(texts) == 1
    assert functions(PLAIN.replace(texts, b"x" * len(texts))) == []


def test_a_table_whose_texts_are_no_section() -> None:
    at = PLAIN.index(struct.pack("<IIQQ", 3, 0, 1, 24))  # from sh_link on
    assert functions(PLAIN[:at] + struct.pack("<I", 99) + PLAIN[at + 4 :]) == []
