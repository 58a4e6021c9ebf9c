"""Guest output made fit for a terminal, a log or a page: shown, never obeyed."""

from __future__ import annotations

import re
from itertools import zip_longest
from typing import Final

from bootproof.printable import safe

# ECMA-48, 5.4: a control sequence that lacks its final byte, at the end or right before it.
_CUT_SEQUENCE: Final = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*)?$")
_REST_OF_SEQUENCE: Final = re.compile(rb"\A[0-?]*[ -/]*[@-~]?")
_CUT_CHARACTER: Final = re.compile(
    rb"(?:[\xc2-\xdf]|[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf4][\x80-\xbf]{0,2})$"
)
_REST_OF_CHARACTER: Final = re.compile(rb"\A[\x80-\xbf]{0,3}")
_LONGEST_SEQUENCE: Final = 32
_LAST_LINE: Final = 4096  # bytes of it that are quoted at most
_NUMBERS: Final = re.compile(r"\b(?=[a-f]*\d)[0-9a-f]{8,}\b|0x[0-9a-f]+|\d[\d,.]*")


def printable(line: bytes | bytearray) -> str:
    """One line of guest output, safe for a terminal: control characters become \\x1b and so on."""
    return safe(line.decode("utf-8", "backslashreplace"))


def quoted(text: str) -> str:
    """Printable text in quotes, else as it is: repr() would write each \\x1b of it twice."""
    mark = '"' if "'" in text and '"' not in text else "'"
    shown = text.replace("\t", r"\t")
    return f"{mark}{shown}{mark}"


def without_numbers(text: str) -> str:
    """Text in which any two numbers look alike: addresses, sizes, counts, times, versions."""
    return _NUMBERS.sub("#", text)


def last_line(transcript: bytes | bytearray) -> str:
    """The last line that is not blank, printable; what is cut off of an escape sequence or a
    character at its ends is left out.
    """
    end = bytes(transcript[-_LAST_LINE - _LONGEST_SEQUENCE :])
    before, tail = end[:-_LAST_LINE], end[-_LAST_LINE:]
    if not transcript.endswith((b"\n", b"\r")):
        tail = _CUT_CHARACTER.sub(b"", _CUT_SEQUENCE.sub(b"", tail))
    if before:
        rest = _REST_OF_SEQUENCE if _CUT_SEQUENCE.search(before) else _REST_OF_CHARACTER
        tail = rest.sub(b"", tail)
    lines = (line.strip() for line in reversed(tail.splitlines()))
    return printable(next((line for line in lines if line), b""))


def first_difference(first: bytes, second: bytes) -> tuple[int, str, str] | None:
    """The number of the first line that is not the same in two transcripts, and what it is in each:
    quoted, or "missing"; without the end of line that both have. None where all are the same.
    """
    lines = zip_longest(first.split(b"\n"), second.split(b"\n"))
    for number, (left, right) in enumerate(lines, 1):
        if left != right:
            both = left is not None and right is not None
            end = b"\r" if both and left.endswith(b"\r") and right.endswith(b"\r") else b""
            return number, _whole_line(left, end), _whole_line(right, end)
    return None


def _whole_line(line: bytes | None, end: bytes) -> str:
    return "missing" if line is None else quoted(printable(line.removesuffix(end)))


def duration(seconds: float) -> str:
    """A time for people: "4.2 s", "3 min 5 s", "2 h 11 min"."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
