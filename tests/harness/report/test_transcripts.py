"""Transcripts packed for a page: there and back, of a bounded size."""

from __future__ import annotations

from bootproof.harness.report import transcripts
from bootproof.harness.results import results
from tests.builders import results as builder
from tests.builders.pages import lines


def test_transcripts_there_and_back() -> None:
    texts = [
        b"[    0.1] a\n[    0.2] b\nno stamp\n\n[    0.3] a\n",
        b"[    9.9] a\nb\n",
        b"",
        b"[    0.000000] a\n[    0.000012] b\n[    0.5] c\n[   12.500000] a\n[    1.000000] back\n",
        b"[99999.999999] a\n[123456.000001] a\n[00001.000001] a\n[1.000001]a\n[    1.000001]\n",
    ]
    cases = [
        builder.case(f"c{number}", transcript=results.transcript(text))
        for number, text in enumerate(texts)
    ]
    found = transcripts.packed([*cases, builder.refused()])
    for place, case in enumerate(cases):
        assert case.transcript is not None
        assert lines(found, place) == case.transcript.lines
    assert found["transcripts"][-1] is None


def test_stamps_of_the_kernel_are_numbers() -> None:
    log = b"[    0.000000] a\n[    0.000012] b\n[    0.5] c\nd\n[    1.000000] e\n"
    case = builder.case(transcript=results.transcript(log))
    stamps, _, _ = transcripts.packed([case])["transcripts"][0]
    assert stamps == [0, 12, "[    0.5] ", "", 999_988]


def test_stages_are_marked_at_their_lines() -> None:
    case = builder.case()
    found = transcripts.packed([case])["transcripts"][0][2]
    assert found[0] == (0, "first-output")
    assert (2, "proof") in found


def test_flood_is_cut_in_the_middle() -> None:
    log = (
        builder.LOG
        + b"".join(b"line %d\n" % n for n in range(20_000))
        + b"Run /init as init process\n"
    )
    case = builder.case(transcript=results.transcript(log))
    found = transcripts.packed([case])
    told = lines(found, 0)
    assert len(told) == 4001
    assert "lines left out, see results.json" in told[2000]
    assert told[1] == "[    0.500000] Memory: up" and told[-1] == "Run /init as init process"
    stages = {name: at for at, name in found["transcripts"][0][2]}
    assert (stages["banner"], told[stages["init"]]) == (0, told[-1])
