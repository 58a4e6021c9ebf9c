"""Reports for KCIDB, validated by its own library; and annotations of a GitHub job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kcidb_io
import pytest

from bootproof.harness import cli
from bootproof.harness.report import job_annotations, kcidb
from bootproof.harness.results import results
from bootproof.harness.results.results import Check, Results
from tests.builders import results as builder
from tests.builders.results import HOSTILE


def statuses(report: dict[str, Any]) -> dict[str, str]:
    return {test["path"]: test["status"] for test in report["tests"]}


def valid(report: dict[str, Any]) -> dict[str, Any]:
    assert kcidb_io.schema.LATEST.is_compatible(report)
    kcidb_io.schema.LATEST.validate(json.loads(json.dumps(report)))
    return report


def mixed() -> Results:
    return builder.run(
        builder.case(),
        builder.failed(),
        builder.tested(),
        builder.case("host", verdict="inconclusive", problem="it was stopped", instructions=None),
        builder.case("qemu", verdict="qemu-failed", problem="no such CPU", key=None),
    )


def test_every_end_has_its_status() -> None:
    """What says nothing of the guest is no failure of it."""
    report = valid(kcidb.render(mixed(), "bootproof_ci"))
    assert statuses(report) == {
        "bootproof.x86_64.elf-pvh-none": "PASS",
        "bootproof.x86_64.elf-linux64-none": "FAIL",
        "bootproof.x86_64.elf-pvh-tests": "FAIL",
        "bootproof.x86_64.elf-pvh-tests.suite.one": "PASS",
        "bootproof.x86_64.elf-pvh-tests.suite.two": "FAIL",
        "bootproof.x86_64.elf-pvh-tests.suite.three": "SKIP",
        "bootproof.x86_64.elf-pvh-tests.four": "DONE",
        "bootproof.x86_64.host": "ERROR",
        "bootproof.x86_64.qemu": "MISS",
    }
    (build,) = report["builds"]
    assert {test["build_id"] for test in report["tests"]} == {build["id"]}
    assert build["checkout_id"] == report["checkouts"][0]["id"]


def test_the_same_run_is_the_same_report() -> None:
    assert kcidb.render(mixed(), "a") == kcidb.render(mixed(), "a")
    ids = [test["id"] for test in kcidb.render(mixed(), "a")["tests"]]
    assert len(set(ids)) == len(ids)


def test_a_build_that_is_known() -> None:
    report = valid(kcidb.render(mixed(), "mine", "maestro:65a1b2"))
    assert report.keys() == {"version", "tests"}
    assert {test["build_id"] for test in report["tests"]} == {"maestro:65a1b2"}


def test_nothing_that_a_guest_says_makes_it_invalid() -> None:
    case = builder.tested(problem=HOSTILE, claim=HOSTILE, reason=HOSTILE)
    valid(kcidb.render(builder.run(case), "a"))
    long = builder.case(transcript=results.transcript(b"x" * 50_000))
    valid(kcidb.render(builder.run(long), "a"))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results.write(mixed(), tmp_path / "results.json")
    words = ["report", str(tmp_path), "--kcidb"]
    assert cli.main([*words, str(tmp_path / "k.json"), "--origin", "mine"]) == 0
    assert cli.main([*words, "-", "--origin", "mine"]) == 0
    assert capsys.readouterr().out == (tmp_path / "k.json").read_text()
    valid(json.loads((tmp_path / "k.json").read_text()))
    for more, told in (
        ((), "Name your CI system with --origin"),
        (("--origin", "A b"), "is no name of a CI system"),
        (("--origin", "a", "--build", "x"), "is no identifier of a build"),
    ):
        assert cli.main([*words, "-", *more]) == 2
        assert told in capsys.readouterr().err
    assert cli.main(["report", str(tmp_path), "--origin", "a"]) == 2


# --- annotations ---------------------------------------------------------------------------------


def test_a_line_for_each_kind_of_failure() -> None:
    alike = [builder.failed(), builder.failed("elf-pvh-+2M")]
    run = builder.run(*alike, builder.tested(), checks=(Check("a: b", "error", "x\ny", 1.0),))
    lines = job_annotations.render(run).splitlines()
    assert [line.partition("::")[2].partition("::")[0] for line in lines] == [
        f"error title=2 cases%3A {alike[0].case}%2C …",
        f"error title={builder.tested().case}",
        "warning title=a%3A b",
    ]
    assert "test failed: suite / two" in lines[1] and "%0A" in lines[1]


def test_no_text_becomes_another_command() -> None:
    hurt = "a%0A::error::x\n::set-output name=a::b\r::stop-commands::c"
    text = job_annotations.render(builder.run(builder.failed(problem=hurt)))
    assert text.count("\n") == 1 and "\r" not in text
    assert "a%250A" in text


def test_a_step_shows_ten() -> None:
    cases = [builder.failed(f"c{n}", problem=f"panic {'x' * n}") for n in range(30)]
    assert job_annotations.render(builder.run(*cases)).count("::error ") == 10
    assert job_annotations.render(builder.run(builder.case())) == ""
