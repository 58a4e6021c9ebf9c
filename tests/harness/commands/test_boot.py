"""Two runs of one case: what counts as the same boot, and how the first difference is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootproof.harness.commands.boot import difference, uncounted
from bootproof.harness.course import Costs, Outcome
from bootproof.harness.expected import Judgement
from bootproof.harness.guest.evidence import GuestEvidence
from bootproof.harness.observation import End, Observation
from bootproof.harness.verdict import Verdict


def outcome(transcript: bytes, instructions: int | None, end: End = End.GUEST_RESET) -> Outcome:
    judgement = Judgement(Verdict.BOOTED, "", GuestEvidence("", None))
    observation = Observation(transcript, end, instructions=instructions)
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
    ("counts", "cpus", "wanted", "why"),
    [
        ((1000, 1000), 1, None, None),
        ((1000, 1001), 1, "1,000 guest instructions the first time, 1,001 the second time", None),
        ((1000, 1001), 2, None, "with 2 CPUs"),
        ((None, None), 1, None, "not known"),
        ((1000, None), 1, None, "not known"),
    ],
)
def test_instructions(
    counts: tuple[int | None, int | None], cpus: int, wanted: str | None, why: str | None
) -> None:
    first, second = (outcome(b"same", count) for count in counts)
    assert difference(first, second, cpus) == wanted
    assert uncounted(first, second, cpus) == why


def test_a_guest_that_was_ended_by_a_look_at_it() -> None:
    """Where that was says nothing of the guest; what both runs have of it does."""
    first = outcome(b"a\nb", 5, End.LOOPING)
    longer, other = outcome(b"a\nb\nc", 9, End.LOOPING), outcome(b"a\nx\nc", 9, End.LOOPING)
    assert difference(first, longer, cpus=1) is None
    assert uncounted(first, longer, cpus=1) == "of a guest that does not end by itself"
    said = "transcript line 2 is 'b' the first time, 'x' the second time"
    assert difference(first, other, cpus=1) == said
