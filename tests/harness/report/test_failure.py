"""What every output says of one failure."""

from __future__ import annotations

from typing import Any

from bootproof.harness.report import failure, junit
from bootproof.harness.results import results
from tests.builders import results as builder


def test_silent_guest_is_told_of_by_its_log_buffer() -> None:
    silent: dict[str, Any] = {
        "transcript": results.transcript(b""),
        "log": results.transcript(b"a\nlast\n"),
    }
    case = builder.failed(**silent)
    assert "the log buffer in RAM ends:\n  | a\n  | last\n" in junit.render(builder.run(case))
    text = failure.text(case)
    assert text.splitlines()[1:4] == ["the log buffer in RAM ends:", "  | a", "  | last"]
