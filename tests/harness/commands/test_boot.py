"""Two runs of one case: what counts as the same boot, and how the first difference is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootproof.harness.commands.boot import difference
from bootproof.harness.course import Costs, Outcome
from bootproof.harness.expected import Judgement
from bootproof.harness.guest.evidence import GuestEvidence
from bootproof.harness.observation import End, Observation
from bootproof.harness.verdict import Verdict

UNKNOWN = (
    "an unknown number of guest instructions the first time, an unknown number of the second time"
)


def outcome(transcript: bytes, instructions: int | None) -> Outcome:
    judgement = Judgement(Verdict.BOOTED, "", GuestEvidence("", None))
    observation = Observation(transcript, End.GUEST_RESET, instructions=instructions)
    return Outcome(judgement, observation, Costs(1.0, 1.0, 1.0, instructions), Path(), ())


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        (b"a\nb\n", b"a\nb\n", None),
        (b"a\nb\n", b"a\nc\n", "transcript line 2 is 'b' the first time, 'c' the second time"),
        (b"a", b"a\nb", "transcript line 2 is missing the first time, 'b' the second time"),
        (b"a\n", b"a", "transcript line 2 is '' the first time, missing the second time"),
        (b"a\x1b", b"a", "transcript line 1 is 'a\\x1b' the first time, 'a' the second time"),
        (b"a\r\n", b"b\r\n", "transcript line 1 is 'a' the first time, 'b' the second time"),
        (b"a\r\n", b"a\n", "transcript line 1 is 'a\\r' the first time, 'a' the second time"),
    ],
)
def test_transcripts(first: bytes, second: bytes, wanted: str | None) -> None:
    assert difference(outcome(first, 5), outcome(second, 5), cpus=1) == wanted


@pytest.mark.parametrize(
    ("counts", "wanted"),
    [
        ((1000, 1000), None),
        (
            (1000, 1001),
            "1,000 guest instructions the first time, 1,001 the second time",
        ),
        (
            (None, None),
            UNKNOWN,
        ),
    ],
)
def test_instructions(counts: tuple[int | None, int | None], wanted: str | None) -> None:
    first, second = (outcome(b"same", count) for count in counts)
    assert difference(first, second, cpus=1) == wanted
    assert difference(first, second, cpus=2) is None
