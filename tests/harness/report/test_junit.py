"""junit.xml: the schema of its readers, and text that would break it."""

from __future__ import annotations

import functools
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bootproof.harness.report import junit
from bootproof.harness.results.results import Results
from tests.builders import results as builder
from tests.builders.results import HOSTILE

if TYPE_CHECKING:
    from xmlschema import XMLSchema


@functools.cache
def schema() -> XMLSchema:
    from xmlschema import XMLSchema  # by no worker that has none of these tests

    return XMLSchema(str(Path(__file__).with_name("junit.xsd")))


def test_junit_follows_the_schema_of_its_readers() -> None:
    text = junit.render(builder.mixed())
    schema().validate(text)
    root = ET.fromstring(text)
    assert {name: root.get(name) for name in ("tests", "failures", "errors")} == {
        "tests": "7",
        "failures": "2",
        "errors": "1",
    }
    suites = {suite.get("name"): suite for suite in root}
    assert list(suites) == ["x86_64.6.1", "x86_64.6.12", "other tests"]
    facts = {p.get("name"): p.get("value") for p in suites["x86_64.6.1"].iter("property")}
    of_run = {"kernel": "6.1", "kernel.sha256": "ab" * 32, "kernel.release": "6.1.0-amd64"}
    assert facts.items() >= (of_run | {"qemu": "7.2.22"}).items()
    case = "elf-pvh-none."
    assert {name: value for name, value in facts.items() if (name or "").startswith(case)} == {
        f"{case}verdict": "booted",
        f"{case}protocol": "pvh",
        f"{case}instructions": "1300000000",
        f"{case}cpu-seconds": "0.9",
        f"{case}boot-image": "11" * 32,
        f"{case}deterministic": "true",
        f"{case}proof": "cd" * 32,
        f"{case}evidence.release": "6.1.0",
        f"{case}evidence.ram": "00001000-0009fbff; 00100000-1fffffff",
    }
    (failure,) = suites["x86_64.6.1"].iter("failure")
    assert failure.get("type") == "panic"
    assert "Unable to mount root fs" in (failure.get("message") or "")
    assert "  | \\x1b[31mred" in (failure.text or "") and "reproduce: " in (failure.text or "")
    assert [test.get("message") for test in root.iter("skipped")] == ["no compiler"]


def test_junit_of_hostile_text() -> None:
    text = junit.render(
        builder.mixed(
            reason=HOSTILE,
            problem=HOSTILE,
            claim=HOSTILE,
            reproduce=HOSTILE,
            code=HOSTILE,
        )
    )
    schema().validate(text)
    failure = next(ET.fromstring(text).iter("failure"))
    assert "]]>[2J</failure>&<b>" in (failure.get("message") or "")


def test_what_cannot_be_told_is_an_error() -> None:
    text = junit.render(builder.run(builder.case(), builder.unknown()))
    schema().validate(text)
    root = ET.fromstring(text)
    assert (root.get("failures"), root.get("errors")) == ("0", "1")
    (error,) = root.iter("error")
    assert error.get("type") == "inconclusive"


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (builder.run(), "nothing was run"),
        (builder.run(builder.case(), complete=False), "not complete"),
    ],
)
def test_what_was_not_run_is_an_error(run: Results, said: str) -> None:
    """For readers that know nothing but tests and their ends."""
    text = junit.render(run)
    schema().validate(text)
    root = ET.fromstring(text)
    assert (root.get("failures"), root.get("errors")) == ("0", "1")
    assert [error.get("message") for error in root.iter("error")] == [said]


def test_tests_in_a_guest_are_tests_of_their_own() -> None:
    text = junit.render(builder.run(builder.tested()))
    schema().validate(text)
    root = ET.fromstring(text)
    counts = {name: root.get(name) for name in ("tests", "failures", "errors")}
    assert counts == {"tests": "5", "failures": "2", "errors": "0"}
    assert {test.get("name"): [child.tag for child in test] for test in root.iter("testcase")} == {
        "elf-pvh-tests": ["failure", "system-out"],
        "suite / one": [],
        "suite / two": ["failure"],
        "suite / three": ["skipped"],
        "four": ["skipped"],
    }
    failed = next(t for t in root.iter("testcase") if t.get("name") == "suite / two")
    assert failed.get("classname") == "bootproof.x86_64.6.1.elf-pvh-tests"
    assert failed[0].get("message") == "EXPECTATION FAILED at x.c:1"
