"""What other programs read: junit.xml, KTAP, the step summary of a job; and the terminal's grid."""

from __future__ import annotations

import html
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import xmlschema

from bootproof.harness.report import failure, files, junit, ktap, step_summary, terminal
from bootproof.harness.results import changes, results
from bootproof.harness.results.results import CaseResult, Check, Results
from tests.builders import results as builder

SCHEMA = xmlschema.XMLSchema(str(Path(__file__).with_name("junit.xsd")))
HOSTILE = "]]>\x00\x1b[2J\ufffe</failure>&<b>```\n| a | b |\n# h\n\ud7ff"
WRONG = "x86_64-6.1-elf-linux64-none"
CHECKS = (
    Check("test_a.py::test_ok", "passed", "", 0.5),
    Check("test_a.py::test_no", "failed", "AssertionError: one\nline two", 0.5),
    Check("test_a.py::test_broken", "error", "no QEMU", 0.0),
    Check("test_a.py::test_skipped", "skipped", "no compiler", 0.0),
)


def run(**others: Any) -> Results:
    log = results.transcript(b"\x1b[31mred\x1b[0m\r\nbroken \xff\r\n")
    return builder.run(
        builder.case(),
        builder.failed(transcript=log, **others),
        builder.refused(kernel="6.12"),
        checks=CHECKS,
    )


# --- JUnit -------------------------------------------------------------------------------------


def test_junit_follows_the_schema_of_its_readers() -> None:
    text = junit.render(run())
    SCHEMA.validate(text)
    root = ET.fromstring(text)
    assert {name: root.get(name) for name in ("tests", "failures", "errors")} == {
        "tests": "7",
        "failures": "2",
        "errors": "1",
    }
    suites = {suite.get("name"): suite for suite in root}
    assert list(suites) == ["x86_64.6.1", "x86_64.6.12", "other tests"]
    facts = {p.get("name"): p.get("value") for p in suites["x86_64.6.1"].iter("property")}
    assert facts["elf-pvh-none.verdict"] == "booted"
    assert facts["elf-pvh-none.instructions"] == "1300000000"
    (failure,) = suites["x86_64.6.1"].iter("failure")
    assert failure.get("type") == "panic"
    assert "Unable to mount root fs" in (failure.get("message") or "")
    assert "  | \\x1b[31mred" in (failure.text or "") and "reproduce: " in (failure.text or "")
    assert [test.get("message") for test in root.iter("skipped")] == ["no compiler"]


def test_junit_of_hostile_text() -> None:
    text = junit.render(
        run(reason=HOSTILE, problem=HOSTILE, claim=HOSTILE, reproduce=HOSTILE, code=HOSTILE)
    )
    SCHEMA.validate(text)
    failure = next(ET.fromstring(text).iter("failure"))
    assert "]]>[2J</failure>&<b>" in (failure.get("message") or "")


def test_junit_of_nothing() -> None:
    SCHEMA.validate(junit.render(builder.run()))


# --- KTAP --------------------------------------------------------------------------------------

# As Documentation/dev-tools/ktap.rst has it.
_RESULT = re.compile(r"(ok|not ok) ([0-9]+) ([^#]*)( # (SKIP|ERROR|TIMEOUT|XFAIL)?.*)?")


def test_ktap() -> None:
    found = run()
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


# --- step summary ------------------------------------------------------------------------------


def test_step_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("what another step said\n")
    monkeypatch.setenv(files.STEP_SUMMARY, str(summary))
    files.write(run(), tmp_path / "out")
    text = summary.read_text()
    assert text.startswith("what another step said\n## bootproof: ✗ 3 not as expected\n")
    assert "| elf\\-linux64\\-none | ✗ **not as expected** panic 1.2 s |" in text
    assert "\\x1b[31mred" in text


def test_no_step_summary_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(files.STEP_SUMMARY, raising=False)
    written = files.write(run(), tmp_path)
    assert sorted(path.name for path in written) == ["junit.xml", "report.html", "results.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(p.name for p in written)


def test_step_summary_of_hostile_text() -> None:
    fences = "x\n```\n<b>\n````\n<b>"
    text = step_summary.render(run(problem=HOSTILE, reproduce=fences, claim=HOSTILE))
    outside = re.sub(r"^(`{3,})text\n.*?^\1$", "", text, flags=re.M | re.S)
    assert "<b>" not in outside and "\n# h" not in outside
    rows = [line for line in outside.splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 4 for row in rows)


def test_step_summary_has_an_end() -> None:
    log = results.transcript(b"x" * 3000 + b"\n")
    cases = [builder.failed(f"c{number}", transcript=log) for number in range(1000)]
    text = step_summary.render(builder.run(*cases))
    assert len(text.encode()) < 1 << 20
    assert text.endswith("… and more, in report.html\n")


# --- a baseline --------------------------------------------------------------------------------


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
    assert "All 1 cases as expected" not in told["report.html"]
    assert ET.fromstring(told["junit.xml"].encode()).get("failures") == "1"
    assert told["ktap"].splitlines()[-1].startswith("not ok 1 a test # regressed")
    assert "## bootproof: ✗ 1 not as expected" in told["summary.md"]
    assert told["terminal"].splitlines()[-1].startswith("0 of 1 cases as expected")
    assert "FAILED booted" in told["line"]
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
    assert "1 not as expected" in told["report.html"]


def test_what_is_new_gone_or_better_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = builder.run(builder.case(), builder.case("new"))
    before = builder.run(builder.failed(builder.case().claim), builder.case("gone"))
    told = outputs(now, before, tmp_path, monkeypatch)
    assert "All 2 cases as expected" in told["report.html"]
    assert told["ktap"].startswith("ok 1")


# --- terminal ----------------------------------------------------------------------------------


def test_grid() -> None:
    text = terminal.grid(run())
    lines = [line.split() for line in text.splitlines() if line.strip()]
    assert lines[:2] == [["x86_64"], ["case", "6.1", "6.12"]]
    assert lines[2] == ["elf-linux64-+1M", "load-refused", "1.2s"]
    assert lines[3] == ["elf-linux64-none", "✗", "panic", "1.2s", "(not", "as", "expected)"]


@pytest.mark.parametrize("table", [terminal.grid, step_summary.render])
def test_columns_have_one_order_whatever_ended_first(table: Callable[[Results], str]) -> None:
    kernels = ["newest-cloud", "6.12-cloud", "5.10", "6.1-cloud"]
    text = table(builder.run(*(builder.case(kernel=kernel) for kernel in kernels)))
    (heading,) = (line for line in text.replace("\\", "").splitlines() if "6.12-cloud" in line)
    assert heading.replace("|", "").split() == ["case", "5.10", "6.1-cloud", *kernels[1::-1]]


def test_colour_only_repeats_what_the_text_says() -> None:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", terminal.grid(run(), colour=True))
    assert plain == terminal.grid(run())
    assert "\x1b" in terminal.grid(run(), colour=True)
    assert "\x1b" not in terminal.grid(run()) + terminal.failures(run())


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "[ 3/12] ok     booted                  1.2 s x86_64-6.1-elf-pvh-none"),
        (1, f"[ 3/12] FAILED panic                   1.2 s {WRONG}   NOT AS EXPECTED (booted)"),
        (4, "[ 3/12] FAILED                         0.5 s test_a.py::test_no"),
        (5, "[ 3/12] ERROR                          0.0 s test_a.py::test_broken"),
        (6, "[ 3/12] skip                           0.0 s test_a.py::test_skipped"),
    ],
)
def test_line(number: int, said: str) -> None:
    found = run()
    items: list[CaseResult | Check] = [*found.cases, *found.checks]
    assert terminal.line(items[number], 3, 12) == said


def test_failures_have_all_a_reader_needs() -> None:
    text = terminal.failures(run())
    assert text.splitlines()[1:8] == [
        f"✗ {WRONG}: panic instead of booted: kernel panic: VFS: Unable to mount root fs",
        "last console lines:",
        "  | \\x1b[31mred\\x1b[0m",
        "  | broken \\xff",
        "reproduce: ./bootproof matrix -k x",
        "run directory: build/matrix/x",
        "",
    ]
    assert "✗ test_a.py::test_no: failed\nAssertionError: one\nline two" in text


def test_silent_guest_is_told_of_by_its_log_buffer() -> None:
    silent: dict[str, Any] = {
        "transcript": results.transcript(b""),
        "log": results.transcript(b"a\nlast\n"),
    }
    case = builder.failed(**silent)
    assert "the log buffer in RAM ends:\n  | a\n  | last\n" in junit.render(builder.run(case))
    text = failure.text(case)
    assert text.splitlines()[1:4] == ["the log buffer in RAM ends:", "  | a", "  | last"]


def test_summary() -> None:
    assert terminal.summary(run()) == (
        "2 of 3 cases as expected in 12 s; 1 other test: failed; 1 other test: error;"
        " 1 other test: skipped;"
        " harness time per case besides QEMU: median 0.25 s, at most 0.25 s\n"
    )
    broken = terminal.summary(builder.run(builder.case(), complete=False))
    assert "1 of 1 cases as expected in 12 s, and the run did not come to its end" in broken
