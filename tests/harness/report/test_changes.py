"""The changes between two runs as text."""

from __future__ import annotations

from bootproof.harness.report import changes as rendering
from bootproof.harness.results import changes
from tests.builders import results as builder

CASES = (builder.case("a"), builder.case("b"), builder.unknown("a"))


def test_text() -> None:
    before = builder.run(builder.case("a"), builder.case("b"))
    now = builder.run(builder.case("a"), builder.failed("b"))
    lines = rendering.render(changes.compare(before, now)).splitlines()
    assert lines[0] == "✗ regressed: x86_64-6.1-b"
    assert lines[1].startswith("    was booted, is panic: ")
    assert lines[-1] == "2 cases compared with the run before: 1 regressed, 1 same"


def test_what_nobody_can_say_is_marked_neither_good_nor_bad() -> None:
    before = builder.run(builder.case("a"), builder.case("b"), builder.case("c"))
    now = builder.run(builder.case("a"), builder.unknown("b"), builder.case("d"))
    lines = rendering.render(changes.compare(before, now)).splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        "? not compared: x86_64-6.1-b",
        "? new: x86_64-6.1-d",
        "- gone: x86_64-6.1-c",
        "1 case compared with the run before: 1 same; others: 1 not compared, 1 new, 1 gone",
    ]


def test_runs_with_nothing_to_compare() -> None:
    one, other, lost = (builder.run(case) for case in CASES)
    summaries = [rendering.summary(changes.compare(*pair)) for pair in ((one, other), (one, lost))]
    summaries.append(rendering.summary([]))
    assert summaries == [
        "nothing was compared with the run before: no case in common: 1 new, 1 gone",
        "nothing was compared with the run before: 1 not compared",
        "nothing was compared with the run before: no case in common",
    ]
