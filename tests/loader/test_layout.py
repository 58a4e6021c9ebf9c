"""Placement in guest RAM: what is placed lies right, and what has no place is named."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootproof.loader.address import MIB, Range
from bootproof.loader.layout import (
    LayoutError,
    Region,
    Wanted,
    check_inside,
    place,
    smallest_memory,
)

RAM = [Range(0, 0x10000), Range(0x100000, 0x10000)]


def at(*wanted: Wanted, taken: tuple[Region, ...] = (), ram: list[Range] = RAM) -> list[int]:
    return [region.range.start for region in place(ram, taken, wanted)]


# --- examples ----------------------------------------------------------------------------------


def test_lowest_place_first_in_the_order_given() -> None:
    assert at(Wanted("a", 0x10, 16), Wanted("b", 1, 0x1000), Wanted("c", 0x20, 16)) == [
        *(0, 0x1000, 0x10),
    ]


def test_highest_place() -> None:
    high = Wanted("a", 0x1001, 0x1000, high=True)
    assert at(high, high) == [0x10E000, 0x10C000]


def test_window() -> None:
    window = Range(0x8000, 0x2000)
    assert at(Wanted("a", 0x1000, 16, window), Wanted("b", 0x1000, 16, window, high=True)) == [
        *(0x8000, 0x9000),
    ]


def test_taken_may_overlap_and_lie_anywhere() -> None:
    taken = (
        Region("a", Range(0, 0x1000)),
        Region("b", Range(0x800, 0x1000)),
        Region("c", Range(0xF000, 0xF1000)),
        Region("d", Range(0x200000, 0x1000)),
        Region("empty", Range(0x1800, 0)),
    )
    assert at(Wanted("x", 0x100), taken=taken) == [0x1800]
    assert at(Wanted("x", 0x100, high=True), taken=taken) == [0x10FF00]


def test_a_piece_spans_no_two_banks() -> None:
    ram = [Range(0, 0x1000), Range(0x1000, 0x2000)]
    assert at(Wanted("x", 0x1001, 1), ram=ram) == [0x1000]


def test_within_moves_a_piece_off_a_boundary() -> None:
    ram = [Range(0x1800, 0x4000)]
    low = Wanted("x", 0x1000, 16, within=0x1000)
    assert at(low, ram=ram) == [0x2000]
    ram = [Range(0x1800, 0x3000)]
    assert at(Wanted("x", 0x1000, 16, within=0x2000, high=True), ram=ram) == [0x3000]
    assert at(Wanted("x", 0x1000, 16, within=0x1000, high=True), ram=ram) == [0x3000]


@pytest.mark.parametrize("high", [True, False])
def test_larger_than_what_it_must_lie_within(high: bool) -> None:
    with pytest.raises(LayoutError):
        at(Wanted("x", 0x1001, 16, within=0x1000, high=high))


def test_the_error_names_piece_place_and_neighbours() -> None:
    taken = (Region("kernel", Range(0x1000, 0xF000)),)
    window = Range(0x800, 0x8000)
    with pytest.raises(LayoutError) as refused:
        place(RAM, taken, [Wanted("small", 16), Wanted("initrd", 0x2000, 0x1000, window)])
    assert str(refused.value) == (
        "no room for initrd: 8 KiB aligned to 0x1000 in 0x800-0x87ff of RAM 0x0-0xffff,"
        " 0x100000-0x10ffff, beside kernel 0x1000-0xffff, small 0x0-0xf"
    )
    assert (refused.value.field, refused.value.code) == ("initrd", "Layout::NoRoom")


def test_the_error_without_neighbours() -> None:
    with pytest.raises(LayoutError, match=r"beside nothing$"):
        place([Range(0, 16)], (), [Wanted("x", 17)])


# --- properties --------------------------------------------------------------------------------

ranges = st.builds(Range, st.integers(0, 0x4000), st.integers(1, 0x4000))
alignments = st.sampled_from((1, 2, 16, 0x100, 0x1000))
wanted = st.builds(
    Wanted,
    st.sampled_from(("a", "b")),
    st.integers(1, 0x1800),
    alignments,
    ranges | st.just(Range(0, 1 << 64)),
    st.sampled_from((0, 0, 0x400, 0x1000)),
    st.booleans(),
)


@st.composite
def banks(draw: st.DrawFn) -> list[Range]:
    """Up to three banks that do not overlap, some of them touching."""
    found, cursor = [], 0
    for _ in range(draw(st.integers(1, 3))):
        start = cursor + draw(st.sampled_from((0, 0x100, 0x1234)))
        found.append(Range(start, draw(st.integers(1, 0x3000))))
        cursor = found[-1].end
    return found


def legal(ram: list[Range], taken: list[Region], piece: Wanted, found: Range) -> bool:
    return (
        found.size == piece.size
        and found.start % piece.alignment == 0
        and piece.window.contains(found)
        and any(bank.contains(found) for bank in ram)
        and not any(found.overlaps(region.range) for region in taken)
        and (not piece.within or found.start // piece.within == (found.end - 1) // piece.within)
    )


@given(banks(), st.lists(st.builds(Region, st.just("t"), ranges), max_size=4), st.lists(wanted))
def test_what_is_placed_lies_right(
    ram: list[Range], taken: list[Region], pieces: list[Wanted]
) -> None:
    try:
        placed = place(ram, taken, pieces)
    except LayoutError:
        return
    assert [region.name for region in placed] == [piece.name for piece in pieces]
    for piece, region in zip(pieces, placed, strict=True):
        assert legal(ram, taken, piece, region.range)
    assert not any(a.range.overlaps(b.range) for a, b in combinations(placed, 2))
    assert placed == place(ram, taken, pieces)


@given(banks(), st.lists(st.builds(Region, st.just("t"), ranges), max_size=2), wanted)
def test_the_first_fit_is_found_whenever_there_is_one(
    ram: list[Range], taken: list[Region], piece: Wanted
) -> None:
    """Compared with every address there is, one after the other."""
    end = max(bank.end for bank in ram)
    places = [
        address
        for address in range(0, end, piece.alignment)
        if legal(ram, taken, piece, Range(address, piece.size))
    ]
    try:
        (found,) = place(ram, taken, [piece])
    except LayoutError:
        assert places == []
    else:
        assert found.range.start == (places[-1] if piece.high else places[0])


# --- checks ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("region", "inside"),
    [
        (Range(0, 0x10000), True),
        (Range(0xFFFF, 2), False),
        (Range(0x100000, 0x10000), True),
        (Range(0xFFFFF, 2), False),
        (Range(0x200000, 1), False),
        (Range(0x200000, 0), True),
    ],
)
def test_check_inside(region: Range, inside: bool) -> None:
    if inside:
        check_inside(RAM, Region("kernel", region))
        return
    with pytest.raises(LayoutError) as refused:
        check_inside(RAM, Region("kernel", region))
    assert str(refused.value) == (
        f"kernel needs guest RAM {region} but RAM is 0x0-0xffff, 0x100000-0x10ffff"
    )


def test_check_inside_crosses_banks_that_touch() -> None:
    check_inside([Range(0x1000, 0x1000), Range(0, 0x1000)], Region("kernel", Range(0x800, 0x1000)))


@pytest.mark.parametrize(
    ("needed", "start", "limit", "found"),
    [
        (5 * MIB, MIB, 64 * MIB, 5 * MIB),
        (5 * MIB - 1, MIB, 64 * MIB, 5 * MIB),
        (MIB, MIB, 64 * MIB, MIB),
        (0, 3 * MIB + 1, 64 * MIB, 4 * MIB),
        (64 * MIB, MIB, 64 * MIB, 64 * MIB),
        (64 * MIB + 1, MIB, 64 * MIB, None),
        (0, 65 * MIB, 64 * MIB, None),
    ],
)
def test_smallest_memory(needed: int, start: int, limit: int, found: int | None) -> None:
    assert smallest_memory(lambda size: size >= needed, start, limit) == found
