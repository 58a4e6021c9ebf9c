"""The lines of keys: every key that tomllib knows is found, on the line where a reader sees it."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from bootproof.harness.cases.toml_lines import key_lines
from tests import ROOT

TRICKY = '''\
# a = 1  [comment]
title = "a # no comment = [ { \\" "   # a comment with "quotes"
dotted.key."with.dot" = 1
text = """
fake = 1
[[fake]]
quote: \\""" and two ""
"""
raw = \'\'\'
fake = "1"
\'\'\'
[table]
number = 1.5
date = 1979-05-27 07:32:00
list = [
    "one",  # ]
    { in = "two", also = [1, 2] },
    [
        "three"
    ],
]
[[claim]]
name = "first"
[[claim.except]]
when = { kernel = "a", offset = ["none", "16M"] }
[[claim.except]]
when.kernel = "b"
[[claim]]
name = \'second\'
[claim.sub]
x = 1
[[claim.except]]
"quoted \\u006bey" = true'''
LINES: dict[tuple[str | int, ...], int] = {
    ("title",): 2,
    ("dotted",): 3,
    ("dotted", "key", "with.dot"): 3,
    ("text",): 4,
    ("raw",): 9,
    ("table",): 12,
    ("table", "number"): 13,
    ("table", "list", 0): 16,
    ("table", "list", 1, "also"): 17,
    ("table", "list", 2): 18,
    ("table", "list", 2, 0): 19,
    ("claim",): 22,
    ("claim", 0): 22,
    ("claim", 0, "except", 0, "when", "offset", 1): 25,
    ("claim", 0, "except", 1): 26,
    ("claim", 0, "except", 1, "when", "kernel"): 27,
    ("claim", 1, "name"): 29,
    ("claim", 1, "sub", "x"): 31,
    ("claim", 1, "except", 0, "quoted key"): 33,
}


def paths(value: Any, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    """Every key and list element of parsed TOML."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = {path} if path else set()
    for name, inner in items:
        found |= paths(inner, (*path, name)) if isinstance(inner, dict | list) else {(*path, name)}
    return found


def test_lines_as_a_reader_sees_them() -> None:
    found = key_lines(TRICKY)
    assert {path: found.get(path) for path in LINES} == LINES


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(TRICKY, id="tricky"),
        pytest.param(TRICKY.replace("\n", "\r\n"), id="crlf"),
        *(
            pytest.param((ROOT / name).read_text(), id=name)
            for name in ("pyproject.toml", "kernels/catalog.toml")
        ),
    ],
)
def test_every_key_is_found_and_no_other(text: str) -> None:
    assert set(key_lines(text)) == paths(tomllib.loads(text))


def test_nothing_in_nothing() -> None:
    assert key_lines("") == {}
    assert key_lines("# only\n\n") == {}
