"""A kernel command line parted into arguments, as the kernel does it itself.

Owns: where an argument begins and ends, what its name and value are, where the kernel stops
reading. Must not know: what any argument means, nor how a command line is written (that is
loader/cmdline.py's, after linux-loader).

Source: next_arg() of the kernel's lib/cmdline.c, parse_args() of kernel/params.c, and isspace() of
lib/ctype.c, for which the byte 0xa0 is white space too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from bootproof.dataclass import dataclass

_SPACE: Final = rb"\t\n\v\f\r \xa0"
_ARGUMENT: Final = re.compile(rb'(?:"[^"]*"?|[^"' + _SPACE + rb"])+")
_FOR_INIT: Final = b"--"


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument; `value` is None where it has no equals sign."""

    start: int  # in bytes of the line
    end: int
    name: bytes
    value: bytes | None


def for_kernel(line: bytes) -> tuple[Argument, ...]:
    """The arguments that the kernel reads: those before a `--`."""
    return tuple(argument for argument in _all(line[: for_init(line)]))


def for_init(line: bytes) -> int:
    """Where the `--` begins, behind which all is for init; the line's length without one."""
    stop = (a.start for a in _all(line) if (a.name, a.value) == (_FOR_INIT, None))
    return next(stop, len(line))


def open_quote(line: bytes) -> int | None:
    """Where a quote begins that is not closed before the kernel stops reading."""
    last = max(for_kernel(line), key=lambda argument: argument.end, default=None)
    if last is None or line.count(b'"', last.start, last.end) % 2 == 0:
        return None
    return line.rindex(b'"', last.start, last.end)


def last_value(line: bytes, name: bytes) -> bytes | None:
    """The value of the last argument of that name: for most names it is the one that counts."""
    values = [a.value for a in for_kernel(line) if a.name == name and a.value is not None]
    return values[-1] if values else None


def _all(line: bytes) -> Iterator[Argument]:
    for match in _ARGUMENT.finditer(line):
        yield Argument(match.start(), match.end(), *_parted(match.group()))


def _parted(text: bytes) -> tuple[bytes, bytes | None]:
    """Name and value, without the quotes around the whole or around the value."""
    quoted = text.startswith(b'"')
    text = text[1:] if quoted else text
    equals = text.find(b"=", 1)  # in front it is no separator: the name would be empty
    in_value = equals > 0 and text.startswith(b'"', equals + 1)
    if quoted or in_value:
        text = text.removesuffix(b'"')  # once, also where both are quoted
    if equals < 0:
        return text, None
    return text[:equals], text[equals + 1 + in_value :]
