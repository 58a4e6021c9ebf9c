"""The engine for where atheris is not: seeds, mutated at random, without a look at coverage.

An input whose outcome (the refusal's code, or the lack of one) is new becomes a seed itself: that
is all the guidance there is. The same seed number gives the same run, but for when time is up.
"""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable, Sequence
from typing import Final

from tests.fuzz.targets import MOST_BYTES

Mutation = Callable[[random.Random, bytearray, Sequence[bytes]], None]

_INTERESTING: Final = (0, 1, 2, 4, 8, 64, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, -1, -4, -8)
_MOST_MUTATIONS: Final = 6
_MOST_KEPT: Final = 512


def fuzz(run: Callable[[bytes], str], seeds: Sequence[bytes], seconds: float, seed: int) -> int:
    """Calls `run` until time is up (host wall); how often that was. What `run` raises escapes."""
    chance = random.Random(seed)
    corpus = list(seeds)
    seen = {run(data) for data in corpus}
    executions = len(corpus)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = mutated(chance, corpus)
        outcome = run(data)
        executions += 1
        if outcome not in seen and len(corpus) < _MOST_KEPT:
            seen.add(outcome)
            corpus.append(data)
    return executions


def mutated(chance: random.Random, corpus: Sequence[bytes]) -> bytes:
    """One input of the corpus with a few mutations."""
    data = bytearray(chance.choice(corpus))
    for _ in range(chance.randint(1, _MOST_MUTATIONS)):
        chance.choice(_MUTATIONS)(chance, data, corpus)
    return bytes(data[:MOST_BYTES])


def _flip(chance: random.Random, data: bytearray, _corpus: Sequence[bytes]) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _number(chance: random.Random, data: bytearray, _corpus: Sequence[bytes]) -> None:
    """A number near a boundary, in a size and byte order that the formats use."""
    code = chance.choice("BHIQ")
    size = struct.calcsize(code)
    value = chance.choice(_INTERESTING) + chance.randint(-1, 1) & (1 << 8 * size) - 1
    if len(data) >= size:
        order = chance.choice("<<>")
        struct.pack_into(order + code, data, chance.randrange(len(data) - size + 1), value)


def _insert(chance: random.Random, data: bytearray, _corpus: Sequence[bytes]) -> None:
    at = chance.randint(0, len(data))
    data[at:at] = chance.randbytes(chance.randint(1, 16))


def _delete(chance: random.Random, data: bytearray, _corpus: Sequence[bytes]) -> None:
    at = chance.randint(0, len(data))
    del data[at : at + chance.randint(1, 64)]


def _truncate(chance: random.Random, data: bytearray, _corpus: Sequence[bytes]) -> None:
    del data[chance.randint(0, len(data)) :]


def _repeat(chance: random.Random, data: bytearray, _corpus: Sequence[bytes]) -> None:
    at = chance.randint(0, len(data))
    data[at:at] = data[at : at + chance.randint(1, 64)] * chance.randint(1, 8)


def _splice(chance: random.Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    other = chance.choice(corpus)
    at, start = chance.randint(0, len(data)), chance.randint(0, len(other))
    data[at:] = other[start:]


_MUTATIONS: Final[Sequence[Mutation]] = (
    *(_flip, _flip, _number, _number, _number),
    *(_insert, _delete, _truncate, _repeat, _splice),
)
