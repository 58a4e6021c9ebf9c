"""Results that wait on the disk for the end of their run, and are as they were then."""

from __future__ import annotations

import pickle
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from bootproof.harness.report import junit, page, step_summary, terminal
from bootproof.harness.results import results
from bootproof.harness.results.kept import Kept
from bootproof.harness.results.results import CaseResult
from tests.builders import results as builder

CASES = (
    builder.case("b"),
    builder.refused(),
    builder.failed("a", problem=builder.HOSTILE),
    builder.unknown(),
    builder.tested(),
)


def kept_in(directory: Path, *cases: CaseResult) -> Kept:
    found = Kept(directory, room=0)
    for case in cases:
        found.add(case)
    return found


def test_every_output_is_that_of_results_in_memory(tmp_path: Path) -> None:
    here = builder.run(*sorted(CASES, key=lambda case: case.case))
    there = replace(here, cases=kept_in(tmp_path, *CASES).cases())
    for render in (page.render, junit.render, step_summary.render, terminal.grid):
        assert render(there) == render(here)
    assert (terminal.failures(there), terminal.summary(there)) == (
        *(terminal.failures(here), terminal.summary(here)),
    )
    for name, run in (("there", there), ("here", here)):
        results.write(run, tmp_path / name)
    assert (tmp_path / "there").read_bytes() == (tmp_path / "here").read_bytes()


def test_what_there_is_room_for_is_not_read_again(tmp_path: Path) -> None:
    some = [builder.case(f"{number}") for number in range(4)]
    kept = Kept(tmp_path, room=2 * len(pickle.dumps(some[0])))
    for case in some:
        kept.add(case)
    assert [kept.get(case.case) is case for case in some] == [True, True, False, False]


def test_a_case_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    cases = kept_in(tmp_path, builder.case("a", reason="one"), builder.case("a", reason="two"))
    assert [case.reason for case in cases.cases()] == ["two"]
    assert cases.get("another") is None


def test_nothing_of_it_can_stay(tmp_path: Path) -> None:
    assert len(kept_in(tmp_path, *CASES).cases()) == len(CASES)
    assert [*tmp_path.iterdir()] == []


def test_memory_does_not_grow_with_what_guests_say(tmp_path: Path) -> None:
    """A MiB of it, in a tenth of that."""
    said = builder.case("first", transcript=results.transcript(b"a line\n" * 5_000))
    cases = kept_in(tmp_path, said)
    tracemalloc.start()
    try:
        for number in range(30):
            transcript = results.transcript(b"line %d\n" % number * 5_000)
            cases.add(replace(said, case=f"case {number}", transcript=transcript))
        del transcript
        assert sum(bool(case.transcript) for case in cases.cases()) == 31
        assert tracemalloc.get_traced_memory()[0] < 100 << 10
    finally:
        tracemalloc.stop()


def test_a_full_disk_loses_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = kept_in(tmp_path, builder.case("a"))

    def full(*_: object, **__: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pickle.dumps", full)
    cases.add(builder.case("b"))
    monkeypatch.undo()
    cases.add(builder.case("c"))
    assert [case.claim for case in cases.cases()] == ["a", "b", "c"]
