"""Guest-address arithmetic and the sizes people type."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootproof.loader.address import (
    U64_MAX,
    Range,
    align_down,
    align_up,
    checked_add,
    counted,
    format_size,
    is_aligned,
    joined,
    parse_size,
)

ADDRESSES = st.integers(0, U64_MAX)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (1, 2, 3),
        (U64_MAX, 0, U64_MAX),
        (U64_MAX, 1, None),
        (1 << 63, 1 << 63, None),
        (-1, 5, None),
        (5, -1, None),
    ],
)
def test_checked_add_stays_within_64_bits(a: int, b: int, expected: int | None) -> None:
    assert checked_add(a, b) == expected


def test_ranges_that_touch_are_joined_and_others_are_not() -> None:
    parts = [Range(0x3000, 0x1000), Range(0, 0x1000), Range(0x1000, 0x1000), Range(0x5000, 8)]
    assert joined(parts) == (Range(0, 0x2000), Range(0x3000, 0x1000), Range(0x5000, 8))
    assert joined([]) == ()


@given(ADDRESSES, st.integers(1, 1 << 40))
def test_alignment_is_the_nearest_multiple(value: int, alignment: int) -> None:
    up, down = align_up(value, alignment), align_down(value, alignment)
    assert down <= value <= up < value + alignment
    assert is_aligned(up, alignment)
    assert is_aligned(down, alignment)
    assert is_aligned(value, alignment) == (up == down)


@pytest.mark.parametrize("alignment", [0, -1])
def test_alignment_has_to_be_positive(alignment: int) -> None:
    for function in (align_up, align_down, is_aligned):
        with pytest.raises(ValueError, match="must be positive"):
            function(1, alignment)


def test_range_prints_its_last_byte() -> None:
    assert str(Range(0x3FE0_0000, 0x40_0000)) == "0x3fe00000-0x401fffff"
    assert str(Range(0x1000, 0)) == "0x1000 (empty)"


def test_range_between_excludes_its_end() -> None:
    assert Range.between(0x1000, 0x3000) == Range(0x1000, 0x2000)
    assert Range.between(0x1000, 0x3000).end == 0x3000
    with pytest.raises(ValueError, match="no range"):
        Range.between(2, 1)


@given(*[st.integers(0, 40) for _ in range(4)])
def test_overlap_and_containment_mean_bytes(a: int, m: int, b: int, n: int) -> None:
    one, other = Range(a, m), Range(b, n)
    bytes_of_one, bytes_of_other = set(range(a, a + m)), set(range(b, b + n))
    assert one.overlaps(other) == bool(bytes_of_one & bytes_of_other)
    if n:
        assert one.contains(other) == (bytes_of_other <= bytes_of_one)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("0x1000", 0x1000),
        ("0XfF", 255),
        ("4K", 4096),
        ("16m", 16 << 20),
        ("2G", 2 << 30),
        ("1T", 1 << 40),
        ("512MiB", 512 << 20),
        ("512 mb", 512 << 20),
        ("0x10M", 16 << 20),
        ("007", 7),
        (" 1 ", 1),
        ("18446744073709551615", U64_MAX),
    ],
)
def test_sizes_are_understood(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "K", "-1", "1.5G", "0x", "1KK", "4 096", "1_000", "0b1", "16Q", "٣"]
)
def test_other_texts_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write it like 4096, 0x1000, 64K, 16M or 2G"):
        parse_size(text)


def test_size_beyond_64_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit into 64 bits"):
        parse_size("0x10000000000000000")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1023 bytes"),
        (4096, "4 KiB"),
        (512 << 20, "512 MiB"),
        (1029 << 20, "1029 MiB"),
        (2 << 30, "2 GiB"),
        (0x1D8_27C0, "29.5 MiB"),
    ],
)
def test_sizes_are_printed_for_people(size: int, text: str) -> None:
    assert format_size(size) == text


def test_one_is_counted_as_one() -> None:
    assert [counted(n, "case") for n in (0, 1, 2)] == ["0 cases", "1 case", "2 cases"]
    assert [counted(n, "entry", "entries") for n in (1, 2)] == ["1 entry", "2 entries"]


@given(st.integers(1, 4095), st.sampled_from([1 << 10, 1 << 20, 1 << 30]))
def test_printed_sizes_can_be_typed_again(count: int, unit: int) -> None:
    assert parse_size(format_size(count * unit)) == count * unit
