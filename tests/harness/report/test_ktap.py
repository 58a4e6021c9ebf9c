"""KTAP as the kernel's tools read it."""

from __future__ import annotations

import re

from bootproof.harness.guest import tap
from bootproof.harness.report import ktap
from bootproof.harness.results.results import CaseResult, Check
from tests.builders import results as builder

# As Documentation/dev-tools/ktap.rst has it.
_RESULT = re.compile(r"(ok|not ok) ([0-9]+) ([^#]*)( # (SKIP|ERROR|TIMEOUT|XFAIL)?.*)?")


def test_ktap() -> None:
    found = builder.mixed()
    items: list[CaseResult | Check] = [*found.cases, *found.checks]
    lines = ktap.header(len(items)).splitlines()
    assert lines == ["KTAP version 1", "1..7"]
    for number, item in enumerate(items, 1):
        name = item.case if isinstance(item, CaseResult) else item.name
        lines += ktap.result(number, name, [item]).splitlines()
    told = [line for line in lines[2:] if not line.startswith("# ")]
    assert all(_RESULT.fullmatch(line) for line in told)
    assert told[0] == "ok 1 x86_64-6.1-elf-pvh-none # booted"
    assert told[1].startswith("not ok 2 x86_64-6.1-elf-linux64-none # panic instead of booted: ")
    assert told[3:] == [
        "ok 4 test_a.py::test_ok # passed",
        "not ok 5 test_a.py::test_no # failed AssertionError: one",
        "not ok 6 test_a.py::test_broken # ERROR no QEMU",
        "ok 7 test_a.py::test_skipped # SKIP no compiler",
    ]
    assert "#   | \\x1b[31mred\\x1b[0m" in lines


def test_ktap_of_hostile_text() -> None:
    text = ktap.result(1, "a # SKIP\nok 2 b", [builder.failed(problem="x\nok 2 y # SKIP")])
    assert text.splitlines()[-1].startswith("not ok 1 a _ SKIP")
    assert sum(line.startswith(("ok", "not ok")) for line in text.splitlines()) == 1


def test_ktap_of_a_test_that_came_to_no_result() -> None:
    assert ktap.result(3, "a", []) == "not ok 3 a # ERROR no result"


def test_tests_in_a_guest_are_nested_in_its_own() -> None:
    """As the kernel's tools, and our own reader, take them."""
    case = builder.tested()
    text = f"{ktap.header(1)}\n{ktap.result(1, case.name, [case])}\n"
    lines = text.splitlines()
    assert lines[-7:-1] == [
        "  KTAP version 1",
        "  1..4",
        "  ok 1 suite / one",
        "  not ok 2 suite / two # EXPECTATION FAILED at x.c:1",
        "  ok 3 suite / three # SKIP no RTC",
        "  not ok 4 four # XFAIL",
    ]
    assert lines[-1].startswith(f"not ok 1 {case.name} # tests-failed instead of booted")
    read = [test for test in tap.read(text) if test.failed]
    assert [test.name for test in read] == [f"{case.name} / suite / two"]
