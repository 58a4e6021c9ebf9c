"""On which line each key of a TOML document stands, which tomllib does not tell.

Only for text that tomllib has accepted: nothing is checked again here, and what is not found is
simply not in the answer. Spec: TOML 1.0.0, "Keys", "Table", "Array of Tables", "Inline Table".
"""

from __future__ import annotations

import contextlib
import re
import tomllib
from typing import Any, Final, NamedTuple

from bootproof.dataclass import dataclass

Path = tuple[str | int, ...]

_TOKEN: Final = re.compile(
    r"""
    (?P<string>"{3}(?:\\[\s\S]|[^\\])*?"{3,5} | '{3}[\s\S]*?'{3,5}
       | "(?:\\.|[^"\\\n])*" | '[^'\n]*')
  | (?P<skip>\#[^\n]* | [ \t\r]+)
  | (?P<newline>\n)
  | (?P<mark>[\[\]{}=,.])
  | (?P<word>[^\s\[\]{}=,."'\#]+)
    """,
    re.VERBOSE,
)


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


def key_lines(text: str) -> dict[Path, int]:
    """The line, from 1, of each table, key and list element by its path: ("claim", 0, "why")."""
    scan = _Scan(_tokens(text), {}, {})
    with contextlib.suppress(RecursionError):
        scan.document()
    return scan.found


def _tokens(text: str) -> list[_Token]:
    tokens, line = [], 1
    for match in _TOKEN.finditer(text):
        kind = str(match.lastgroup)
        if kind != "skip":
            tokens.append(_Token(kind, match.group(), line))
        line += match.group().count("\n")
    tokens.append(_Token("end", "", line))
    return tokens


@dataclass(slots=True)
class _Scan:
    """Goes through the tokens once; `counts` is how many tables each array of tables has so far."""

    tokens: list[_Token]
    found: dict[Path, int]
    counts: dict[Path, int]
    at: int = 0

    def document(self) -> None:
        table: Path = ()
        while self.next.kind != "end":
            if self.next.kind == "newline":
                self.at += 1
            elif self.next.text == "[":
                table = self.header()
            else:
                self.pair(table)

    @property
    def next(self) -> _Token:
        return self.tokens[self.at]

    def take(self) -> _Token:
        self.at += 1
        return self.tokens[self.at - 1]

    def header(self) -> Path:
        line = self.take().line
        array = self.next.text == "["
        self.at += array
        table: Path = ()
        names = self.key()
        for number, name in enumerate(names, 1):
            table = (*table, name)
            self.found.setdefault(table, line)
            if array and number == len(names):
                self.counts[table] = self.counts.get(table, -1) + 1
            if table in self.counts:
                table = (*table, self.counts[table])
        self.found[table] = line
        self.at += 2 if array else 1
        return table

    def key(self) -> list[str]:
        names = []
        while self.next.kind in ("word", "string") or self.next.text == ".":
            token = self.take()
            if token.kind == "word":
                names.append(token.text)
            elif token.kind == "string":
                names.append(_text(token.text))
        return names

    def pair(self, table: Path) -> None:
        line, path = self.next.line, table
        for name in self.key():
            path = (*path, name)
            self.found.setdefault(path, line)
        self.at += 1  # the equals sign
        self.value(path)

    def value(self, path: Path) -> None:
        if self.next.text not in ("[", "{"):
            while self.next.kind not in ("newline", "end") and self.next.text not in ",]}":
                self.at += 1
            return
        closing = "]" if self.take().text == "[" else "}"
        number = 0
        while self.next.kind != "end" and self.next.text != closing:
            if self.next.kind == "newline" or self.next.text == ",":
                self.at += 1
            elif closing == "}":
                self.pair(path)
            else:
                self.found[(*path, number)] = self.next.line
                self.value((*path, number))
                number += 1
        self.at += 1


def _text(string: str) -> str:
    parsed: dict[str, Any] = tomllib.loads(f"x = {string}")
    return str(parsed["x"])
