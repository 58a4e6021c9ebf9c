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

from harness.results import CaseResult
from harness.stages import marks

_STAMP: Final = re.compile(r"\[ *[0-9]{1,8}\.[0-9]{1,9}\] ?")


def packed(cases: Iterable[CaseResult]) -> str:
    """The transcripts by case id: {"texts": [...], "cases": {id: [stamps, steps, stages]}}.

    `steps` are the distances from one place in `texts` to the next: mostly 1. `stages` are the
    lines, from 0, at which a stage is reached, with its name.
    """
    texts: dict[str, int] = {}
    found = {}
    for case in cases:
        if case.transcript is None:
            continue
        stamps, steps, last = [], [], 0
        for line in case.transcript.lines:
            stamp = _STAMP.match(line)
            text = line[stamp.end() :] if stamp else line
            place = texts.setdefault(text, len(texts))
            stamps.append(stamp.group() if stamp else "")
            steps.append(place - last)
            last = place
        found[case.case] = [stamps, steps, _stages(case.transcript.text)]
    data = json.dumps({"texts": list(texts), "cases": found}, separators=(",", ":"))
    return base64.b64encode(zlib.compress(data.encode(), 9)).decode()


def _stages(text: str) -> list[tuple[int, str]]:
    raw = text.encode()
    return [(raw.count(b"\n", 0, mark.offset), mark.name) for mark in marks(raw)]
