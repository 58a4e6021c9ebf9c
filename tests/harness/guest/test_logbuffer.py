"""The text ring of printk in guest RAM, laid out here from printk_ringbuffer.c by hand.

scenarios/failures-*.toml reads the log buffers of real kernels.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from bootproof.harness.guest import logbuffer
from bootproof.loader.address import GIB, MIB
from bootproof.loader.memory import CHEAP_READ, GuestMemory

# 4096 descriptors: CONFIG_LOG_BUF_SHIFT=17; as 32-bit numbers up to Linux 6.12, later in 62 bits.
FIRST = 0xFFFFF000
FIRST_62 = 0x3FFFFFFFFFFFF000
SIZE = 16 * MIB


def block(id_: int, text: bytes, level: bool = True) -> bytes:
    """A data block as printk_sprint leaves it: text moved down over its level, NUL, padding."""
    raw = b"\x016" + text + b"\n" if level else text + b"\n"
    if level:
        raw = text + raw[len(text) :]
    data = struct.pack("<Q", id_ & FIRST_62 + 0xFFF) + raw + b"\0"
    return data.ljust(-(-len(data) // 8) * 8, b"\0")


def ring(first: int, *texts: bytes) -> bytes:
    return b"".join(block(first + number, text) for number, text in enumerate(texts))


LINES = (b"Linux version 6.1.0", b"Command line: quiet", b"third", b"fourth", b"fifth")


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    with GuestMemory([(GIB, SIZE)]) as guest:
        yield guest


def lines(memory: GuestMemory) -> list[bytes]:
    return logbuffer.read(memory).splitlines()


@pytest.mark.parametrize("first", [FIRST, FIRST_62, 0xFFFF0000, 0x3FFFFFFFFFFF0000])
def test_records_in_their_order(first: int, memory: GuestMemory) -> None:
    memory.write(GIB + 0x1238, ring(first, *LINES))
    assert lines(memory) == list(LINES)


def test_text_without_a_level_and_text_that_repeats(memory: GuestMemory) -> None:
    blocks = [block(FIRST, b"some text", False), block(FIRST + 1, b"x"), block(FIRST + 2, b"papa")]
    blocks += [block(FIRST + 3, b"a\nb"), block(FIRST + 4, b""), block(FIRST + 5, b"12")]
    memory.write(GIB, b"".join(blocks))
    assert lines(memory) == [b"some text", b"x", b"papa", b"a", b"b", b"", b"12"]


@pytest.mark.parametrize("address", [GIB, GIB + 0x1238, GIB + CHEAP_READ - 12, GIB + SIZE - 16])
def test_words_that_only_a_format_has_are_in_no_record(address: int, memory: GuestMemory) -> None:
    assert not logbuffer.holds(memory, b"words: ")
    memory.write(GIB + 0x5000, b"\x010words: %s\n\0")
    memory.write(GIB + 3 * CHEAP_READ - 11, b"\x010words: %s\n\0")
    assert not logbuffer.holds(memory, b"words: ")
    memory.write(address, b"words: real\n\0")
    assert logbuffer.holds(memory, b"words: ")


@pytest.mark.parametrize("first", [FIRST, FIRST_62])
def test_length_of_a_text_is_what_the_kernel_notes(first: int, memory: GuestMemory) -> None:
    """A program's text has no level: of one that ends in a pair twice, nothing was left behind."""
    said = [(b"%d fine" % number, True) for number in range(6)]
    said += [(b"code 1fffffff", False), (b"code 1fffffff", True), (b"end", True)]
    blocks = [block(first + number, *text) for number, text in enumerate(said)]
    memory.write(GIB + 0x8000, b"".join(blocks))
    assert lines(memory)[6:8] == [b"code 1fffff", b"code 1fffffff"]
    for number, (text, _) in enumerate(said):
        info = struct.pack("<QQH", number, number * 1000, len(text))
        memory.write(GIB + 0x40_0000 + 88 * ((first + number) % 4096), info)
    assert lines(memory) == [text for text, _ in said]


def test_line_that_was_continued(memory: GuestMemory) -> None:
    data = ring(FIRST, b"one", b"two", b"three")
    memory.write(GIB, data + block(FIRST + 3, b"BIOS-e820: usable\x01c", level=False))
    assert lines(memory)[3] == b"BIOS-e820: usable"


@pytest.mark.parametrize("place", [0, 4 * MIB - 16, 4 * MIB - 8, 8 * MIB - 40])
def test_anywhere_in_ram(place: int, memory: GuestMemory) -> None:
    memory.write(GIB + place, ring(FIRST, *LINES))
    assert lines(memory) == list(LINES)


def test_at_the_very_end_of_ram(memory: GuestMemory) -> None:
    data = ring(FIRST, *LINES)
    memory.write(GIB + SIZE - len(data), data)
    assert lines(memory) == list(LINES)


def test_ring_that_began_anew(memory: GuestMemory) -> None:
    """The newest records lie before the oldest."""
    memory.write(GIB + 0x8000, ring(FIRST, *LINES))
    memory.write(GIB + 0x2000, ring(FIRST + 5, b"sixth", b"seventh", b"eighth"))
    assert lines(memory) == [*LINES, b"sixth", b"seventh", b"eighth"]
    memory.write(GIB + 0x2000, ring(FIRST + 5, *LINES, *LINES))  # and are more
    assert lines(memory) == [*LINES, *LINES, *LINES]


@pytest.mark.parametrize("last", [0xFFFFFFFF, FIRST_62 + 0xFFF])
def test_more_records_than_descriptors(last: int, memory: GuestMemory) -> None:
    memory.write(GIB + 0x8000, ring(last - 4, *LINES, b"next", b"and next", b"last"))
    assert lines(memory) == [*LINES, b"next", b"and next", b"last"]


def test_longest_ring_counts(memory: GuestMemory) -> None:
    """A larger buffer takes over the records; those of the first one stay behind."""
    memory.write(GIB + 0x1000, ring(FIRST, *LINES[:3]))
    memory.write(GIB + 0x90000, ring(0xFFFFC000, *LINES))
    assert lines(memory) == list(LINES)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"Kernel panic - not syncing: %s\n\0" * 100,
        ring(FIRST, *LINES[:2]),  # too few to be sure
        ring(FIRST, b"a\xff", b"b\xff", b"words", b"d\xff"),
        b"".join(block(FIRST + 2 * number, text) for number, text in enumerate(LINES)),
        struct.pack("<8Q", *range(0xFFFFFFF0, 0xFFFFFFF8)),  # numbers that count up
        b"".join(struct.pack("<QQ", 0xFFFFFFF0 + number, 0) for number in range(8)),
        b"\1" + ring(FIRST, *LINES),  # not on words
        b"\xff\xff\0\0\0\0" * 1000,
    ],
)
def test_no_log_buffer(content: bytes, memory: GuestMemory) -> None:
    memory.write(GIB + 0x1000, content)
    assert logbuffer.read(memory) == b""


def test_a_large_guest_has_a_million_words_that_are_no_ids(memory: GuestMemory) -> None:
    """struct page has one for each page that nobody maps: _mapcount is -1."""
    memory.write(GIB, struct.pack("<Q", 0xFFFFFFFF) * (SIZE // 8))
    memory.write(GIB + SIZE - 0x8000, ring(FIRST, *LINES))
    assert lines(memory) == list(LINES)


def test_hostile_ram_is_bounded(memory: GuestMemory) -> None:
    """Every word looks like a record's: the search ends all the same."""
    words = struct.pack("<4Q", FIRST, FIRST + 1, FIRST + 2, FIRST + 3)
    memory.write(GIB, words * (SIZE // len(words)))
    assert logbuffer.read(memory) == b""
