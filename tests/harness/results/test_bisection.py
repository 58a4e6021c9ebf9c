"""What a run is in a bisection, and how few images have to be tested to find the first bad one."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootproof.harness.errors import UsageError
from bootproof.harness.marks import Mark
from bootproof.harness.results import bisection, results
from bootproof.harness.results.bisection import Failure, Search, Sought, failure, failure_of
from bootproof.harness.results.results import Check
from bootproof.harness.verdict import Verdict
from tests.builders.results import case, run

PANIC = "kernel panic: VFS: Unable to mount root fs on unknown-block(0,0); foo+0x12/0x34"
OTHER_NUMBERS = "kernel panic: VFS: Unable to mount root fs on unknown-block(8,1); foo+0x9/0x40"


def found(verdict: str, problem: str = "it failed", claim: str | None = None) -> Failure:
    made = failure(verdict, problem, claim)
    assert made is not None
    return made


# --- what a run is -------------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", Verdict)
def test_any_failure(verdict: Verdict) -> None:
    """What the host did, and a kernel that was never started, blame nobody."""
    untested = verdict.of_host or verdict is Verdict.LOAD_REFUSED
    wanted = Mark.CANNOT_TELL if untested else Mark.BAD
    assert Sought().mark(found(verdict.value)) is wanted
    assert Sought().mark(failure(verdict.value, None)) is Mark.GOOD


@pytest.mark.parametrize(
    ("others", "end", "wanted"),
    [
        (Mark.CANNOT_TELL, found("panic", OTHER_NUMBERS), Mark.BAD),
        (Mark.CANNOT_TELL, found("panic", "kernel panic: no init found"), Mark.CANNOT_TELL),
        (Mark.CANNOT_TELL, found("oops", PANIC), Mark.CANNOT_TELL),
        (Mark.GOOD, found("oops", PANIC), Mark.GOOD),
        (Mark.GOOD, found("inconclusive", "no word"), Mark.CANNOT_TELL),
        (Mark.GOOD, None, Mark.GOOD),
    ],
)
def test_the_same_failure(others: Mark, end: Failure | None, wanted: Mark) -> None:
    assert Sought((found("panic", PANIC),), others).mark(end) is wanted


def test_addresses_of_another_build_are_no_other_failure() -> None:
    first, second = (
        found("stuck", f"loops at {pc}: cpu_idle") for pc in ("ffffffff81000abc", "0xffffffff8100")
    )
    assert first.is_like(second)
    assert not first.is_like(found("stuck", "loops at 0xffffffff8100: do_exit"))


@pytest.mark.parametrize(
    ("ends", "wanted"),
    [
        (["booted"], Mark.GOOD),
        (["booted", "inconclusive"], Mark.CANNOT_TELL),
        (["inconclusive", "panic", "booted"], Mark.BAD),
        ([], Mark.CANNOT_TELL),
    ],
)
def test_many_cases(ends: list[str], wanted: Mark) -> None:
    failures = [failure(end, None if end == "booted" else "it failed") for end in ends]
    assert Sought().mark_of_all(failures) is wanted


def test_cases_of_a_matrix_are_told_by_their_claims() -> None:
    """The names of kernels differ from package to package."""
    old, new = (
        case("elf-pvh-none", kernel, verdict="panic", problem=PANIC) for kernel in ("6.1", "6.2")
    )
    elsewhere = case("elf-linux64-none", verdict="panic", problem=PANIC)
    sought = Sought(tuple(filter(None, [failure_of(old)])))
    assert sought.mark(failure_of(new)) is Mark.BAD
    assert sought.mark(failure_of(elsewhere)) is Mark.CANNOT_TELL
    assert sought.mark(found("panic", PANIC)) is Mark.BAD  # the same kernel booted by itself
    assert Sought().mark(failure_of(Check("a test", "error", "it broke", 1.0))) is Mark.CANNOT_TELL
    assert failure_of(Check("a test", "skipped", "no reason", 1.0)) is None


# --- an earlier run ------------------------------------------------------------------------------


def test_failures_of_a_matrix(tmp_path: Path) -> None:
    bad = case("a", verdict="panic", problem=PANIC)
    results.write(run(case("b"), bad), tmp_path / "results.json")
    for path in (tmp_path, tmp_path / "results.json"):
        assert bisection.sought(path, None) == Sought((found("panic", PANIC, "a"),))
    assert bisection.sought(tmp_path, "good").others is Mark.GOOD


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "neither result.json nor results.json"),
        ("", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "run the case again"),
        ('{"verdict": "panic"}', "run the case again"),
        ('{"verdict": 5, "problem": "x"}', "run the case again"),
        ('{"verdict": "booted", "problem": null}', "nothing of a kernel failed there"),
        ('{"verdict": "inconclusive", "problem": "x"}', "nothing of a kernel failed there"),
    ],
)
def test_a_run_that_says_nothing(text: str | None, words: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "result.json").write_text(text)
    with pytest.raises(UsageError, match=f"{words}.*--same-as"):
        bisection.sought(tmp_path, None)


# --- the search ----------------------------------------------------------------------------------


@settings(max_examples=1000)
@given(st.data())
def test_search(data: st.DataObject) -> None:
    """It names the first bad image, or the untestable ones before it, in as few tests as can be."""
    count = data.draw(st.integers(2, 60))
    first_bad = data.draw(st.integers(0, count))  # the last one: none is bad
    untestable = data.draw(st.sets(st.integers(0, count - 1), max_size=4))
    search, tests = Search(count), 0
    while (at := search.next()) is not None:
        tests += 1
        good = Mark.GOOD if at < first_bad else Mark.BAD
        search.tell(at, Mark.CANNOT_TELL if at in untestable else good)
    testable = [at for at in range(count) if at not in untestable]
    assert search.last_good == max((at for at in testable if at < first_bad), default=-1)
    assert search.first_bad == min((at for at in testable if at >= first_bad), default=count)
    between = range(search.last_good + 1, search.first_bad)
    assert search.untested == [*between]
    assert tests <= math.ceil(math.log2(count + 1)) + len(untestable)
    if count == 12 and len(untestable) <= 2:
        assert tests <= 6
