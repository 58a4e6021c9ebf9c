"""The names that a kernel carries of its own code (kallsyms), from its bytes alone. Pure.

Owns finding the tables, to which nothing points, and reading them, within bounds. They are told by
what each says of the others: an index of its texts, marks between the names, as many of these as
are counted, an address for each that is not below the one before. What does not agree is no table.

Source: scripts/kallsyms.c, write_src(). In this order, each at a multiple of 8 bytes (from 7.0, 4):

    until 6.3  addresses, their base, count, names, marks, (order of names,) tokens, index
    since 6.4  count, names, marks, tokens, index, addresses, (their base,) order of names

Addresses are 32 bits each, from the base or, since 7.0, from where each of them lies. The base is
not read: in a kernel that moves it is not there before the kernel has relocated itself. Its place
follows from that of a landmark.
"""

from __future__ import annotations

import operator
import re
import struct
from collections.abc import Iterator, Sequence
from itertools import accumulate, islice
from typing import Final, TypeAlias

from bootproof.dataclass import dataclass
from bootproof.loader.address import PAGE

# A rank, the place in the image, the name: of several at one place the highest rank names it.
Function: TypeAlias = tuple[int, int, str]

_RANKS: Final = {b"t": 0, b"T": 1, b"W": 2}  # nm's types: local, global and weak
_TOKENS: Final = 256
_ZERO: Final = ord("0")
# Each character that is in a name stands for itself, so these tokens are in every table.
_DIGITS: Final = re.compile(re.escape(b"".join(b"%d\0" % digit for digit in range(10))))
_INDEX: Final = struct.Struct(f"<{_TOKENS}H")
_ALIGNMENTS: Final = (4, 8)
_BASE: Final = 8  # bytes
_MARKED: Final = 256  # names from mark to mark
_LONGEST: Final = 512  # bytes of a name, packed or not: KSYM_NAME_LEN
_BETWEEN: Final = _MARKED * (_LONGEST + 2)  # bytes from mark to mark

# Bounds: an allyesconfig has about a million names, of 30 bytes, and tables of 40 character sets.
_MOST_NAMES: Final = 2 << 20
_MOST_TEXT: Final = 64 << 20
_MOST_DIGITS: Final = 1000
_TRIES: Final = 16


@dataclass(frozen=True, slots=True)
class _Tokens:
    start: int
    end: int  # of their index
    texts: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class _Names:
    start: int
    end: int  # or up to seven bytes before
    count: int
    marks: Sequence[int]


@dataclass(frozen=True, slots=True)
class _Places:
    """Of the last names: the first may be per-CPU variables, which have none."""

    values: Sequence[int]
    # Whether these are places in the image; else they count from the base.
    final: bool


def functions(kernel: memoryview, start: int, landmark: tuple[str, int] | None) -> list[Function]:
    """The functions that an uncompressed kernel names itself; nothing where it cannot be told.

    `kernel` is a part of it in one piece, from `start` on in the image; the landmark is a function
    whose place in the image is known.
    """
    for tokens in islice(_tokens(kernel), 2):
        for names in islice(_names(kernel, tokens.start), _TRIES):
            packed = _packed(kernel, names)
            places = _places(kernel, start, tokens, names) if packed else None
            if packed and places:
                found = _functions(tokens.texts, packed[-len(places.values) :], places.values)
                return found if places.final else _from_base(found, landmark)
    return []


# --- the tables ----------------------------------------------------------------------------------


def _tokens(kernel: memoryview) -> Iterator[_Tokens]:
    for match in islice(_DIGITS.finditer(kernel), _MOST_DIGITS):
        zero = match.start()
        texts = bytes(kernel[zero : zero + _TOKENS * _LONGEST]).split(b"\0", _TOKENS - _ZERO)[:-1]
        end = zero + sum(map(len, texts)) + len(texts)
        for at in sorted({end + -end % alignment for alignment in _ALIGNMENTS}):
            if at + _INDEX.size > len(kernel):
                break
            index = _INDEX.unpack_from(kernel, at)
            start = max(zero - index[_ZERO], 0)
            texts = bytes(kernel[start:end]).split(b"\0")[:-1]
            starts = accumulate((len(text) + 1 for text in texts[:-1]), initial=0)
            if tuple(starts) == index and start % min(_ALIGNMENTS) == 0:
                yield _Tokens(start, at + _INDEX.size, texts)


def _names(kernel: memoryview, end: int) -> Iterator[_Names]:
    """What may be names, whose marks begin before `end`: there are as many as their marks want."""
    for at, marks in islice(_marks(kernel, end), _TRIES):
        for blocks in range(len(marks), max(len(marks) - 3, 1), -1):  # more may look like marks
            for start, count in _counts(kernel, at - marks[blocks - 1], blocks):
                yield _Names(start, at, count, marks[:blocks])


def _counts(kernel: memoryview, last: int, blocks: int) -> Iterator[tuple[int, int]]:
    """What may count the names of so many blocks, not far before `last`: where these begin, and
    how many they are.
    """
    high = max(last & -min(_ALIGNMENTS), 0)
    low = max(high - _BETWEEN, 0)
    words = kernel[low:high].cast("I")
    for index in range(len(words) - 1, -1, -1):
        if (words[index] + _MARKED - 1) // _MARKED == blocks:
            for alignment in _ALIGNMENTS:
                yield low + 4 * index + alignment, words[index]


def _marks(kernel: memoryview, end: int) -> Iterator[tuple[int, list[int]]]:
    """What may be marks, and where: from 0 on they ascend. The last come first."""
    start = max(end - 4 * (_MOST_NAMES + _MOST_NAMES // _MARKED), 0)
    words = kernel[start:end].cast("I")
    for first in range(len(words) - 2, -1, -1):
        if words[first] == 0 < words[first + 1] < _BETWEEN:
            marks = [0]
            for word in words[first + 1 :]:
                if not 0 < word - marks[-1] < _BETWEEN:
                    break
                marks.append(word)
            yield start + 4 * first, marks


def _packed(kernel: memoryview, names: _Names) -> list[bytes] | None:
    """The names, each as codes of tokens; None where they are not as they are marked."""
    raw, end = bytes(kernel[names.start : names.end + 2]), names.end - names.start
    packed, at = [], 0
    for number in range(names.count):
        if at >= end or (number % _MARKED == 0 and at != names.marks[number // _MARKED]):
            return None
        size = raw[at]
        at += 1
        if size & 0x80:
            size = size & 0x7F | raw[at] << 7
            at += 1
        if not 0 < size <= _LONGEST:
            return None
        packed.append(raw[at : at + size])
        at += size
    return packed if 0 <= end - at < max(_ALIGNMENTS) else None


def _places(kernel: memoryview, start: int, tokens: _Tokens, names: _Names) -> _Places | None:
    count, size = names.count, 4 * names.count
    before = names.start - max(_ALIGNMENTS) - _BASE - (size + -size % max(_ALIGNMENTS))
    for at in (tokens.end, before):
        if 0 <= at <= len(kernel) - size:
            values = struct.unpack_from(f"<{count}i", kernel, at)
            from_here = [start + at + 4 * index + value for index, value in enumerate(values)]
            if values[0] < 0 and _ascends(from_here):
                return _Places(from_here, final=True)
            # Where per-CPU variables count from 0, all others do downwards from -1.
            from_base = [-1 - value for value in values if value < 0] or values
            if from_base[0] == 0 and _ascends(from_base):
                return _Places(from_base, final=False)
    return None


def _ascends(values: Sequence[int]) -> bool:
    return all(map(operator.le, values, islice(values, 1, None)))


# --- what is in them -----------------------------------------------------------------------------


def _functions(
    tokens: Sequence[bytes], packed: Sequence[bytes], places: Sequence[int]
) -> list[Function]:
    ranks = {code: _RANKS[text[:1]] for code, text in enumerate(tokens) if text[:1] in _RANKS}
    found: list[Function] = []
    room = _MOST_TEXT
    for place, codes in zip(places, packed, strict=True):
        if codes[0] in ranks:
            text = b"".join([tokens[code] for code in codes])
            room -= len(text)
            if room < 0:
                return []
            found.append((ranks[codes[0]], place, text[1:].decode("ascii", "replace")))
    return found


def _from_base(found: list[Function], landmark: tuple[str, int] | None) -> list[Function]:
    """Places in the image, of those that count from the base, which is at the start of a page.

    Without CONFIG_KALLSYMS_ALL a riscv64 kernel does not name its landmark.
    """
    name, place = landmark or ("", 0)
    base = next((place - at for _, at, known in found if known == name), None)
    if base is None or base % PAGE:
        return []
    return [(rank, base + at, known) for rank, at, known in found]
