"""The kernel's log buffer, read out of guest RAM: what was said when the console was never opened.

Knows the text ring of Linux 5.10 and newer (kernel/printk/printk_ringbuffer.c): a record is the id
of its descriptor, a 64-bit word, and then its text with a NUL. Ids count up by one, which tells a
row of records from anything else in RAM: format strings, copies of the log's text, other numbers.
RAM is only read, through the file that QEMU has mapped. Judges nothing.
"""

from __future__ import annotations

import functools
import re
import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.loader.address import GIB, MIB, Range
from bootproof.loader.memory import CHEAP_READ, GuestMemory

# DESC0_ID() of printk_ringbuffer.h: ids begin at minus the number of descriptors (at most 2^16 with
# the usual sizes), in 32 bits and then going on above them (seen up to Linux 6.12), or in the
# 62 bits that an id has and then going on at 0. The upper bytes of a word, little-endian, and the
# text behind it: struct page alone has such words by the hundred thousand, with zeros behind them.
_FIRST_IDS: Final = re.compile(rb"\xff\xff(?:\0\0\0\0|\xff\xff\xff\x3f)(?:[\x01-\x7f]|\Z)")
_UPPER_AT: Final = 2
_ID_MASK: Final = (1 << 62) - 1
_LAST_OF_FIRST: Final = ((1 << 32) - 1, _ID_MASK)
_MOST_DESCRIPTORS: Final = 1 << 16
_LARGEST_RING: Final = 2 * MIB
_WORD: Final = 8
_SHORTEST: Final = 2 * _WORD  # a record: its id, one character and a NUL, aligned to words
_LONGEST: Final = 2048  # PRINTKRB_RECORD_MAX is 1024, and an id
_FEWEST: Final = 3  # records in a row
_MOST_BYTES: Final = GIB  # of touched RAM that are looked through
_MOST_WORDS: Final = 1 << 18  # that are held against each other
_MOST_RECORDS: Final = 1 << 18  # of the largest ring that anybody asks for (log_buf_len=)
_MOST_TEXT: Final = 16 * MIB
_CONTINUED: Final = b"\x01c\n"  # what printk leaves of a KERN_CONT that only ended the line
_LEVELS: Final = tuple(b"\x01" + bytes([level]) for level in b"01234567dc")  # kern_levels.h


@dataclass(frozen=True, slots=True)
class _Record:
    address: int
    id: int


def read(memory: GuestMemory) -> bytes:
    """The records in guest RAM, oldest first, each with a newline; empty when there are none."""
    extents = list(memory.data_extents())
    rows = [row for row in _first_rows(memory, extents) if _is_text(memory, row)]
    if not rows:
        return b""
    records = _joined(rows)
    if records[-1].id in _LAST_OF_FIRST:
        rows += _rows(_later_words(memory, extents, records))
        records = _joined(rows)
    texts: deque[bytes] = deque()
    left = _MOST_TEXT
    for text in _texts(memory, records, _lengths(memory, extents, records)):
        texts.append(text + b"\n")
        left -= len(texts[-1])
        while left < 0:  # what was said last is what counts
            left += len(texts.popleft())
    return b"".join(texts)


def holds(memory: GuestMemory, words: bytes) -> bool:
    """Whether guest RAM has `words` anywhere but in a format (`words%s`): else no record has them.

    Takes a small part of the time that `read` takes.
    """
    for extent in memory.data_extents():
        last = b""
        for start in range(extent.start, extent.end, CHEAP_READ):
            data = last + memory.read(start, min(CHEAP_READ, extent.end - start))
            at = data.find(words)
            while at >= 0:
                behind = at + len(words)
                if data[behind : behind + 1] != b"%":
                    return True
                at = data.find(words, at + 1)
            last = data[-len(words) :]
    return False


def _first_rows(memory: GuestMemory, extents: Sequence[Range]) -> Iterator[list[_Record]]:
    """Rows of records with the first ids, by rising address in each bank."""
    taken: set[int] = set()
    words = 0
    for first in _words(memory, extents):
        if first.address in taken:
            continue
        row = [first]
        while (following := _next(memory, row[-1])) and following.address not in taken:
            row.append(following)
            taken.add(following.address)
            if words + len(row) > _MOST_WORDS:
                break
        words += len(row)
        if len(row) >= _FEWEST:
            yield row
        if words > _MOST_WORDS:
            return


def _words(memory: GuestMemory, extents: Sequence[Range]) -> Iterator[_Record]:
    """Every aligned word that may be one of the first ids, and has a text behind it."""
    left = _MOST_BYTES
    for part in chain.from_iterable(map(_chunks, extents)):
        if left < part.size:
            return
        left -= part.size
        data = memory.read(part.start, part.size)
        if data == data[:1] * part.size:  # of the bits set, as a test of RAM leaves it, all may be
            continue
        for match in _FIRST_IDS.finditer(data):
            start = match.start() - _UPPER_AT
            if start >= 0 and not start % _WORD:
                yield _Record(part.start + start, struct.unpack_from("<Q", data, start)[0])


def _next(memory: GuestMemory, record: _Record) -> _Record | None:
    """The record behind one of the first ids, if that has the next of them."""
    if record.id in _LAST_OF_FIRST:
        return None
    start = record.address + _SHORTEST
    data = _up_to(memory, start, _LONGEST - _SHORTEST + _WORD)
    wanted = (record.id + 1).to_bytes(_WORD, "little")
    at = data.find(wanted)
    while at % _WORD and at >= 0:
        at = data.find(wanted, at + 1)
    return None if at < 0 else _Record(start + at, record.id + 1)


def _up_to(memory: GuestMemory, start: int, size: int) -> bytes:
    """What RAM has at an address, up to `size` bytes of it in one bank."""
    ends = (bank.base + bank.size for bank in memory.banks if bank.base <= start)
    end = next((end for end in ends if start < end), start)
    return memory.read(start, min(size, end - start))


def _later_words(
    memory: GuestMemory, extents: Sequence[Range], first: Sequence[_Record]
) -> Iterator[_Record]:
    """Every word near the first records that may be an id after the first ones."""
    begin = first[-1].id + 1 & _ID_MASK
    near = Range.between(
        max(first[0].address - _LARGEST_RING, 0), first[-1].address + _LARGEST_RING
    )
    for extent in extents:
        part = _common(extent, near)
        words = memoryview(memory.read(part.start, part.size & ~(_WORD - 1))).cast("Q")
        for index, word in enumerate(words):
            if begin <= word < begin + _MOST_DESCRIPTORS:
                yield _Record(part.start + index * _WORD, word)


def _chunks(extent: Range) -> Iterator[Range]:
    for start in range(extent.start, extent.end, CHEAP_READ):
        yield Range.between(start, min(start + CHEAP_READ, extent.end))


def _common(one: Range, other: Range) -> Range:
    start = max(one.start, other.start)
    return Range.between(start, max(start, min(one.end, other.end)))


def _rows(records: Iterator[_Record]) -> Iterator[list[_Record]]:
    """Rows of records that lie behind one another and whose ids count up by one."""
    row: list[_Record] = []
    for record in records:
        if row and not _follows(record, row[-1]):
            if len(row) >= _FEWEST:
                yield row
            row = []
        row.append(record)
    if len(row) >= _FEWEST:
        yield row


def _follows(record: _Record, last: _Record) -> bool:
    follows = record.id == last.id + 1 & _ID_MASK
    return follows and _SHORTEST <= record.address - last.address <= _LONGEST


def _is_text(memory: GuestMemory, row: Sequence[_Record]) -> bool:
    """Whether the first records say something: other numbers count up as well."""
    said = list(_texts(memory, row[: _FEWEST + 1]))[:_FEWEST]
    return all(text and text.isascii() for text in said)


def _joined(rows: Sequence[list[_Record]]) -> list[_Record]:
    """The longest row, with the rows before and behind it where the ring begins anew.

    A kernel that moves to a larger buffer leaves the records of the first one behind.
    """
    longest = max(rows, key=len)
    by_first = {row[0].id: row for row in rows}
    by_last = {row[-1].id: row for row in rows}
    joined = deque([longest])
    while (following := by_first.pop(joined[-1][-1].id + 1 & _ID_MASK, None)) is not None:
        joined.append(following)
    while (before := by_last.pop(joined[0][0].id - 1 & _ID_MASK, None)) is not None:
        joined.appendleft(before)
    return [*chain.from_iterable(joined)][-_MOST_RECORDS:]


def _texts(
    memory: GuestMemory,
    records: Sequence[_Record],
    length: Callable[[int], int | None] = lambda _: None,
) -> Iterator[bytes]:
    for index, record in enumerate(records):
        raw = _raw(memory, record, records[index + 1] if index + 1 < len(records) else None)
        size = length(record.id)
        yield _as_printed(raw) if size is None or size > len(raw) else raw[:size]


def _raw(memory: GuestMemory, record: _Record, following: _Record | None) -> bytes:
    start = record.address + _WORD
    size = _LONGEST
    if following is not None and start < following.address < start + size:
        size = following.address - start
    return _up_to(memory, start, size).partition(b"\0")[0]


# --- how long a text is -------------------------------------------------------------------------

# printk_info of printk_ringbuffer.h: number of the message, nanoseconds, length of its text. They
# lie in an array of their own, by the lower bits of the record's id.
_INFO: Final = struct.Struct("<QQH")
_INFO_SIZE: Final = 88
_DESCRIPTORS: Final = tuple(1 << shift for shift in range(8, 20))
_MOST_PLACES: Final = 100_000


def _lengths(
    memory: GuestMemory, extents: Sequence[Range], records: Sequence[_Record]
) -> Callable[[int], int | None]:
    """The length of a record's text by its id, as far as the kernel's own notes are found."""
    # Zeros are everywhere, so that what begins with one is searched for long.
    last = next((record for record in reversed(records) if record.id & 0xFF), records[-1])
    earlier = range(last.id - _FEWEST, last.id)
    numbers = {count: _number(last.id, count) for count in _DESCRIPTORS}
    # Numbers that are too small stand everywhere.
    wanted = {count: number for count, number in numbers.items() if number >= 2 * _FEWEST}
    # They most often lie near the texts.
    parts = chain.from_iterable(map(_chunks, extents))
    nearest = sorted(parts, key=lambda part: abs(part.start - last.address))
    for count, place in islice(_places(memory, nearest, wanted), _MOST_PLACES):
        base = place - _INFO_SIZE * (last.id % count)
        if all(_length(memory, base, count, id_) is not None for id_ in earlier):
            return functools.partial(_length, memory, base, count)
    return lambda _: None


def _number(id_: int, count: int) -> int:
    """Which message it is, from 0, of a ring with `count` descriptors; negative for none of it."""
    number = (id_ + count) & _ID_MASK
    return number if number < 1 << 31 else number - (1 << 32)


def _places(
    memory: GuestMemory, parts: Sequence[Range], numbers: Mapping[int, int]
) -> Iterator[tuple[int, int]]:
    """Where words with these values lie, each with the key of its value.

    Their first bytes are the same, as those of the keys are, so that one search finds them all.
    """
    keys = {number.to_bytes(_WORD, "little"): key for key, number in numbers.items()}
    rests = b"|".join(re.escape(word[1:]) for word in keys)
    first = next(iter(keys), b"")[:1]
    words = re.compile(re.escape(first) + b"(?=(" + rests + b"))", re.DOTALL)
    for part in parts if keys else ():
        data = memory.read(part.start, part.size)
        for match in words.finditer(data):
            if not match.start() % _WORD:
                yield keys[first + match[1]], part.start + match.start()


def _length(memory: GuestMemory, base: int, count: int, id_: int) -> int | None:
    place = base + _INFO_SIZE * (id_ % count)
    if not memory.contains(place, _INFO.size):
        return None
    number, _, length = _INFO.unpack(memory.read(place, _INFO.size))
    return length if number == _number(id_, count) and length <= _LONGEST else None


def _as_printed(raw: bytes) -> bytes:
    """A record's text without what printk leaves behind it (printk_sprint in printk.c).

    It moves a text down over its log level, so that two bytes of the original stay behind it. A
    text without a level (of a program, say) that ends in a pair of the same looks alike.
    """
    if raw.endswith(_CONTINUED):
        return raw.removesuffix(_CONTINUED)
    text = raw.removesuffix(b"\n")
    moved, rest = text[:-2], text[-2:]
    for level in _LEVELS:
        original = level + moved
        if len(text) >= 2 and original[len(moved) : len(text)] == rest:
            return moved
    return text
