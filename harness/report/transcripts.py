"""The transcripts of some cases in few bytes, for a page to put together again.

The lines of a kernel are nearly the same in all its boots but for their time stamps. So each text
is kept once, without its stamp, and a transcript is a list of stamps and of places in that list.
Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from bootproof.harness.guest.stages import marks
from bootproof.harness.results.results import CaseResult, Transcript
from bootproof.loader.address import counted

_MOST_LINES: Final = 4000  # of one transcript, half from each end; results.json has more
_LINE_LIMIT: Final = 2000  # characters
_STAMP: Final = re.compile(r"\[ *([0-9]{1,8})\.([0-9]{1,9})\] ?")
_MICROSECONDS: Final = 1_000_000


def packed(cases: Iterable[CaseResult]) -> dict[str, Any]:
    """The transcripts in the order of the cases: {"texts": [...], "transcripts": [...]}.

    Each is [stamps, steps, stages], or None. A stamp of the kernel is a number: microseconds since
    the last such one; any other is as it is, or "". `steps` are the distances from one place in
    `texts` to the next: mostly 1. `stages` are the lines, from 0, at which a stage is reached, with
    its name.
    """
    texts: dict[str, int] = {}
    found = [None if c.transcript is None else _packed(c.transcript, texts) for c in cases]
    return {"texts": list(texts), "transcripts": found}


def _packed(transcript: Transcript, texts: dict[str, int]) -> list[Any]:
    stamps: list[int | str] = []
    steps, last, clock = [], 0, 0
    lines, stages = _shown(transcript)
    for line in lines:
        stamp = _STAMP.match(line)
        text = line[stamp.end() :] if stamp else line
        place = texts.setdefault(text, len(texts))
        now = _of_the_kernel(stamp) if stamp else None
        stamps.append(now - clock if now is not None else stamp.group() if stamp else "")
        steps.append(place - last)
        last, clock = place, clock if now is None else now
    return [stamps, steps, stages]


def _of_the_kernel(stamp: re.Match[str]) -> int | None:
    """The microseconds of a stamp that is written as printk does it; None for any other."""
    seconds, parts = int(stamp[1]), int(stamp[2])
    written = f"[{seconds:5}.{parts:06}] "
    return seconds * _MICROSECONDS + parts if written == stamp.group() else None


def _shown(transcript: Transcript) -> tuple[list[str], list[tuple[int, str]]]:
    """The lines for a page, and its stages: of a flood, the beginning and the end."""
    lines, stages = transcript.lines, _stages(transcript.text)
    half, gone = _MOST_LINES // 2, len(lines) - _MOST_LINES
    if gone > 0:
        told = f"[… {counted(gone, 'line')} left out, see results.json …]"
        lines = [*lines[:half], told, *lines[-half:]]
        kept = ((n if n < half else n - gone + 1, name, n) for n, name in stages)
        stages = [(at, name) for at, name, n in kept if n < half or n >= half + gone]
    return [line[:_LINE_LIMIT] for line in lines], stages


def _stages(text: str) -> list[tuple[int, str]]:
    raw = text.encode()
    return [(raw.count(b"\n", 0, mark.offset), mark.name) for mark in marks(raw)]
