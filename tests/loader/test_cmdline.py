"""The rules of the command line, which are linux-loader's, and putting it into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootproof.loader import (
    Cmdline,
    CommandLineCopy,
    CommandLineOverflow,
    GuestMemory,
    InvalidCommandLine,
    LoaderError,
    load_cmdline,
)
from bootproof.loader.address import PAGE


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    with GuestMemory([(0, PAGE), (2 * PAGE, PAGE)]) as memory:
        yield memory


def built(*steps: tuple[str, str], capacity: int = 4096) -> bytes:
    """The bytes of a command line made by these insert_* steps."""
    line = Cmdline(capacity)
    for step, text in steps:
        getattr(line, step)(text)
    return line.as_bytes()


# --- building ------------------------------------------------------------------------------------


def test_arguments_are_joined_by_spaces() -> None:
    line = Cmdline(100)
    line.insert("console", "ttyS0")
    line.insert_str("  panic=-1 quiet\n")
    line.insert_multiple("isolcpus", ["1", "2"])
    line.add_virtio_mmio_device(4096, 0xD000_0000, 5)
    line.insert_init_args("single ")
    line.insert_init_args("5")
    assert line.as_bytes() == (
        b"console=ttyS0 panic=-1 quiet isolcpus=1,2 virtio_mmio.device=4K@0xd0000000:5 -- single 5"
    )
    assert line.boot_args.endswith(":5")
    assert line.init_args == "single 5"


def test_bytes_come_with_and_without_their_nul() -> None:
    line = Cmdline.try_from("quiet", 6)
    assert line.as_bytes() == b"quiet"
    assert line.as_bytes_with_nul() == line.as_cstring() == bytes(line) == b"quiet\0"
    assert str(line) == "quiet"
    assert repr(line) == "Cmdline('quiet', '', capacity=6)"


def test_empty_line_has_bytes() -> None:
    assert Cmdline(1).as_bytes_with_nul() == b"\0"


@pytest.mark.parametrize("capacity", [0, -1])
def test_capacity_has_to_be_positive(capacity: int) -> None:
    with pytest.raises(Cmdline.InvalidCapacity):
        Cmdline(capacity)
    with pytest.raises(Cmdline.InvalidCapacity):
        Cmdline.try_from("", capacity)


REFUSED_PAIRS = [
    ("ké", "v", Cmdline.InvalidAscii),
    ("a b=", "v", Cmdline.HasSpace),
    ("a=", "v", Cmdline.HasEquals),
    ("a=", 'é" ', Cmdline.HasEquals),
    ("a", "\x7f", Cmdline.InvalidAscii),
    ("a", "\t", Cmdline.InvalidAscii),
    ("a", 'hello "world', Cmdline.InvalidQuote),
    ("a", '"x" "y"', Cmdline.InvalidQuote),
    ("a", '"""', Cmdline.InvalidQuote),
    ("a", "b ", Cmdline.NoQuoteSpace),
    ("a", '"b c', Cmdline.NoQuoteSpace),
    ("a", " ", Cmdline.NoQuoteSpace),
    ("a", "x" * 99, Cmdline.TooLarge),
]


@pytest.mark.parametrize(("key", "value", "kind"), REFUSED_PAIRS)
def test_refused_pairs(key: str, value: str, kind: type[LoaderError]) -> None:
    line = Cmdline(100)
    with pytest.raises(kind):
        line.insert(key, value)
    with pytest.raises(kind):
        line.insert_multiple(key, [value])
    assert line.as_bytes() == b""


@pytest.mark.parametrize(
    ("key", "value"),
    [("a", '"b c"'), ("a", '"'), ("a", '""'), ("a", '"b'), ("a", 'b"'), ("a", "b=c"), ("", "")],
)
def test_accepted_pairs(key: str, value: str) -> None:
    line = Cmdline(100)
    line.insert(key, value)
    assert line.as_bytes() == f"{key}={value}".encode()


def test_key_needs_a_value() -> None:
    line = Cmdline(100)
    with pytest.raises(Cmdline.HasEquals):
        line.insert_multiple("a=", [])
    with pytest.raises(Cmdline.MissingVal) as caught:
        line.insert_multiple("a", [])
    assert caught.value.field == "a"


@pytest.mark.parametrize("text", ["a\0b", "a\tb", "é", "💖", "a\u2003b"])
def test_only_printable_ascii_may_be_inserted(text: str) -> None:
    line = Cmdline(100)
    for insert in (line.insert_str, line.insert_init_args):
        with pytest.raises(Cmdline.InvalidAscii):
            insert(text)


@pytest.mark.parametrize("space", [*"\t\n\v\f\r \x85\xa0", "\u1680", "\u2028", "\u3000", "\u205f"])
def test_white_space_around_is_removed(space: str) -> None:
    assert built(("insert_str", f"{space}a b{space}{space}")) == b"a b"


@pytest.mark.parametrize("character", ["\x1c", "\x1f", "\u180e", "\u200b", "\ufeff"])
def test_what_rust_does_not_call_white_space_is_refused(character: str) -> None:
    with pytest.raises(Cmdline.InvalidAscii):
        built(("insert_str", f"{character}a"))


def test_empty_insertions_count_as_linux_loader_counts_them() -> None:
    assert built(("insert_str", ""), ("insert_str", "a"), ("insert_str", " ")) == b"a "
    assert built(("insert_str", "a"), ("insert_init_args", "")) == b"a"
    line = Cmdline(5)
    line.insert_str("a")
    with pytest.raises(Cmdline.TooLarge):
        line.insert_init_args("")


def test_capacity_counts_the_nul_the_spaces_and_the_separator() -> None:
    assert built(("insert_str", "abc"), capacity=4) == b"abc"
    assert built(("insert_str", "ab"), ("insert_str", "c"), capacity=5) == b"ab c"
    both = ("insert_str", "ab"), ("insert_init_args", "c"), ("insert_init_args", "d")
    assert built(*both, capacity=10) == b"ab -- c d"
    for steps, capacity in [
        ([("insert_str", "abc")], 3),
        ([("insert_str", "ab"), ("insert_str", "c")], 4),
        (both, 9),
    ]:
        with pytest.raises(Cmdline.TooLarge):
            built(*steps, capacity=capacity)


def test_refusal_says_how_much_would_be_needed() -> None:
    with pytest.raises(Cmdline.TooLarge) as caught:
        built(("insert_str", "hello"), capacity=4)
    assert str(caught.value) == (
        "the command line would need 6 bytes with its NUL, but the capacity is 4; "
        "shorten the command line"
    )


def test_init_arguments_alone_have_no_bytes() -> None:
    with pytest.raises(Cmdline.NoBootArgsInserted):
        built(("insert_init_args", "single"))


@pytest.mark.parametrize(
    ("device", "text"),
    [
        ((1, 0, 1), "1@0x0:1"),
        ((2 << 10, 0x100, 2), "2K@0x100:2"),
        ((3 << 20, 0x1000, 3), "3M@0x1000:3"),
        ((4 << 30, 0x1_0000, 4, 42), "4G@0x10000:4:42"),
        ((1 << 50, (1 << 64) - 1, 0xFFFFFFFF, 0), "1048576G@0xffffffffffffffff:4294967295:0"),
        ((1025, 0xABC, 0), "1025@0xabc:0"),
    ],
)
def test_virtio_mmio_devices(device: tuple[int, ...], text: str) -> None:
    line = Cmdline(100)
    line.add_virtio_mmio_device(*device)
    assert line.as_bytes().decode() == f"virtio_mmio.device={text}"


def test_virtio_mmio_device_without_a_size() -> None:
    with pytest.raises(Cmdline.MmioSize):
        Cmdline(5).add_virtio_mmio_device(0, 0, 0)
    with pytest.raises(Cmdline.TooLarge):
        Cmdline(5).add_virtio_mmio_device(1, 0, 0)
    with pytest.raises(ValueError, match="irq 4294967296"):
        Cmdline(100).add_virtio_mmio_device(1, 0, 1 << 32)


# --- parsing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "boot", "init"),
    [
        ("hello=world foo=bar", "hello=world foo=bar", ""),
        ("hello=world -- foo=bar", "hello=world", "foo=bar"),
        ("a --b=c -- d --e", "a --b=c", "d --e"),
        ("a-- b --c", "a-- b --c", ""),
        ("--a-- -- b -- --c", "--a--", "b -- --c"),
        ('a="b -- c" d -- e ', 'a="b -- c" d', "e"),
        ('a="b -- c -- d', 'a="b -- c -- d', ""),
        ('"a -- -- b" -- c', '"a -- -- b"', "c"),
        ('"x -- -- " y', '"x -- -- " y', ""),
        ("\u2003a\t-- \x85b ", "a\t-- \x85b", ""),
        (" -- only init", "", "only init"),
        ("boot -- ", "boot", ""),
        ("é=\x01", "é=\x01", ""),
        ("", "", ""),
    ],
)
def test_boot_and_init_arguments_are_parted(text: str, boot: str, init: str) -> None:
    line = Cmdline.try_from(text, 4096)
    assert (line.boot_args, line.init_args) == (boot, init)


def test_parsed_line_has_to_fit_in_bytes() -> None:
    for text, size in [("foo --  bar", 11), ("éé", 5), ("boot -- ", 5)]:
        Cmdline.try_from(text, size)
        with pytest.raises(Cmdline.InvalidCapacity):
            Cmdline.try_from(text, size - 1)


def test_nul_gets_in_but_not_out() -> None:
    line = Cmdline.try_from("a\0b", 100)
    with pytest.raises(Cmdline.NullTerminator):
        line.as_bytes()


def test_half_characters_are_refused() -> None:
    with pytest.raises(Cmdline.InvalidAscii):
        Cmdline.try_from("a\ud800", 100)


def test_lines_are_equal_when_their_bytes_are() -> None:
    one, other = Cmdline(20), Cmdline(30)
    one.insert_str("hello world!")
    other.insert_str("hello")
    assert one != other
    other.insert_str("world!")
    assert one == other
    assert one != "hello world!"
    init_only = Cmdline(20), Cmdline(20)
    init_only[0].insert_init_args("a")
    init_only[1].insert_init_args("b")
    assert init_only[0] == init_only[1]


STEPS = st.lists(
    st.tuples(
        st.sampled_from([Cmdline.insert_str, Cmdline.insert_init_args]),
        st.text(st.sampled_from('ab -"\t=é'), max_size=12),
    ),
    max_size=10,
)


@given(STEPS, st.integers(1, 40))
def test_line_never_exceeds_its_capacity(
    steps: list[tuple[Callable[[Cmdline, str], None], str]], capacity: int
) -> None:
    line = Cmdline(capacity)
    for step, text in steps:
        before = repr(line)
        try:
            step(line, text)
        except LoaderError:
            assert repr(line) == before
    if line.boot_args or not line.init_args:
        assert len(line.as_bytes_with_nul()) <= capacity


# --- putting it into memory ----------------------------------------------------------------------


def test_line_is_written_with_its_nul(memory: GuestMemory) -> None:
    memory.fill(0, PAGE, 1)
    load_cmdline(memory, 45, Cmdline.try_from("quiet", 100))
    assert memory.read(44, 8) == b"\1quiet\0\1"
    load_cmdline(memory, 45, Cmdline(10))
    assert memory.read(44, 3) == b"\1\0u"


def test_line_may_end_with_ram(memory: GuestMemory) -> None:
    load_cmdline(memory, 3 * PAGE - 6, Cmdline.try_from("quiet", 100))
    assert memory.read(3 * PAGE - 6, 6) == b"quiet\0"


@pytest.mark.parametrize(
    "address", [3 * PAGE - 5, 3 * PAGE, (1 << 64) - 6, (1 << 64) - 5, 1 << 64, -1]
)
def test_line_beyond_ram_overflows(memory: GuestMemory, address: int) -> None:
    with pytest.raises(CommandLineOverflow):
        load_cmdline(memory, address, Cmdline.try_from("quiet", 100))
    assert list(memory.data_extents()) == []


@pytest.mark.parametrize("address", [PAGE, PAGE - 1, 2 * PAGE - 1])
def test_line_in_a_hole_cannot_be_copied(memory: GuestMemory, address: int) -> None:
    with pytest.raises(CommandLineCopy):
        load_cmdline(memory, address, Cmdline.try_from("quiet", 100))
    assert list(memory.data_extents()) == []


def test_line_without_bytes_is_refused_first(memory: GuestMemory) -> None:
    with pytest.raises(InvalidCommandLine, match="init arguments but no boot arguments"):
        load_cmdline(memory, 1 << 60, Cmdline.try_from(" -- init", 100))
    with pytest.raises(InvalidCommandLine, match="NUL"):
        load_cmdline(memory, 0, Cmdline.try_from("a\0", 100))
