"""All reports of one run: what one of them says, all say."""

from __future__ import annotations

import html
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from bootproof.harness.report import files, ktap, terminal
from bootproof.harness.results import changes, results
from bootproof.harness.results.results import Results
from tests.builders import results as builder


def outputs(
    now: Results, baseline: Results, out: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """All that is shown of a run beside a baseline, by what shows it."""
    monkeypatch.setenv(files.STEP_SUMMARY, str(out / "summary.md"))
    compared = changes.compare(baseline, now)
    files.write(now, out, baseline, compared)
    shown = changes.judged(now, compared)
    return {path.name: path.read_text() for path in out.iterdir()} | {
        "ktap": ktap.result(1, "a test", [*shown.cases, *shown.checks]),
        "terminal": terminal.failures(shown) + terminal.summary(shown),
        "line": terminal.line(shown.cases[0], 1, 1),
    }


def test_a_regression_is_told_by_every_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(builder.KEY, boot_image="22" * 32)
    now = builder.run(builder.case(key=other, instructions=1_400_000_000))
    told = outputs(now, builder.run(builder.case()), tmp_path, monkeypatch)
    figures = "1,300,000,000 -> 1,400,000,000 instructions (+7.69%)"
    for name in ("report.html", "junit.xml", "ktap", "summary.md", "terminal"):
        plain = html.unescape(told[name]).replace("\\", "")
        assert f"regressed since the run before: whole boot: {figures}" in plain, name
    assert "✗</span> 1 not as expected</span>" in told["report.html"]
    assert "1 case as expected" not in told["report.html"]
    assert ET.fromstring(told["junit.xml"].encode()).get("failures") == "1"
    assert told["ktap"].splitlines()[-1].startswith("not ok 1 a test # regressed")
    assert "## bootproof: ✗ 1 not as expected" in told["summary.md"]
    assert told["terminal"].splitlines()[-1].startswith("0 of 1 cases as expected")
    assert "FAILED booted" in told["line"]
    assert told["line"].endswith("   NOT AS EXPECTED (regressed since the run before)")
    # The results are the run as it was: the next run is compared with them.
    assert results.read(tmp_path).cases == now.cases


def test_a_case_that_could_not_be_compared_is_an_error_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = builder.run(builder.case(key=builder.KEY_OF_ANOTHER_QEMU))
    told = outputs(now, builder.run(builder.case()), tmp_path, monkeypatch)
    for name in ("report.html", "junit.xml", "ktap", "summary.md", "terminal"):
        text = html.unescape(told[name]).replace("\\", "")
        assert "the runs cannot be compared: QEMU: 7.2.22 then, 10.0.2 now" in text, name
    root = ET.fromstring(told["junit.xml"].encode())
    assert (root.get("failures"), root.get("errors")) == ("0", "1")
    assert told["ktap"].splitlines()[-1].startswith("not ok 1 a test # ERROR the runs cannot")
    assert "1 cannot be told" in told["report.html"]
    # No test more was run for it.
    assert "1 of 1 cases as expected in 12 s: 1 cannot be told" in told["terminal"]


def test_a_case_that_the_baseline_does_not_have_is_an_error_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = builder.run(builder.case("new"), builder.case())
    told = outputs(now, builder.run(builder.case()), tmp_path, monkeypatch)
    for name in ("report.html", "junit.xml", "ktap", "summary.md", "terminal"):
        text = html.unescape(told[name]).replace("\\", "")
        assert "the run before says nothing of it: no kernel had this case in it" in text, name
    assert ET.fromstring(told["junit.xml"].encode()).get("errors") == "1"
    assert "## bootproof: ✗ 1 cannot be told" in told["summary.md"]


def test_what_cannot_be_told_is_an_error_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a failure of the guest nor, beside a baseline, a regression."""
    now = builder.run(builder.unknown())
    told = outputs(now, builder.run(builder.case(builder.unknown().claim)), tmp_path, monkeypatch)
    root = ET.fromstring(told["junit.xml"].encode())
    assert (root.get("failures"), root.get("errors")) == ("0", "1")
    assert told["ktap"].splitlines()[-1].startswith("not ok 1 a test # ERROR inconclusive")
    assert "## bootproof: ✗ 1 cannot be told" in told["summary.md"]
    assert "✗</span> 1 cannot be told</span>" in told["report.html"]
    assert "Cannot be told: inconclusive instead" in told["report.html"]
    assert "cases as expected in 12 s: 1 cannot be told" in told["terminal"]
    assert "ERROR  inconclusive" in told["line"] and "CANNOT BE TOLD" in told["line"]
    assert "egress" not in told["ktap"] + told["terminal"] + told["junit.xml"]


def test_what_is_gone_or_better_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = builder.run(builder.case())
    before = builder.run(builder.failed(builder.case().claim), builder.case("gone"))
    told = outputs(now, before, tmp_path, monkeypatch)
    assert "1 case as expected" in told["report.html"]
    assert told["ktap"].startswith("ok 1")
