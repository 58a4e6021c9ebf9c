"""Guest memory: bounds, banks, files, holes."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootproof.loader import Bank, GuestMemory, GuestMemoryError, Range
from bootproof.loader.copying import Copy, copy_all
from bootproof.loader.image import open_image

PAGE = 4096
MIB = 1 << 20
# Two banks that touch, one behind a hole, given out of address order.
BANKS = [(0x4000, 0x2000), (0, 0x4000), (0x10000, 0x3000)]


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    with GuestMemory(BANKS) as memory:
        yield memory


@pytest.fixture
def source(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "source"
    path.write_bytes(bytes(range(256)) * 64)
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_banks_lie_in_the_file_in_the_order_given(memory: GuestMemory) -> None:
    assert memory.banks == (
        Bank(0x4000, 0x2000, 0),
        Bank(0, 0x4000, 0x2000),
        Bank(0x10000, 0x3000, 0x6000),
    )
    assert memory.size == os.fstat(memory.fileno()).st_size == 0x9000
    memory.write(0x3FFE, b"abcd")
    assert os.pread(memory.fileno(), 2, 0) == b"cd"
    assert os.pread(memory.fileno(), 2, 0x5FFE) == b"ab"


def test_last_address_is_the_highest_over_all_banks(memory: GuestMemory) -> None:
    assert memory.last_address == 0x12FFF


@pytest.mark.parametrize(
    ("address", "size", "inside"),
    [
        (0, 0x6000, True),
        (0x3FFF, 2, True),
        (0x5FFF, 2, False),
        (0x6000, 1, False),
        (0xFFFF, 2, False),
        (0x10000, 0x3000, True),
        (0x12FFF, 2, False),
        (0, 1 << 64, False),
        (-1, 2, False),
        (0, -1, False),
        (0x7000, 0, True),
        (1 << 65, 0, True),
    ],
)
def test_range_is_inside_when_every_byte_is_ram(
    memory: GuestMemory, address: int, size: int, inside: bool
) -> None:
    assert memory.contains(address, size) == inside


@given(st.integers(0, 0x14000), st.integers(1, 0x7000))
def test_containment_means_bytes(address: int, size: int) -> None:
    with GuestMemory(BANKS) as memory:
        ram = [*range(0x6000), *range(0x10000, 0x13000)]
        covered = len([byte for byte in ram if address <= byte < address + size])
        assert memory.contains(address, size) == (covered == size)


def test_access_outside_ram_is_refused_whole(memory: GuestMemory, source: int) -> None:
    for access in (
        lambda: memory.write(0x5FFE, b"abcd"),
        lambda: memory.write_file(0x5FFE, source, 0, 4),
        lambda: memory.fill(0x5FFE, 4, 1),
        lambda: memory.read(0x5FFE, 4),
    ):
        with pytest.raises(GuestMemoryError) as caught:
            access()
        assert str(caught.value) == (
            "guest memory 0x5ffe-0x6001 is not all RAM; "
            "RAM is 0x0-0x3fff, 0x4000-0x5fff, 0x10000-0x12fff"
        )
    assert list(memory.data_extents()) == []


def test_nothing_can_be_written_anywhere(memory: GuestMemory, source: int) -> None:
    memory.write(0x9000, b"")
    memory.write_file(0x9000, source, 0, 0)
    memory.fill(0x9000, 0)
    assert memory.read(0x9000, 0) == b""


def test_write_takes_any_buffer(memory: GuestMemory) -> None:
    memory.write(0, bytearray(b"ab"))
    memory.write(2, memoryview(b"xcdx")[1:3])
    memory.write(4, memoryview(b"\1\0\2\0").cast("H"))
    assert memory.read(0, 8) == b"abcd\1\0\2\0"


def test_file_is_copied_across_banks(memory: GuestMemory, source: int) -> None:
    memory.write_file(0x3800, source, 5, 0x1000)
    assert memory.read(0x3800, 0x1000) == os.pread(source, 0x1000, 5)


def test_file_is_copied_within_a_file_system(tmp_path: Path, source: int) -> None:
    with GuestMemory([(0, 2 * PAGE)], path=tmp_path / "ram") as memory:
        memory.write_file(100, source, 3, PAGE)
        assert memory.read(100, PAGE) == os.pread(source, PAGE, 3)


def test_file_that_ends_early_is_an_error(memory: GuestMemory, source: int) -> None:
    with pytest.raises(GuestMemoryError, match="the file ends 1 byte before its end was expected"):
        memory.write_file(0, source, 0x3FFF, 2)


def test_unwritten_memory_is_zero_and_a_hole(memory: GuestMemory) -> None:
    assert memory.read(0, 0x6000) == bytes(0x6000)
    assert os.fstat(memory.fileno()).st_blocks == 0


def test_zero_fill_makes_holes() -> None:
    with GuestMemory([(0, 16 * PAGE)]) as memory:
        memory.write(0, b"x" * 16 * PAGE)
        memory.fill(PAGE, 14 * PAGE)
        assert list(memory.data_extents()) == [Range(0, PAGE), Range(15 * PAGE, PAGE)]
        memory.fill(PAGE - 1, 1)
        assert memory.read(PAGE - 2, 3) == b"x\0\0"


def test_fill_writes_a_byte(memory: GuestMemory) -> None:
    memory.fill(0x3FFE, 5, 0xA5)
    assert memory.read(0x3FFD, 7) == b"\0" + b"\xa5" * 5 + b"\0"


def test_large_fill_is_whole() -> None:
    with GuestMemory([(0, 3 * MIB)]) as memory:
        memory.fill(1, 3 * MIB - 2, 7)
        assert memory.read(0, 3 * MIB) == b"\0" + b"\7" * (3 * MIB - 2) + b"\0"


def test_extents_never_cross_banks(memory: GuestMemory) -> None:
    memory.fill(0, 0x6000, 1)
    memory.write(0x11000, b"x")
    assert list(memory.data_extents()) == [
        Range(0x4000, 0x2000),
        Range(0, 0x4000),
        Range(0x11000, 0x1000),
    ]


@given(st.sets(st.integers(0, 40)), st.integers(0, PAGE - 1), st.integers(1, PAGE))
def test_what_is_not_zero_is_found_by_pages(pages: set[int], at: int, last: int) -> None:
    """Wherever in its page a byte is, and where zeros were written too; the last is none whole."""
    size = 40 * PAGE + last
    places = {min(page * PAGE + at, size - 1) for page in pages}
    with GuestMemory([(MIB, size)]) as memory:
        memory.write(MIB, bytes(size))
        for place in places:
            memory.write(MIB + place, b"x")
        found = list(memory.nonzero_extents())
    inside = [range(area.start - MIB, area.end - MIB) for area in found]
    whole = {byte for place in places for byte in range(place & -PAGE, size)[:PAGE]}
    assert {byte for area in inside for byte in area} == whole
    assert all(left.stop < right.start for left, right in pairwise(inside))


def test_saved_memory_reads_back_and_stays_sparse(tmp_path: Path) -> None:
    path = tmp_path / "ram.img"
    banks = [(0, 64 * MIB), (1 << 32, 64 * MIB)]
    with GuestMemory(banks) as memory:
        memory.write(10 * MIB, b"low")
        memory.write((1 << 32) + 1, b"high")
        memory.save(path)
    assert path.stat().st_size == 128 * MIB
    assert path.stat().st_blocks * 512 < MIB
    with GuestMemory.open(path, banks) as again:
        assert again.read(10 * MIB, 4) == b"low\0"
        assert again.read((1 << 32) + 1, 5) == b"high\0"
        with pytest.raises(GuestMemoryError, match="Bad file descriptor"):
            again.write(0, b"x")
    with GuestMemory.open(path, banks, writable=True) as again:
        again.write(0, b"x")
        assert again.read(0, 2) == b"x\0"


def test_memory_can_live_in_a_named_file(tmp_path: Path) -> None:
    path = tmp_path / "ram.img"
    with GuestMemory([(0, PAGE)], path=path) as memory:
        memory.write(8, b"here")
    assert path.read_bytes()[8:12] == b"here"


def test_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "ram.img"
    path.write_bytes(b"mine")
    with pytest.raises(GuestMemoryError, match="File exists"):
        GuestMemory([(0, PAGE)], path=path)
    with GuestMemory([(0, PAGE)]) as memory, pytest.raises(GuestMemoryError, match="File exists"):
        memory.save(path)
    assert path.read_bytes() == b"mine"


def test_full_disk_leaves_no_half_of_a_file(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with GuestMemory([(0, 2 * PAGE)]) as memory:
        memory.write(0, b"x" * 2 * PAGE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (PAGE, before[1]))
        try:
            with pytest.raises(GuestMemoryError, match="cannot write the RAM file: File too large"):
                memory.save(tmp_path / "ram.img")
            assert list(tmp_path.iterdir()) == []
            with pytest.raises(GuestMemoryError, match=r"/copy: cannot write a copy .*: File too"):
                memory.copy_out(0, 2 * PAGE, tmp_path / "copy")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_opening_checks_the_size(tmp_path: Path) -> None:
    path = tmp_path / "ram.img"
    path.write_bytes(bytes(PAGE))
    with pytest.raises(GuestMemoryError, match="has 0x1000 bytes but its banks need 0x2000"):
        GuestMemory.open(path, [(0, 2 * PAGE)])
    with pytest.raises(GuestMemoryError, match="No such file"):
        GuestMemory.open(tmp_path / "none", [(0, PAGE)])


def test_a_file_that_was_cut_since_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "ram.img"
    path.write_bytes(bytes(2 * PAGE))
    with GuestMemory.open(path, [(0, 2 * PAGE)]) as memory:
        os.truncate(path, PAGE)
        assert memory.read(0, PAGE) == bytes(PAGE)
        with pytest.raises(GuestMemoryError, match="the RAM file is shorter than its banks"):
            memory.read(0, PAGE + 1)


@pytest.mark.parametrize(
    ("banks", "sentence"),
    [
        ([], "at least one RAM bank"),
        ([(0, 0)], "cannot be 0x0 bytes at 0x0"),
        ([(-1, 5)], "cannot be 0x5 bytes at -0x1"),
        ([((1 << 64) - 5, 5)], "has to end below"),
        ([(0, 10), (9, 10)], "0x0-0x9 and 0x9-0x12 overlap"),
        ([(0, 1 << 63)], "cannot make room"),
    ],
)
def test_impossible_banks_are_refused(banks: list[tuple[int, int]], sentence: str) -> None:
    with pytest.raises(GuestMemoryError, match=sentence):
        GuestMemory(banks)


def test_failed_creation_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(GuestMemoryError):
        GuestMemory([(0, 1 << 63)], path=tmp_path / "ram.img")
    assert list(tmp_path.iterdir()) == []


def test_closing_twice_is_fine() -> None:
    memory = GuestMemory([(0, PAGE)])
    memory.close()
    memory.close()
    assert memory.fileno() == -1


OPERATIONS = st.lists(
    st.tuples(st.integers(0, 0x14000), st.binary(min_size=1, max_size=300), st.booleans()),
    max_size=20,
)


@given(OPERATIONS)
def test_memory_behaves_like_a_dictionary_of_bytes(
    operations: list[tuple[int, bytes, bool]],
) -> None:
    model = dict.fromkeys([*range(0x6000), *range(0x10000, 0x13000)], 0)
    with GuestMemory(BANKS) as memory:
        for address, data, fill in operations:
            content = data[:1] * len(data) if fill else data
            if all(address + i in model for i in range(len(data))):
                memory.fill(address, len(data), data[0]) if fill else memory.write(address, data)
                model.update({address + i: byte for i, byte in enumerate(content)})
            else:
                with pytest.raises(GuestMemoryError):
                    memory.write(address, data)
        found = memory.read(0, 0x6000) + memory.read(0x10000, 0x3000)
        assert found == bytes(model.values())
        for extent in memory.data_extents():
            assert memory.contains(extent.start, extent.size)


# Small numbers: it is the edges of what is already covered that matter.
COPIES = st.lists(
    st.builds(Copy, st.integers(0, 24), st.integers(0, 4), st.integers(0, 9)), max_size=12
)


@settings(max_examples=400)
@given(COPIES)
def test_copies_have_the_outcome_of_doing_them_in_order(copies: list[Copy]) -> None:
    source = bytes(range(1, 14))
    expected = bytearray(40)
    for copy in copies:
        expected[copy.address : copy.address + copy.size] = source[
            copy.offset : copy.offset + copy.size
        ]
    with GuestMemory([(0, 40)]) as memory:
        copy_all(memory, open_image(source), copies)
        assert memory.read(0, 40) == bytes(expected)


PART = Range(0x1000, 0x3000)  # of the second bank


@pytest.fixture
def lender(tmp_path: Path) -> Path:
    """A file for PART: its second page is a hole."""
    path = tmp_path / "part"
    with path.open("wb") as file:
        file.write(b"f" * PAGE)
        file.seek(2 * PAGE)
        file.write(b"l" * PAGE)
    return path


@pytest.mark.parametrize("known", [None, [Range(0x1000, PAGE), Range(0x3000, PAGE)]])
def test_a_part_in_another_file_is_as_if_it_were_in_this_one(
    known: list[Range] | None, memory: GuestMemory, lender: Path, tmp_path: Path
) -> None:
    memory.write(0, b"o" * 0x6000)
    memory.lend(PART, lender, known)
    with GuestMemory(BANKS) as same, GuestMemory(BANKS) as copy:
        same.write(0, b"o" * 0x6000)
        same.fill(PART.start, PART.size)
        with GuestMemory.open(lender, [(PART.start, PART.size)]) as part:
            same.copy_from(part)
        assert memory.read(0, 0x6000) == same.read(0, 0x6000)
        assert bytes_in(memory.nonzero_extents()) == bytes_in(same.nonzero_extents())
        assert bytes_in(memory.data_extents()) == bytes_in(same.data_extents())
        assert memory.file_offset(PART.start) == same.file_offset(PART.start)
        copy.copy_from(memory)
        assert copy.read(0, 0x6000) == same.read(0, 0x6000)
        copy.fill(0, 0x6000, 1)
        copy.copy_from(memory, [Range(0x800, 0x1000)])
        assert copy.read(0x7FF, 0x1002) == b"\1" + same.read(0x800, 0x1000) + b"\1"
        memory.save(tmp_path / "saved")
        same.save(tmp_path / "as well")
    assert (tmp_path / "saved").read_bytes() == (tmp_path / "as well").read_bytes()
    memory.copy_out(0x800, 0x4000, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == memory.read(0x800, 0x4000)


def bytes_in(extents: Iterator[Range]) -> set[int]:
    found = [address for extent in extents for address in range(extent.start, extent.end)]
    assert len(found) == len(set(found))
    return set(found)


def test_nobody_writes_to_what_is_lent(memory: GuestMemory, lender: Path, source: int) -> None:
    memory.lend(PART, lender)
    before, file = memory.read(0, 0x6000), lender.read_bytes()
    writes: list[Callable[[], None]] = [
        lambda: memory.write(PART.start - 1, b"ab"),
        lambda: memory.write_file(PART.end - 1, source, 0, 2),
        lambda: memory.fill(0, 0x6000),
        lambda: memory.fill(PART.start, 1, 1),
    ]
    for write in writes:
        with pytest.raises(GuestMemoryError, match="is in a file that is only read"):
            write()
    assert (memory.read(0, 0x6000), lender.read_bytes()) == (before, file)
    memory.write(PART.start - 1, b"a")
    memory.write(PART.end, b"z")
    assert memory.read(PART.end - 1, 2) == b"lz"


def test_what_can_be_lent(memory: GuestMemory, lender: Path) -> None:
    """One part of one bank, once; by a file that has all of it, which is closed with the RAM."""
    descriptors = len([*Path("/proc/self/fd").iterdir()])
    for part in (Range(0x3000, 0x3000), Range(0x8000, 0x1000)):
        with pytest.raises(GuestMemoryError, match="cannot be in a file of its own"):
            memory.lend(part, lender)
    with pytest.raises(GuestMemoryError, match="has 0x3000 bytes but its banks need 0x4000"):
        memory.lend(Range(0, 0x4000), lender)
    memory.lend(PART, lender)
    with pytest.raises(GuestMemoryError, match="cannot be in a file of its own"):
        memory.lend(PART, lender)
    memory.close()
    assert len([*Path("/proc/self/fd").iterdir()]) == descriptors - 1
