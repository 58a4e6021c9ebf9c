"""Exit codes: each means one thing, and nothing that cannot be told is a failure."""

from __future__ import annotations

import re
from itertools import permutations

import pytest

from bootproof.harness import exitcode
from bootproof.harness.judgement import came_to
from bootproof.harness.verdict import Verdict
from tests import ROOT
from tests.builders.processes import python

_ENDS = """
import atexit, sys, threading, time
class Left:
    def __del__(self):
        print("was taken apart")
def work():
    atexit.register(print, "handler")
    threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
    print("work")
    return 3
left = Left()
if "before" in sys.argv:
    atexit.register(print, "before")
from bootproof.harness import cli
cli.main = work
cli.program()
"""
TABLE = re.compile(r"^\| `(\d+)` \| ([^|]+) \|", re.M)


@pytest.mark.parametrize("verdict", Verdict)
def test_code_of_each_verdict(verdict: Verdict) -> None:
    """git bisect takes 1 to 124 as bad: what says nothing of the guest is none of them."""
    assert exitcode.of_outcome(came_to(verdict.value, None)) == 0
    code = exitcode.of_outcome(came_to(verdict.value, "it is not as expected"))
    nobody_knows = ("inconclusive", "qemu-failed", "interrupted")
    assert code == (125 if verdict.value in nobody_knows else 1)


def test_the_worst_code_is_that_of_all() -> None:
    """What is known to be wrong comes before what is not known, in any order."""
    assert exitcode.worst([]) == 0
    for codes in permutations(exitcode.TABLE, 3):
        expected = next(code for code in (130, 1, 2, 125, 3, 0) if code in codes)
        assert exitcode.worst(codes) == expected


def test_the_pages_have_one_table_of_them() -> None:
    page = (ROOT / "docs" / "ci.md").read_text()
    assert {int(code): said.strip() for code, said in TABLE.findall(page)} == dict(exitcode.TABLE)


@pytest.mark.parametrize(
    ("words", "last"), [((), ["handler"]), (("before",), ["handler", "before", "was taken apart"])]
)
def test_a_process_ends_with_its_code_and_loses_nothing(
    words: tuple[str, ...], last: list[str]
) -> None:
    """Not before what others have registered was done, whoever was first."""
    done = python("-P", "-c", _ENDS, *words)
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.splitlines() == ["work", "thread", *last]
