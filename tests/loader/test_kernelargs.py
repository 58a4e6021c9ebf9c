"""Command lines parted as the kernel's next_arg() parts them: a table made from its source."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootproof.loader import kernelargs


def parted(line: str) -> list[tuple[str, str | None]]:
    arguments = kernelargs.for_kernel(line.encode("latin-1"))
    return [
        (a.name.decode("latin-1"), None if a.value is None else a.value.decode("latin-1"))
        for a in arguments
    ]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("", []),
        (" \t\n", []),
        ("quiet", [("quiet", None)]),
        ("a=b  c=", [("a", "b"), ("c", "")]),
        ("a=b=c", [("a", "b=c")]),
        ("=a =", [("=a", None), ("=", None)]),
        ("=a=b", [("=a", "b")]),
        # Quotes keep blanks together, and are taken off at the ends only.
        ('a="b c" d', [("a", "b c"), ("d", None)]),
        ('"a=b c" d', [("a", "b c"), ("d", None)]),
        ('"a b"', [("a b", None)]),
        ('a=b" "c', [("a", 'b" "c')]),
        ('a="b"c" d"', [("a", 'b"c" d')]),
        # One is taken off behind, also where both the whole and the value are quoted.
        ('"a="b""', [("a", 'b"')]),
        ('a="', [("a", "")]),
        # An open one swallows the rest.
        ('a="b c d', [("a", "b c d")]),
        # White space, as the kernel's table of characters has it.
        ("a\xa0b\vc\fd\re", [(name, None) for name in "abcde"]),
        ("a\x85b\x1cc", [("a\x85b\x1cc", None)]),
        # Where it stops.
        ("a -- b", [("a", None)]),
        ('a "--" b', [("a", None)]),
        ('a="x -- y" b -- c', [("a", "x -- y"), ("b", None)]),
        ("a --= --b b-- -- c", [("a", None), ("--", ""), ("--b", None), ("b--", None)]),
    ],
)
def test_arguments(line: str, wanted: list[tuple[str, str | None]]) -> None:
    assert parted(line) == wanted


@pytest.mark.parametrize(
    ("line", "where"),
    [("", 0), ("a b", 3), ("a -- b", 2), ('a="x -- y" -- c', 11), ("--", 0), ('"-- " a', 7)],
)
def test_where_it_is_for_init(line: str, where: int) -> None:
    assert kernelargs.for_init(line.encode()) == where


@pytest.mark.parametrize(
    ("line", "where"),
    [
        *(("", None), ('a="b"', None), ('a="b" c" d', 7), ('"', 0), ('a"b', 1)),
        *(('a -- "b', None), ('"a -- b', 0)),
    ],
)
def test_open_quote(line: str, where: int | None) -> None:
    assert kernelargs.open_quote(line.encode()) == where


def test_last_value() -> None:
    line = b'init=/a rdinit=/b init="/c d" init -- init=/e'
    assert kernelargs.last_value(line, b"init") == b"/c d"
    assert kernelargs.last_value(line, b"rdinit") == b"/b"
    assert kernelargs.last_value(line, b"root") is None


@given(st.binary(max_size=60))
def test_any_line_is_parted_into_what_stands_in_it(line: bytes) -> None:
    at = 0
    for argument in kernelargs.for_kernel(line):
        assert not line[at : argument.start].strip(b" \t\n\v\f\r\xa0")
        assert argument.start < argument.end
        at = argument.end
    assert kernelargs.for_init(line) >= at
    kernelargs.open_quote(line)
