"""The Markdown summary of a job."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bootproof.harness.report import files, step_summary
from bootproof.harness.results import results
from tests.builders import results as builder
from tests.builders.results import HOSTILE


def test_step_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("what another step said\n")
    monkeypatch.setenv(files.STEP_SUMMARY, str(summary))
    files.write(builder.mixed(), tmp_path / "out")
    text = summary.read_text()
    assert text.startswith(
        "what another step said\n## bootproof: ✗ 2 not as expected, 1 cannot be told\n"
    )
    assert "| elf\\-linux64\\-none | ✗ **not as expected** panic 1.2 s |" in text
    assert "\\x1b[31mred" in text


def test_no_step_summary_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(files.STEP_SUMMARY, raising=False)
    written = files.write(builder.mixed(), tmp_path)
    assert sorted(path.name for path in written) == ["junit.xml", "report.html", "results.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(p.name for p in written)


def test_step_summary_of_hostile_text() -> None:
    fences = "x\n```\n<b>\n````\n<b>"
    text = step_summary.render(builder.mixed(problem=HOSTILE, reproduce=fences, claim=HOSTILE))
    outside = re.sub(r"^(`{3,})text\n.*?^\1$", "", text, flags=re.M | re.S)
    assert "<b>" not in outside and "\n# h" not in outside
    rows = [line for line in outside.splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 4 for row in rows)


def test_step_summary_has_an_end() -> None:
    log = results.transcript(b"x" * 3000 + b"\n")
    letters = "abcdefghij"
    why = ["".join(letters[int(digit)] for digit in str(number)) for number in range(1000)]
    cases = [
        builder.failed(f"c{n}", transcript=log, problem=reason) for n, reason in enumerate(why)
    ]
    text = step_summary.render(builder.run(*cases))
    assert len(text.encode()) < 1 << 20
    assert text.endswith("… and more, in report.html\n")
