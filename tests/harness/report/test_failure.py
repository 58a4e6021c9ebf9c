"""What every output says of one failure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bootproof.harness.guest.tap import GuestTest, Status
from bootproof.harness.report import failure, junit, ktap, page, step_summary, terminal
from bootproof.harness.results import results
from tests.builders import results as builder
from tests.builders.pages import opened


def test_silent_guest_is_told_of_by_its_log_buffer() -> None:
    silent: dict[str, Any] = {
        "transcript": results.transcript(b""),
        "log": results.transcript(b"a\nlast\n"),
    }
    case = builder.failed(**silent)
    assert "the log buffer in RAM ends:\n  | a\n  | last\n" in junit.render(builder.run(case))
    text = failure.text(case)
    assert text.splitlines()[1:4] == ["the log buffer in RAM ends:", "  | a", "  | last"]


# --- failures that are one ---------------------------------------------------------------------


def test_failures_alike_are_one_block_with_a_list() -> None:
    stuck = "stuck instead of booted: stuck at {}, {} million guest instructions in"
    same = [
        builder.failed("a", problem=stuck.format("0x200", "1,100")),
        builder.failed("b", problem=stuck.format("0x200", "1,100")),
        builder.failed("c", problem=stuck.format("0x3f00", "900")),
    ]
    text = terminal.failures(builder.run(*same, builder.failed("d", problem="another")))
    assert text.count("✗") == 2
    block = text.split("✗")[1]
    assert block.splitlines()[:4] == [
        f" 3 cases: {same[0].problem}",
        "  x86_64-6.1-a",
        "  x86_64-6.1-b",
        f"  x86_64-6.1-c: {same[2].problem}",
    ]
    assert block.count("reproduce:") == block.count("last console lines:") == 1
    summary = step_summary.render(builder.run(*same))
    assert summary.count("###") == 1 and "x86\\_64\\-6.1\\-b" in summary


# --- complaints --------------------------------------------------------------------------------

COMPLAINT = results.Complaint("warning", "WARNING: CPU: 0 PID: 1 at init/fault.c:31", 2, True)


def test_complaints_are_in_every_output() -> None:
    found = builder.run(builder.case(complaints=(COMPLAINT,)))
    said = "warning: WARNING: CPU: 0 PID: 1 at init/fault.c:31 (2 times), after the proof"
    assert f"complaint: {said}" in junit.render(found)
    assert f"# complaint: {said}" in ktap.result(1, "x", found.cases)
    assert "the kernel complained: WARNING: CPU: 0" in terminal.line(found.cases[0], 1, 1)
    assert "; the kernel complained in 1 that booted" in terminal.summary(found)
    shown = opened(page.render(found))
    assert "<strong>warning</strong>: WARNING: CPU: 0 PID: 1 at init/fault.c:31 (2 times)" in shown
    assert ">1 complaint<" in shown


def test_a_panic_is_no_complaint_beside_its_own_verdict() -> None:
    case = builder.failed(complaints=(results.Complaint("panic", "Kernel panic", 1, False),))
    assert "complained" not in terminal.line(case, 1, 1) + terminal.summary(builder.run(case))


def test_results_of_before_there_were_complaints_are_read(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results.write(builder.run(builder.case(complaints=(COMPLAINT,))), path)
    data = json.loads(path.read_text())
    assert results.read(path).cases[0].complaints == (COMPLAINT,)
    del data["cases"][0]["complaints"]
    path.write_text(json.dumps(data))
    assert results.read(path).cases[0].complaints == ()


def test_tests_of_the_guest_that_failed_are_named() -> None:
    told = failure.text(builder.tested())
    assert "\ntest failed: suite / two: EXPECTATION FAILED at x.c:1\n" in told
    many = tuple(GuestTest(f"test {n}", Status.FAILED) for n in range(60))
    assert failure.lines(builder.tested(tests=many))[49:51] == [
        "test failed: test 49",
        "and 10 more tests",
    ]
    assert failure.lines(builder.tested(tests=many[:51]))[50] == "and 1 more test"
