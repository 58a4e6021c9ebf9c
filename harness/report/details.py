"""What a page shows of a case once somebody opens it, packed in blocks that it can unpack.

A page of thousands of cases has a line for each; all the rest is deflated, a block for some dozens
of cases, and is unpacked when one of them is opened. Cases of one kernel share a block, since what
they print is nearly the same. Base64, so that nothing in it can end a script element. Pure.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bootproof.harness.report import transcripts
from bootproof.harness.results.results import CaseResult

CASES: Final = 32  # in a block: it is unpacked within some dozen milliseconds


@dataclass(frozen=True, slots=True)
class Details:
    """The blocks, and for each case's id the block that has it and its place in there."""

    blocks: Sequence[str]
    places: Mapping[str, tuple[int, int]]


def packed(cases: Iterable[CaseResult], body: Callable[[CaseResult], str]) -> Details:
    """All cases, with what `body` makes of each: HTML in which nothing is left to be escaped.

    A block: {"bodies": [HTML], "texts": [line], "transcripts": [[stamps, steps, stages] or null]}.
    """
    ordered = sorted(cases, key=lambda case: (case.arch, case.kernel.name, case.claim))
    blocks: list[str] = []
    places: dict[str, tuple[int, int]] = {}
    for start in range(0, len(ordered), CASES):
        members = ordered[start : start + CASES]
        places |= {case.case: (len(blocks), place) for place, case in enumerate(members)}
        blocks.append(_block({"bodies": [*map(body, members)]} | transcripts.packed(members)))
    return Details(blocks, places)


def _block(data: Mapping[str, object]) -> str:
    text = json.dumps(data, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()
