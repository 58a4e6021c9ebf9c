"""The exit codes of every command, and the only place that gives an outcome one (docs/ci.md).

1 is said of a guest, and of nothing else: what cannot be told, is not there or was not compared
has codes of its own, so that no script (`git bisect run` is one) blames a kernel for it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

OK: Final = 0
NOT_AS_EXPECTED: Final = 1
USAGE: Final = 2  # or the environment: nothing was asked of a guest
NOT_COMPARED: Final = 3  # the other run says nothing of it
CANNOT_TELL: Final = 125  # git bisect skips such a commit
INTERRUPTED: Final = 130  # by SIGINT; 128 and its number for another signal

TABLE: Final[Mapping[int, str]] = {
    OK: "as expected",
    NOT_AS_EXPECTED: "not as expected",
    USAGE: "usage or environment",
    NOT_COMPARED: "not compared",
    CANNOT_TELL: "cannot be told",
    INTERRUPTED: "interrupted",
}
"""Each in a few words."""

_WORST_FIRST: Final = (INTERRUPTED, NOT_AS_EXPECTED, USAGE, CANNOT_TELL, NOT_COMPARED, OK)
_OF_OUTCOME: Final = {"failed": NOT_AS_EXPECTED, "error": CANNOT_TELL}


def of_outcome(outcome: str) -> int:
    """The code of a case or test that ended as "passed", "failed", "error" or "skipped"."""
    return _OF_OUTCOME.get(outcome, OK)


def worst(codes: Iterable[int]) -> int:
    """The code of all together: what is known to be wrong comes before what is not known."""
    return min(codes, key=_WORST_FIRST.index, default=OK)
