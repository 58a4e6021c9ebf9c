"""Transcripts packed for a page: there and back, of a bounded size."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

from bootproof.harness.report import transcripts
from bootproof.harness.results import results
from tests.builders import results as builder


def unpacked(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(text)))
    return found


def lines(packed: dict[str, Any], id_: str) -> list[str]:
    """As the page's script puts them together."""
    place, found = 0, []
    stamps, steps, _ = packed["cases"][id_]
    for stamp, step in zip(stamps, steps, strict=True):
        place += step
        found.append(stamp + packed["texts"][place])
    return found


def test_transcripts_there_and_back() -> None:
    texts = [b"[    0.1] a\n[    0.2] b\nno stamp\n\n[    0.3] a\n", b"[    9.9] a\nb\n", b""]
    cases = [
        builder.case(f"c{number}", transcript=results.transcript(text))
        for number, text in enumerate(texts)
    ]
    found = unpacked(transcripts.packed(cases))
    for case in cases:
        assert case.transcript is not None
        assert lines(found, case.case) == case.transcript.lines


def test_stages_are_marked_at_their_lines() -> None:
    case = builder.case()
    found = unpacked(transcripts.packed([case]))["cases"][case.case][2]
    assert found[0] == [0, "first-output"]
    assert [2, "proof"] in found


def test_flood_is_cut_in_the_middle() -> None:
    log = (
        builder.LOG
        + b"".join(b"line %d\n" % n for n in range(20_000))
        + b"Run /init as init process\n"
    )
    case = builder.case(transcript=results.transcript(log))
    found = unpacked(transcripts.packed([case]))
    told = lines(found, case.case)
    assert len(told) == 4001
    assert "lines left out, see results.json" in told[2000]
    assert told[1] == "[    0.500000] Memory: up" and told[-1] == "Run /init as init process"
    stages = {name: at for at, name in found["cases"][case.case][2]}
    assert (stages["banner"], told[stages["init"]]) == (0, told[-1])
