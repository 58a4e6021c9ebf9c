"""Tables of kallsyms as scripts/kallsyms.c writes them, in the layouts of its versions.

Written once more from that file, independent of the reader, so that a slip there cannot hide.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

Symbol = tuple[str, int, str]  # nm's type, the place in the image, the name

# What codes stand for that no name has as a character.
TOKENS: Final = {0x80: "_init", 0x81: "Tsys_", 0x82: "func", 0x83: "0x", 0xFF: "tspin_lock_irq"}


@dataclass(frozen=True)
class Layout:
    """What differs between versions of scripts/kallsyms.c."""

    addresses_first: bool = False
    order: int = 0  # bytes for each name, in the order of names, before the tokens
    align: int = 8
    per_cpu: bool = False  # CONFIG_KALLSYMS_ABSOLUTE_PERCPU
    from_place: bool = False
    tokens: Mapping[int, str] = field(default_factory=lambda: TOKENS)


LAYOUTS: Final = {
    "5.10": Layout(addresses_first=True),
    "5.10 with per-CPU variables": Layout(addresses_first=True, per_cpu=True),
    "6.2": Layout(addresses_first=True, order=3, per_cpu=True),
    "6.2 of Android": Layout(addresses_first=True, order=4),
    "6.4": Layout(),
    "6.4 with per-CPU variables": Layout(per_cpu=True),
    "7.0": Layout(align=4, from_place=True),
}


def many(count: int, base: int = 0x1_0000) -> list[Symbol]:
    """Symbols of a kernel whose code begins at `base` with _stext."""
    kinds = ("T", "t", "W", "D", "t")
    names = (f"sys_{n}_init" if n % 3 else f"func{n}.0x{n:x}" for n in range(count - 1))
    rest = [(kinds[n % 5], base + 16 * n, name) for n, name in enumerate(names)]
    return [("T", base, "_stext"), *rest]


def tables(symbols: Sequence[Symbol], layout: Layout, place: int = 0) -> bytes:
    """The tables of symbols in order of their places, for `place` in the image."""
    out = _Out(layout.align, place)
    count = struct.pack("<I", len(symbols))
    whole = [kind + name for kind, _, name in symbols]
    packed = {text: _row(text, layout.tokens) for text in {*whole}}
    rows = [packed[text] for text in whole]
    if layout.addresses_first:
        _addresses(out, symbols, layout)
    out.part(count)
    out.part(b"".join(rows))
    marks = [*accumulate(map(len, rows), initial=0)][: len(rows) : 256]
    out.part(struct.pack(f"<{len(marks)}I", *marks))
    if layout.order:
        out.part(b"".join(n.to_bytes(layout.order, "big") for n in range(len(symbols))))
    used = {ord(char) for text in packed for char in text} | {*b"0123456789"}
    texts = [chr(n) if n in used else layout.tokens.get(n, "") for n in range(256)]
    out.part(b"".join(text.encode() + b"\0" for text in texts))
    starts = accumulate((len(text) + 1 for text in texts[:-1]), initial=0)
    out.part(struct.pack("<256H", *starts))
    if not layout.addresses_first:
        _addresses(out, symbols, layout)
        out.part(bytes(3 * len(symbols)))
    return out.data


class _Out:
    def __init__(self, align: int, place: int) -> None:
        self.data, self.align, self.place = b"", align, place

    def part(self, data: bytes) -> None:
        self.data += bytes(-len(self.data) % self.align) + data


def _row(text: str, tokens: Mapping[int, str]) -> bytes:
    packed = text
    for code, token in tokens.items():
        packed = packed.replace(token, chr(code))
    codes = packed.encode("latin-1")
    size = len(codes)
    head = bytes([size]) if size < 0x80 else bytes([size & 0x7F | 0x80, size >> 7])
    return head + codes


def _addresses(out: _Out, symbols: Sequence[Symbol], layout: Layout) -> None:
    """Symbols of the type "V" are per-CPU variables here, where the layout has such."""
    at = out.place + len(out.data) + -len(out.data) % out.align
    absolute = [layout.per_cpu and kind == "V" for kind, _, _ in symbols]
    base = next(place for (_, place, _), no in zip(symbols, absolute, strict=True) if not no)
    values = []
    for number, (_, place, _) in enumerate(symbols):
        if layout.from_place:
            values.append(place - at - 4 * number)
        elif not layout.per_cpu:
            values.append(place - base)
        else:
            values.append(place if absolute[number] else base - place - 1)
    out.part(struct.pack(f"<{len(values)}i", *values))
    if not layout.from_place:
        out.part(bytes(8))  # what a kernel that moves writes there itself
