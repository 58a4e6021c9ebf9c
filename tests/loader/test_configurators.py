"""Configurators: what is written where, in which order it is refused, and that nothing is then."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import pytest

from bootproof.loader import BootParams, GuestMemory, LoaderError, configurators
from bootproof.loader.configurators import fdt, linux, pvh
from bootproof.loader.configurators.params import LIST_MAX
from bootproof.loader.errors import Fdt, InvalidAddress, Linux, MissingStartAddress, Overflow, Pvh

# Two banks with a hole in between: the byte after a piece can be RAM when the piece is not.
BANKS = [(0, 0x10000), (0x20000, 0x10000)]
LAST = 0x2FFFF
MAP = [pvh.MemmapEntry(0, 0x10000, 1), pvh.MemmapEntry(0x20000, 0x10000, 1)]
START_INFO = pvh.StartInfo(nr_modules=1, modlist_paddr=0x6400, memmap_paddr=0x6100)
MODULE = pvh.ModlistEntry(0x8000, 0x100)


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    with GuestMemory(BANKS) as memory:
        memory.write(0, b"\x5a" * 0x10000)
        memory.write(0x20000, b"\xa5" * 0x10000)
        yield memory


def content(memory: GuestMemory) -> bytes:
    return memory.read(0, 0x10000) + memory.read(0x20000, 0x10000)


def pvh_params() -> BootParams:
    params = BootParams.new(START_INFO, 0x6000)
    params.set_sections(MAP, 0x6100)
    params.set_modules([MODULE], 0x6400)
    return params


def refuses(
    kind: type[LoaderError],
    write: Callable[[BootParams, GuestMemory], None],
    params: BootParams,
    memory: GuestMemory,
) -> LoaderError:
    before = content(memory)
    with pytest.raises(kind) as caught:
        write(params, memory)
    assert type(caught.value) is kind
    assert str(caught.value).isprintable()
    assert content(memory) == before
    return caught.value


# --- The layouts, spelled out from Xen's start_info.h --------------------------------------------


def test_pvh_structures_lie_as_xen_says() -> None:
    info = pvh.StartInfo(
        flags=2,
        nr_modules=3,
        modlist_paddr=4,
        cmdline_paddr=5,
        rsdp_paddr=6,
        memmap_paddr=7,
        memmap_entries=8,
    )
    assert info.to_bytes() == struct.pack("<4I4Q2I", 0x336EC578, 1, 2, 3, 4, 5, 6, 7, 8, 0)
    assert pvh.MemmapEntry(1, 2, 3).to_bytes() == struct.pack("<QQII", 1, 2, 3, 0)
    assert pvh.ModlistEntry(1, 2, 3).to_bytes() == struct.pack("<4Q", 1, 2, 3, 0)


# --- What is written -----------------------------------------------------------------------------


def test_zero_page_goes_to_its_address(memory: GuestMemory) -> None:
    page = bytes(range(256)) * 16
    linux.write_bootparams(BootParams.new(page, 0x7000), memory)
    expected = b"\x5a" * 0x7000 + page + b"\x5a" * 0x8000 + b"\xa5" * 0x10000
    assert content(memory) == expected


def test_device_tree_goes_to_its_address(memory: GuestMemory) -> None:
    fdt.write_bootparams(BootParams.new(b"tree", 0x20000), memory)
    assert content(memory) == b"\x5a" * 0x10000 + b"tree" + b"\xa5" * 0xFFFC


def test_pvh_writes_all_three_pieces(memory: GuestMemory) -> None:
    pvh.write_bootparams(pvh_params(), memory)
    assert memory.read(0x6000, 56) == START_INFO.to_bytes()
    assert memory.read(0x6100, 48) == b"".join(entry.to_bytes() for entry in MAP)
    assert memory.read(0x6400, 32) == MODULE.to_bytes()


def test_pvh_without_modules(memory: GuestMemory) -> None:
    params = pvh_params()
    params.modules = None
    pvh.write_bootparams(params, memory)
    assert memory.read(0x6400, 32) == b"\x5a" * 32


def test_later_pieces_lie_over_earlier_ones(memory: GuestMemory) -> None:
    params = BootParams.new(b"HHHH", 0x1000)
    params.set_sections([b"SSSSSSSS"], 0x1000)
    params.set_modules([b"M"], 0x1003)
    pvh.write_bootparams(params, memory)
    assert memory.read(0x1000, 8) == b"HHHMSSSS"


def test_linux_and_fdt_do_not_look_at_sections_and_modules(memory: GuestMemory) -> None:
    for writer, header in ((linux, b"L"), (fdt, b"F")):
        params = BootParams.new(header, 0x1000)
        params.sections = params.modules = b"without an address"
        before = content(memory)
        writer.write_bootparams(params, memory)
        assert content(memory) == before[:0x1000] + header + before[0x1001:]


# --- The order in which it is refused ------------------------------------------------------------


def test_pvh_refusals_come_in_order(memory: GuestMemory) -> None:
    """Everything is wrong at once; each step repairs what the step before complained about."""
    params = BootParams.new(START_INFO, LAST)
    params.modules = MODULE.to_bytes()

    refuses(Pvh.MemmapTableMissing, pvh.write_bootparams, params, memory)
    params.sections = b"".join(entry.to_bytes() for entry in MAP)
    refuses(Pvh.MemmapTableAddressMissing, pvh.write_bootparams, params, memory)
    params.sections_start = LAST
    refuses(Pvh.MemmapTablePastRamEnd, pvh.write_bootparams, params, memory)
    params.sections_start = 0x20000 - 16  # ends in the second bank, begins in the hole
    refuses(Pvh.MemmapTableSetup, pvh.write_bootparams, params, memory)
    params.sections_start = 0x6100
    refuses(Pvh.StartInfoPastRamEnd, pvh.write_bootparams, params, memory)
    params.header_start = 0x20000 - 16
    refuses(Pvh.StartInfoSetup, pvh.write_bootparams, params, memory)
    params.header_start = 0x6000
    refuses(Pvh.ModulesAddressMissing, pvh.write_bootparams, params, memory)
    params.modules_start = LAST
    refuses(Pvh.ModulesSetup, pvh.write_bootparams, params, memory)
    params.modules_start = 0x6400
    pvh.write_bootparams(params, memory)


SINGLE = [
    (linux.write_bootparams, Linux.ZeroPagePastRamEnd, Linux.ZeroPageSetup),
    (fdt.write_bootparams, Fdt.FDTPastRamEnd, Fdt.WriteFDTToMemory),
]


@pytest.mark.parametrize(("write", "past_end", "setup"), SINGLE)
def test_place_of_a_header(
    write: Callable[[BootParams, GuestMemory], None],
    past_end: type[LoaderError],
    setup: type[LoaderError],
    memory: GuestMemory,
) -> None:
    def at(address: int) -> BootParams:
        return BootParams.new(bytes(0x20), address)

    # The byte after the header has to be RAM as well: at the end of a bank there is none.
    write(at(LAST - 0x20), memory)
    refuses(past_end, write, at(LAST - 0x20 + 1), memory)
    refuses(past_end, write, at(0x10000 - 0x20), memory)
    refuses(past_end, write, at(LAST + 1), memory)
    refuses(past_end, write, at((1 << 64) - 1), memory)
    refuses(past_end, write, at(1 << 64), memory)
    refuses(past_end, write, at(-0x10), memory)
    # The byte after it is RAM, but not all of the header.
    refuses(setup, write, at(0x20000 - 0x20), memory)
    refuses(setup, write, at(0x20000 - 1), memory)
    bridge = BootParams.new(bytes(0x10010), 0x10000 - 8)
    refuses(setup, write, bridge, memory)


def test_header_over_banks_that_touch() -> None:
    with GuestMemory([(0x1000, 0x1000), (0x2000, 0x1000)]) as memory:
        linux.write_bootparams(BootParams.new(b"x" * 0x20, 0x1FF0), memory)
        assert memory.read(0x1FF0, 0x20) == b"x" * 0x20


def test_modules_may_end_where_ram_ends(memory: GuestMemory) -> None:
    params = pvh_params()
    params.modules_start = LAST + 1 - 32
    pvh.write_bootparams(params, memory)
    params.modules_start += 1
    refuses(Pvh.ModulesSetup, pvh.write_bootparams, params, memory)


def test_refusal_says_where(memory: GuestMemory) -> None:
    error = refuses(
        Linux.ZeroPagePastRamEnd, linux.write_bootparams, BootParams.new(bytes(16), LAST), memory
    )
    assert (error.value, error.limit) == (LAST, LAST - 16)
    linux.write_bootparams(BootParams.new(bytes(16), LAST - 16), memory)  # the limit itself does
    assert str(error) == (
        "the zero page of 0x10 bytes at 0x2ffff needs a byte of RAM behind it; RAM is 0x0-0xffff, "
        "0x20000-0x2ffff; put it lower"
    )


# --- Lists of sections and modules ---------------------------------------------------------------

Add = Callable[[BootParams, bytes, int | None], int]


@pytest.mark.parametrize("what", ["section", "module"])
class TestLists:
    @pytest.fixture
    def params(self) -> BootParams:
        return BootParams.new(b"", 0)

    def test_set_replaces(self, params: BootParams, what: str) -> None:
        self.set(params, what, [b"ab", MODULE], 0x1000)
        self.set(params, what, [b"cd", b"e"], 0x2000)
        assert self.get(params, what) == (b"cde", 0x2000)
        self.set(params, what, [], 0x3000)
        assert self.get(params, what) == (b"", 0x3000)

    def test_first_needs_an_address(self, params: BootParams, what: str) -> None:
        with pytest.raises(MissingStartAddress):
            self.add(params, what, b"ab")
        # As in linux-loader there is a list from then on, empty and without an address.
        assert self.get(params, what) == (b"", None)
        assert self.add(params, what, b"ab", 0x1000) == 0x1000
        assert self.get(params, what) == (b"ab", 0x1000)

    def test_next_is_appended(self, params: BootParams, what: str) -> None:
        self.set(params, what, [b"abcd"], 0x1000)
        assert self.add(params, what, b"ef") == 0x1004
        assert self.add(params, what, MODULE.to_bytes()) == 0x1006
        assert self.get(params, what) == (b"abcdef" + MODULE.to_bytes(), 0x1000)

    def test_address_overwrites(self, params: BootParams, what: str) -> None:
        self.set(params, what, [b"abcdef"], 0x1000)
        assert self.add(params, what, b"XY", 0x1001) == 0x1001
        assert self.get(params, what) == (b"aXYdef", 0x1000)
        assert self.add(params, what, b"ZZZ", 0x1005) == 0x1005
        assert self.get(params, what) == (b"aXYdeZZZ", 0x1000)

    def test_gap_is_zero(self, params: BootParams, what: str) -> None:
        self.set(params, what, [b"a"], 0x1000)
        assert self.add(params, what, b"z", 0x1004) == 0x1004
        assert self.get(params, what) == (b"a\0\0\0z", 0x1000)

    def test_address_before_the_first(self, params: BootParams, what: str) -> None:
        self.set(params, what, [b"a"], 0x1000)
        with pytest.raises(InvalidAddress):
            self.add(params, what, b"z", 0xFFF)
        assert self.get(params, what) == (b"a", 0x1000)

    def test_end_of_the_list_beyond_64_bits(self, params: BootParams, what: str) -> None:
        self.set(params, what, [b"ab"], (1 << 64) - 2)
        with pytest.raises(Overflow):
            self.add(params, what, b"z")
        # It counts also when an address is given, even one before the first.
        with pytest.raises(Overflow):
            self.add(params, what, b"z", 0x1000)
        self.set(params, what, [b"a"], (1 << 64) - 2)
        assert self.add(params, what, b"zz") == (1 << 64) - 1

    def test_gap_that_no_memory_holds(self, params: BootParams, what: str) -> None:
        self.set(params, what, [b"a"], 0x1000)
        for address in (0x1000 + LIST_MAX, (1 << 64) - 1):
            with pytest.raises(Overflow):
                self.add(params, what, b"z", address)
        assert self.get(params, what) == (b"a", 0x1000)
        assert self.add(params, what, b"z", 0x1000 + LIST_MAX - 1)

    def set(self, params: BootParams, what: str, elements: list[object], address: int) -> None:
        getattr(params, f"set_{what}s")(elements, address)

    def add(self, params: BootParams, what: str, element: bytes, address: int | None = None) -> int:
        found: int = getattr(params, f"add_{what}")(element, address)
        return found

    def get(self, params: BootParams, what: str) -> tuple[bytes | None, int | None]:
        return getattr(params, f"{what}s"), getattr(params, f"{what}s_start")


def test_memory_map_without_an_address_is_refused_as_such(memory: GuestMemory) -> None:
    params = BootParams.new(START_INFO, 0x6000)
    with pytest.raises(MissingStartAddress):
        params.add_section(MAP[0])
    refuses(Pvh.MemmapTableAddressMissing, pvh.write_bootparams, params, memory)


def test_configurators_are_in_the_public_api() -> None:
    assert configurators.BootParams is BootParams
    assert {configurators.linux, configurators.pvh, configurators.fdt} == {linux, pvh, fdt}
