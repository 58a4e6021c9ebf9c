"""The changes between two runs as text."""

from __future__ import annotations

from bootproof.harness.report import changes as rendering
from bootproof.harness.results import changes
from tests.builders import results as builder


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
        "4 cases compared with the run before: 1 not compared, 1 new, 1 gone, 1 same",
    ]
