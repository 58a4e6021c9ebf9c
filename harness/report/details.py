"""What a page shows of a case once somebody opens it, packed in blocks that it can unpack.

A page of thousands of cases has a line for each; all the rest is deflated, a block for some dozens
of cases, and is unpacked when one of them is opened. Cases of one kernel share a block, since what
they print is nearly the same. Base64, so that nothing in it can end a script element. Pure.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from bootproof.dataclass import dataclass
from bootproof.harness.report import transcripts
from bootproof.harness.results.results import CaseResult

CASES: Final = 32  # in a block: it is unpacked within some dozen milliseconds


@dataclass(frozen=True, slots=True)
class Details:
    """The blocks, each made when it is asked for, and for each case, in the order in which they
    were given, the block that has it and its place in there.
    """

    blocks: Iterator[str]
    places: Sequence[tuple[int, int]]


def packed(cases: Sequence[CaseResult], body: Callable[[CaseResult], str]) -> Details:
    """All cases, with what `body` makes of each: HTML in which nothing is left to be escaped.

    A block: {"bodies": [HTML], "texts": [line], "transcripts": [[stamps, steps, stages] or null]}.
    """
    order = order_of(cases, lambda case: (case.arch, case.kernel.name, case.claim))
    places = [(0, 0)] * len(order)
    for at, number in enumerate(order):
        places[number] = divmod(at, CASES)
    return Details(_blocks(cases, order, body), places)


def order_of(cases: Iterable[CaseResult], key: Callable[[CaseResult], Any]) -> list[int]:
    """The numbers of the cases, in the order of what `key` says of them."""
    keys = [*map(key, cases)]
    return sorted(range(len(keys)), key=keys.__getitem__)


def _blocks(
    cases: Sequence[CaseResult], order: Sequence[int], body: Callable[[CaseResult], str]
) -> Iterator[str]:
    for start in range(0, len(order), CASES):
        members = [cases[number] for number in order[start : start + CASES]]
        yield _block({"bodies": [*map(body, members)]} | transcripts.packed(members))


def _block(data: Mapping[str, object]) -> str:
    text = json.dumps(data, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()
