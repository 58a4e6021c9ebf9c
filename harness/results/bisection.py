"""What a bisection is told of a run, and the search through images that lie in order.

Only what the guest did can make a commit bad; what says nothing of the guest makes it neither good
nor bad.
Reads the results of an earlier run, and else is pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from bootproof.dataclass import dataclass
from bootproof.harness.errors import UsageError, UserError
from bootproof.harness.host.files import read_given
from bootproof.harness.host.rundir import RESULT
from bootproof.harness.marks import Mark
from bootproof.harness.results import results
from bootproof.harness.results.results import CaseResult, Check
from bootproof.harness.text import without_numbers
from bootproof.harness.verdict import OF_HOST, Verdict

_RESULT_LIMIT: Final = 64 << 20
# A kernel that cannot be loaded is a build that went wrong, in all but the rarest history.
_UNTESTED: Final = OF_HOST | {Verdict.LOAD_REFUSED.value}
_CHECK: Final = "error"  # of a test that is no boot


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong, without what differs between any two kernels: addresses, sizes, counts."""

    verdict: str
    what: str
    # Which case of a matrix, without its kernel; None where there is but one.
    claim: str | None = None

    def is_like(self, other: Failure) -> bool:
        """Whether both are the same failure."""
        same_case = None in (self.claim, other.claim) or self.claim == other.claim
        return same_case and (self.verdict, self.what) == (other.verdict, other.what)


@dataclass(frozen=True, slots=True)
class Sought:
    """The failure that a bisection looks for: any, or only what is like one of `failures`."""

    failures: tuple[Failure, ...] = ()
    # What a run with another failure is.
    others: Mark = Mark.CANNOT_TELL

    def mark(self, failure: Failure | None) -> Mark:
        """What a run is that ended in `failure`; None for one that ended as it had to."""
        if failure is None:
            return Mark.GOOD
        if any(failure.is_like(sought) for sought in self.failures):
            return Mark.BAD
        if failure.verdict in (*_UNTESTED, _CHECK):
            return Mark.CANNOT_TELL
        return self.others if self.failures else Mark.BAD

    def mark_of_all(self, failures: Iterable[Failure | None]) -> Mark:
        """What a run of many cases is: bad where one is, good only where all are."""
        marks = map(self.mark, failures)
        return max(marks, key=_WEIGHTS.index, default=Mark.CANNOT_TELL)


_WEIGHTS: Final = (Mark.GOOD, Mark.CANNOT_TELL, Mark.BAD)


NOT_COMPLETE: Final = Failure(_CHECK, "not all cases were run")


def failure(verdict: str, problem: str | None, claim: str | None = None) -> Failure | None:
    """The failure of a run, by its verdict and what is not as it had to be."""
    return None if problem is None else Failure(verdict, without_numbers(problem), claim)


def failure_of(item: CaseResult | Check) -> Failure | None:
    """The failure of one case of a matrix, or of a test that is none."""
    if isinstance(item, Check):
        return Failure(_CHECK, item.summary, item.name) if item.bad else None
    return failure(item.verdict, item.problem, item.claim)


def sought(run: Path | None, others: str | None) -> Sought:
    """The failures of an earlier run; any without one. Raises UsageError.

    `run` is a run directory, a directory of a matrix, or the file of results in either. `others`
    is the name of the mark for other failures.
    """
    if run is None:
        if others is not None:
            raise UsageError("--other-failures: other than which? Name a run with --same-as")
        return Sought()
    found = tuple(item for item in _failures(run) if item.verdict not in (*OF_HOST, _CHECK))
    if not found:
        raise UsageError(f"{run}: nothing of a kernel failed there (--same-as)")
    return Sought(found, Mark.GOOD if others == "good" else Mark.CANNOT_TELL)


def _failures(run: Path) -> list[Failure]:
    names = (RESULT, results.RESULTS)
    path = run if not run.is_dir() else next((run / n for n in names if (run / n).exists()), None)
    if path is None:
        raise UsageError(f"{run}: holds neither {' nor '.join(names)} (--same-as)")
    if path.name == results.RESULTS:
        known = results.read(path)
        return [found for item in known.wrong if (found := failure_of(item))]
    result = _read(path)
    found = failure(result["verdict"], result["problem"])
    return [found] if found else []


def _read(path: Path) -> dict[str, Any]:
    """The result.json of one run. Raises UsageError."""
    try:
        result = json.loads(read_given(path, _RESULT_LIMIT, "--same-as"))
    except UserError as error:
        raise UsageError(str(error)) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: is no JSON (--same-as)") from error
    kinds = {"verdict": str, "problem": str | None}
    if not isinstance(result, dict) or any(
        name not in result or not isinstance(result[name], kind) for name, kind in kinds.items()
    ):
        raise UsageError(
            f"{path}: has no text verdict and problem, so it is no result of this bootproof;"
            " run the case again (--same-as)"
        )
    return result


# --- images in order -----------------------------------------------------------------------------


class Search:
    """Where in a row of images, the good ones first, the first bad one is.

    Neither end is taken for granted: that the first is good and the last is bad is found out, in
    no more tests, when the search ends there.
    """

    def __init__(self, count: int) -> None:
        self._marks: dict[int, Mark] = {}
        self.last_good = -1  # none
        self.first_bad = count  # none

    def next(self) -> int | None:
        """Which image to test: the middle one of those that are left; None at the end.

        One that cannot be tested is left out, as if it were not there.
        """
        left = [at for at in self._between if at not in self._marks]
        return left[len(left) // 2] if left else None

    def tell(self, at: int, mark: Mark) -> None:
        """What came of a test."""
        self._marks[at] = mark
        if mark is Mark.GOOD:
            self.last_good = at
        elif mark is Mark.BAD:
            self.first_bad = at

    @property
    def untested(self) -> list[int]:
        """Those that could not be tested, any of which may be the first bad one."""
        return [at for at in self._between if at in self._marks]

    @property
    def _between(self) -> range:
        return range(self.last_good + 1, self.first_bad)
