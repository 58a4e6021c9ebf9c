"""Which part of a matrix one of several machines runs: balanced, and stable when cases are added.

Every name has an order of shards of its own (rendezvous hashing: the hash of shard and name), and
goes to the first of them that is not full; full is SLACK more than an equal part. So most names are
where their hash wants them whatever else is in the matrix, and no shard gets much more than others.
The most expensive go first, since they are what makes a shard full. Pure: names and costs in.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.loader.address import counted

SLACK: Final = 0.1
_TEXT: Final = re.compile(r"([0-9]{1,4})/([0-9]{1,4})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `number` of `count`, from 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def parse(text: str) -> Shard:
    """A shard as users write it: 1/4. Raises ValueError with one sentence fit for a user."""
    match = _TEXT.fullmatch(text)
    number, count = (int(digits) for digits in match.groups()) if match else (0, 0)
    if not 1 <= number <= count:
        raise ValueError(f"{text!r} is no shard; write it like 1/4: the first of four")
    return Shard(number, count)


def distribute(costs: Mapping[str, int], count: int) -> dict[str, int]:
    """The shard, 1 to `count`, of each name; costs are in any unit, and at least 0."""
    limit = sum(costs.values()) / count * (1 + SLACK)
    loads = [0] * count
    # By powers of two: a measurement that differs a little must not change who is first.
    shards: dict[str, int] = {}
    for name in sorted(costs, key=lambda name: (-costs[name].bit_length(), _hash(name))):
        wanted = sorted(range(count), key=lambda shard: _hash(f"{shard}/{name}"))
        free = (shard for shard in wanted if loads[shard] + costs[name] <= limit)
        shard = next(free, min(wanted, key=loads.__getitem__))
        loads[shard] += costs[name]
        shards[name] = shard + 1
    return shards


def empty(part: Shard, shards: Mapping[str, int]) -> str:
    """What is said of a shard that none of the names goes to."""
    cases, most = len(shards), len(set(shards.values()))
    there = f"there {'is' if cases == 1 else 'are'} {counted(cases, 'case')}"
    fill = f" and they fill {most}" if most < min(cases, part.count) else ""
    return f"--shard {part}: is empty: {there} for {part.count} shards{fill}; make at most {most}"


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()
