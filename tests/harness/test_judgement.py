"""Whether a case ended as it had to: a line of a table for each thing that can be expected."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from bootproof.harness.case import Expectation
from bootproof.harness.judgement import CaseEnd, judge_case
from bootproof.harness.verdict import Verdict
from bootproof.loader.result import PvhState

BOOTED = CaseEnd(Verdict.BOOTED, "it proved its boot", None, PvhState.PRESENT, "pvh")
COMPLAINED = replace(BOOTED, complaint="WARNING: CPU: 0")
REFUSED = CaseEnd(Verdict.LOAD_REFUSED, "the segment ends beyond RAM", "Elf::Overflow")


@pytest.mark.parametrize(
    ("expected", "end", "problem"),
    [
        ({}, BOOTED, None),
        (
            {},
            CaseEnd(Verdict.PANIC, "kernel panic: no root"),
            "panic instead of booted: kernel panic: no root",
        ),
        ({"pvh": PvhState.PRESENT, "protocol": "pvh", "reason": "proved"}, BOOTED, None),
        ({}, COMPLAINED, "the kernel complained: WARNING: CPU: 0"),
        (  # a panic that must come is no complaint
            {"verdict": Verdict.PANIC},
            CaseEnd(Verdict.PANIC, "kernel panic: no root", complaint="Kernel panic"),
            None,
        ),
        ({"pvh": PvhState.IGNORED}, BOOTED, "the PVH capability is present, not ignored"),
        ({"protocol": "linux64"}, BOOTED, "the protocol taken is pvh, not linux64"),
        (
            {"reason": "release 6"},
            BOOTED,
            "the reason does not say 'release 6': it proved its boot",
        ),
        ({"verdict": Verdict.LOAD_REFUSED}, REFUSED, None),
        ({"verdict": Verdict.LOAD_REFUSED, "code": "Elf::Overflow"}, REFUSED, None),
        (
            {"verdict": Verdict.LOAD_REFUSED, "code": "Elf::BadEntry"},
            REFUSED,
            "refused with Elf::Overflow instead of Elf::BadEntry: the segment ends beyond RAM",
        ),
        # Nothing was loaded, so there is nothing to hold these against.
        (
            {"verdict": Verdict.LOAD_REFUSED, "pvh": PvhState.IGNORED, "protocol": "pvh"},
            REFUSED,
            None,
        ),
    ],
)
def test_problem(expected: dict[str, Any], end: CaseEnd, problem: str | None) -> None:
    assert judge_case(Expectation(**expected), end) == problem


def test_all_that_can_be_expected_is_judged() -> None:
    """A new field of Expectation needs a line above, and then a name here."""
    assert {field.name for field in fields(Expectation)} == {
        *("verdict", "pvh", "protocol", "code", "reason", "why"),
    }


def test_what_passes() -> None:
    passed = [verdict for verdict in Verdict if verdict.passed]
    assert passed == [Verdict.BOOTED, Verdict.HANDED_OVER]
