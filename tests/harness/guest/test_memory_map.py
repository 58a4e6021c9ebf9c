"""Memory maps as kernels log them, and where two differ."""

from __future__ import annotations

from bootproof.harness.guest import memory_map
from bootproof.harness.guest.memory_map import ABSENT, USABLE, MapDifference, MapEntry
from bootproof.loader.address import MIB, Range

RAM = Range(0, 512 * MIB)


def test_both_wordings_of_a_logged_map() -> None:
    old = b"BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable\r\n"
    new = b"BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff]  System RAM\r\n"
    gap = b"BIOS-e820: [gap 0x0000000020000000-0x00000000afffffff]\r\n"
    wanted = (MapEntry(Range(0, 0x9FC00), USABLE),)
    assert memory_map.logged(old) == memory_map.logged(gap + new) == wanted
    reserved = b"BIOS-e820: [mem 0x0000000000000000-0x0000000000000fff]  device reserved\n"
    assert memory_map.logged(reserved)[0].kind == "reserved"


def test_lines_that_are_no_map_are_left_out() -> None:
    """A guest can print anything: reversed ranges, and more of them than a kernel has."""
    reversed_ = b"BIOS-e820: [mem 0x000000000009fbff-0x0000000000000000] usable\r\n"
    assert memory_map.logged(reversed_) == ()
    line = b"BIOS-e820: [mem 0x%016x-0x%016x] usable\n"
    flood = b"".join(line % (n << 13, (n << 13) + 0xFFF) for n in range(20_000))
    found = memory_map.logged(flood)
    assert len(found) == len(list(memory_map.differences(found, ()))) == 1024


def test_map_differences_are_joined() -> None:
    ours = [MapEntry(Range(0, 0x1000), USABLE), MapEntry(Range(0x1000, 0x1000), USABLE)]
    assert list(memory_map.differences(ours, [])) == [
        MapDifference(Range(0, 0x2000), USABLE, ABSENT)
    ]
    theirs = [MapEntry(Range(0x1000, 0x1000), "reserved")]
    assert list(memory_map.differences(ours, theirs)) == [
        MapDifference(Range(0, 0x1000), USABLE, ABSENT),
        MapDifference(Range(0x1000, 0x1000), USABLE, "reserved"),
    ]
