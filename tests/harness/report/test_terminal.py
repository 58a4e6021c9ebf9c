"""Results on a terminal: the grid, the lines, failures in full."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import pytest

from bootproof.harness.report import step_summary, terminal
from bootproof.harness.results.results import CaseResult, Check, Results
from tests.builders import results as builder

WRONG = "x86_64-6.1-elf-linux64-none"
INSTEAD = "   NOT AS EXPECTED (instead of booted)"


def test_grid() -> None:
    text = terminal.grid(builder.mixed())
    lines = [line.split() for line in text.splitlines() if line.strip()]
    assert lines[:2] == [["x86_64"], ["case", "6.1", "6.12"]]
    assert lines[2] == ["elf-linux64-+1M", "load-refused", "1.2s"]
    assert lines[3] == ["elf-linux64-none", "✗", "panic", "1.2s"]


def test_names_that_are_too_long_are_folded_and_no_verdict_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    kernels = [f"{number}{'-long' * 12}" for number in range(2)]
    ends = [builder.unknown("elf-" + 20 * "long-", kernel) for kernel in kernels]
    text = re.sub(r"\x1b\[[0-9;]*m", "", terminal.grid(builder.run(*ends), colour=True))
    assert text.count("inconclusive") == 2
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text


@pytest.mark.parametrize("table", [terminal.grid, step_summary.render])
def test_columns_have_one_order_whatever_ended_first(table: Callable[[Results], str]) -> None:
    kernels = ["newest-cloud", "6.12-cloud", "5.10", "6.1-cloud"]
    text = table(builder.run(*(builder.case(kernel=kernel) for kernel in kernels)))
    (heading,) = (line for line in text.replace("\\", "").splitlines() if "6.12-cloud" in line)
    assert heading.replace("|", "").split() == ["case", "5.10", "6.1-cloud", *kernels[1::-1]]


@pytest.mark.parametrize("table", [terminal.grid, step_summary.render])
def test_rows_are_in_the_order_of_their_numbers(table: Callable[[Results], str]) -> None:
    claims = [
        *(
            "bzimage-at16M",
            "bzimage-at32M",
            "bzimage-at256M",
            "bzimage-at1G",
            "bzimage-at0xfff00000",
        ),
        *(
            "elf-+0",
            "elf-+4K",
            "elf-+2M",
            "elf-+10M",
            "elf-+10M-smp2",
            "elf-+10M-smp16",
            "elf-none",
        ),
    ]
    text = table(builder.run(*map(builder.case, reversed(claims)))).replace("\\", "")
    words = [line.replace("|", "").split() for line in text.splitlines()]
    assert [row[0] for row in words if row and row[0] in claims] == claims


def test_colour_only_repeats_what_the_text_says() -> None:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", terminal.grid(builder.mixed(), colour=True))
    assert plain == terminal.grid(builder.mixed())
    assert "\x1b" in terminal.grid(builder.mixed(), colour=True)
    assert "\x1b" not in terminal.grid(builder.mixed()) + terminal.failures(builder.mixed())


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "[ 3/12] ok     booted                  1.2 s x86_64-6.1-elf-pvh-none"),
        (1, f"[ 3/12] FAILED panic                   1.2 s {WRONG}{INSTEAD}"),
        (4, "[ 3/12] FAILED                         0.5 s test_a.py::test_no"),
        (5, "[ 3/12] ERROR                          0.0 s test_a.py::test_broken"),
        (6, "[ 3/12] skip                           0.0 s test_a.py::test_skipped"),
    ],
)
def test_line(number: int, said: str) -> None:
    found = builder.mixed()
    items: list[CaseResult | Check] = [*found.cases, *found.checks]
    assert terminal.line(items[number], 3, 12) == said


def test_failures_have_all_a_reader_needs() -> None:
    text = terminal.failures(builder.mixed())
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


def test_summary() -> None:
    assert terminal.summary(builder.mixed()) == (
        "2 of 3 cases and 1 of 3 other tests as expected in 12 s:"
        " 2 not as expected, 1 cannot be told; 1 skipped;"
        " harness time per case besides QEMU: median 0.25 s, at most 0.25 s;"
        " QEMU: 1.8 s of CPU time, 2.6 G instructions\n"
    )
    broken = terminal.summary(builder.run(builder.case(), complete=False))
    assert "1 of 1 cases as expected in 12 s, and the run did not come to its end" in broken


def test_summary_of_other_tests_alone() -> None:
    found = builder.run(checks=(Check("test_a.py::test_ok", "passed", "", 0.5),) * 6)
    assert terminal.summary(found) == "6 of 6 tests as expected in 12 s\n"
    assert found.headline == "All 6 tests as expected"
    assert builder.run(checks=found.checks[:1]).headline == "1 test as expected"


def test_what_cannot_be_told_is_no_failure() -> None:
    unknown = builder.unknown()
    assert terminal.line(unknown, 3, 12) == (
        f"[ 3/12] ERROR  inconclusive            1.2 s {WRONG}   CANNOT BE TOLD (instead of booted)"
    )
    assert "? inconclusive 1.2s" in terminal.grid(builder.run(unknown))
    assert f"? {WRONG}: inconclusive instead" in terminal.failures(builder.run(unknown))
    assert "inconclusive 1.2 s" in step_summary.render(builder.run(unknown)).replace("\\", "")
    assert "? **cannot be told**" in step_summary.render(builder.run(unknown))


@pytest.mark.parametrize("colour", [False, True])
def test_no_line_ends_in_blanks(colour: bool) -> None:
    """They would be lines of their own on a terminal that is narrower than the table."""
    told = terminal.grid(builder.mixed(), colour=colour)
    assert colour == ("\x1b[" in told)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in told.splitlines()]
    assert [line for line in lines if line.endswith(" ")] == []


KERNELS: Final = [f"{number}-cloud-amd64" for number in range(12)]


def test_a_log_has_the_grid_in_whole_lines() -> None:
    """However many kernels there are: who looks for a word finds its case and its kernel."""
    heading, row = terminal.grid(of_many()).splitlines()[1:]
    assert heading.split()[1:] == KERNELS
    assert row.count("load-refused 1.2s") == len(KERNELS)


@pytest.mark.parametrize(("columns", "width"), [(80, 80), (20, 60), (300, 118), (0, 118)])
def test_a_narrow_terminal_has_a_narrow_grid(
    columns: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all of its words."""
    monkeypatch.setenv("COLUMNS", str(columns))
    told = re.sub(r"\x1b\[[0-9;]*m", "", terminal.grid(of_many(3), colour=True))
    assert max(map(len, told.splitlines())) <= width
    assert told.count("load-refused") == 3
    assert "…" not in told


def of_many(count: int = len(KERNELS)) -> Results:
    return builder.run(*(builder.refused(kernel=kernel) for kernel in KERNELS[:count]))
