"""Guest output made fit for a terminal, a log or a page: shown, never obeyed."""

from __future__ import annotations


def printable(line: bytes | bytearray) -> str:
    """One line of guest output, safe for a terminal: control characters become \\x1b and so on."""
    text = line.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() or c == "\t" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
