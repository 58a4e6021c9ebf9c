"""Guest memory drawn to scale."""

from __future__ import annotations

from bootproof.harness.report import picture
from bootproof.harness.results.results import Area, Memory
from bootproof.loader.address import GIB, MIB


def test_memory_picture_is_to_scale() -> None:
    memory = Memory((Area("bank", GIB, 100 * MIB),), (Area("kernel", GIB + 25 * MIB, 50 * MIB),))
    (bar,) = picture.bars(memory)
    (piece,) = bar.pieces
    assert (bar.start, bar.end, piece.left, piece.width) == (GIB, GIB + 100 * MIB - 1, 25.0, 50.0)
    assert piece.text == "kernel: 0x41900000 to 0x44afffff, 50 MiB"


def test_a_number_stands_over_the_middle_of_its_piece() -> None:
    """And never beyond the bar."""
    memory = Memory(
        (Area("RAM", 0, 100 * MIB),),
        (Area("low", 0, MIB), Area("half", 0x1400000, 60 * MIB), Area("top", 0x6380000, MIB // 2)),
    )
    (bar, *_) = picture.bars(memory)
    middles = {piece.name: piece.middle for piece in bar.pieces}
    assert middles == {"low": 1.0, "half": 50.0, "top": 99.0}


def test_small_pieces_are_enlarged_together() -> None:
    small = (Area("gdt", 0x1000, 64), Area("cmdline", 0x1100, 128), Area("initrd", 500 * MIB, MIB))
    memory = Memory((Area("bank", 0, 512 * MIB),), (Area("kernel", 16 * MIB, 64 * MIB), *small))
    whole, zoomed = picture.bars(memory)
    assert sorted(piece.name for piece in whole.pieces) == ["cmdline", "gdt", "initrd", "kernel"]
    assert [piece.name for piece in zoomed.pieces] == ["cmdline", "gdt"]
    assert zoomed.zoom > 1000 and min(piece.width for piece in zoomed.pieces) > 5
    for bar in (whole, zoomed):
        assert all(p.left >= 0 and p.left + p.width <= 100.001 for p in bar.pieces)


def test_two_banks() -> None:
    memory = Memory((Area("b", 4 * GIB, GIB), Area("a", 0, 3 * GIB)), (Area("x", 4 * GIB, MIB),))
    low, high = picture.bars(memory)
    assert (low.start, len(low.pieces), high.start, len(high.pieces)) == (0, 0, 4 * GIB, 1)
