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
