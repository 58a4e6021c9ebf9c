"""All transcripts of a report in one small text that a page can unpack.

The lines of a kernel are nearly the same in all its boots but for their time stamps. So each text
is kept once, without its stamp; a transcript is a list of stamps and of places in that list; and
all of it is deflated. Base64, so that nothing in it can end a script element. Pure.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterable
from typing import Final

from bootproof.harness.guest.stages import marks
from bootproof.harness.results.results import CaseResult, Transcript

_MOST_LINES: Final = 4000  # of one transcript, half from each end; results.json has more
_LINE_LIMIT: Final = 2000  # characters
_STAMP: Final = re.compile(r"\[ *[0-9]{1,8}\.[0-9]{1,9}\] ?")


def packed(cases: Iterable[CaseResult]) -> str:
    """The transcripts by case id: {"texts": [...], "cases": {id: [stamps, steps, stages]}}.

    `steps` are the distances from one place in `texts` to the next: mostly 1. `stages` are the
    lines, from 0, at which a stage is reached, with its name.
    """
    texts: dict[str, int] = {}
    places = {}
    for case in cases:
        if case.transcript is None:
            continue
        stamps, steps, last = [], [], 0
        lines, stages = _shown(case.transcript)
        for line in lines:
            stamp = _STAMP.match(line)
            text = line[stamp.end() :] if stamp else line
            place = texts.setdefault(text, len(texts))
            stamps.append(stamp.group() if stamp else "")
            steps.append(place - last)
            last = place
        places[case.case] = [stamps, steps, stages]
    data = json.dumps({"texts": list(texts), "cases": places}, separators=(",", ":"))
    return base64.b64encode(zlib.compress(data.encode(), 9)).decode()


def _shown(transcript: Transcript) -> tuple[list[str], list[tuple[int, str]]]:
    """The lines for a page, and its stages: of a flood, the beginning and the end."""
    lines, stages = transcript.lines, _stages(transcript.text)
    half, gone = _MOST_LINES // 2, len(lines) - _MOST_LINES
    if gone > 0:
        told = f"[… {gone} lines left out, see results.json …]"
        lines = [*lines[:half], told, *lines[-half:]]
        kept = ((n if n < half else n - gone + 1, name, n) for n, name in stages)
        stages = [(at, name) for at, name, n in kept if n < half or n >= half + gone]
    return [line[:_LINE_LIMIT] for line in lines], stages


def _stages(text: str) -> list[tuple[int, str]]:
    raw = text.encode()
    return [(raw.count(b"\n", 0, mark.offset), mark.name) for mark in marks(raw)]
