"""Many runs of a matrix in the order of their time, case by case. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from bootproof.dataclass import dataclass
from bootproof.harness.judgement import PASSED
from bootproof.harness.results.results import CaseResult, Results
from bootproof.harness.results.roles import Earlier


@dataclass(frozen=True, slots=True)
class Point:
    """One case in one run."""

    started: str  # the run
    verdict: str
    outcome: str  # passed, failed or error
    instructions: int | None
    broken: bool  # its count may not be compared with the one before

    @property
    def as_expected(self) -> bool:
        return self.outcome == PASSED


@dataclass(frozen=True, slots=True)
class Trend:
    """A case through all the runs it was in, the oldest first."""

    case: str
    points: tuple[Point, ...]

    @property
    def change(self) -> float | None:
        """The last instruction count against the first that it may be compared with."""
        known: list[int] = []
        for point in self.points:
            if point.broken:
                known.clear()
            if point.instructions is not None:
                known.append(point.instructions)
        return (known[-1] - known[0]) / known[0] if len(known) > 1 and known[0] else None


@dataclass(frozen=True, slots=True)
class History:
    """Every case over all runs."""

    runs: tuple[str, ...]  # when they started
    trends: tuple[Trend, ...]


def trends(runs: Sequence[Results]) -> History:
    """The history of the cases of `runs`, which may come in any order."""
    ordered = sorted(runs, key=lambda run: run.started)
    # By the id that a case had last: its kernel may have got another version since.
    seen: dict[str, list[tuple[str, CaseResult]]] = {}
    for run in ordered:
        earlier = Earlier(cases[-1][1] for cases in seen.values())
        ids = {case.case for case in run.cases}
        for case in run.cases:
            last = earlier.of(case)
            before: list[tuple[str, CaseResult]] = []
            if last is not None and (last.case == case.case or last.case not in ids):
                before = seen.pop(last.case, [])
            seen[case.case] = [*before, (run.started, case)]
    every = tuple(Trend(id_, tuple(_points(cases))) for id_, cases in sorted(seen.items()))
    return History(tuple(run.started for run in ordered), every)


def _points(cases: Sequence[tuple[str, CaseResult]]) -> list[Point]:
    points: list[Point] = []
    last: CaseResult | None = None
    for started, case in cases:
        broken = bool(last and last.key and case.key and [*case.key.other_surroundings(last.key)])
        points.append(Point(started, case.verdict, case.outcome, case.instructions, broken))
        last = case if case.key else last
    return points
