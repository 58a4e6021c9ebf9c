"""`bootproof history`: the runs below a directory, and what lies beside them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from bootproof.harness import cli
from bootproof.harness.results.results import Kernel
from tests.builders import results as builder

Capture = pytest.CaptureFixture[str]


def test_history(tmp_path: Path, capsys: Capture) -> None:
    for day, count in enumerate((1_300_000_000, 1_310_000_000, 1_400_000_000), 1):
        case = builder.case(instructions=count)
        started = f"2026-02-0{day}T00:00:00Z"
        builder.saved(
            tmp_path / str(day) / "results.json", case, builder.refused(), started=started
        )
    wrong = builder.failed(builder.case().claim, instructions=900_000_000)
    builder.saved(tmp_path / "4" / "results.json", wrong, started="2026-02-04T00:00:00Z")
    assert cli.main(["history", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "4 runs from 2026-02-01T00:00:00Z to 2026-02-04T00:00:00Z"
    assert [line.split() for line in lines[1:3]] == [
        ["x86_64-6.1-elf-linux64-+1M", "···", "load-refused", "ok"],
        [*("x86_64-6.1-elf-pvh-none", "▇▇█✗", "panic", "-30.77%"), "NOT", "AS", "EXPECTED"],
    ]
    page = (tmp_path / "history.html").read_text()
    assert page.count("<circle") == 3 and page.count('class="cross"') == 1
    assert "<script" not in page
    assert "<p>900.0 M to 1,400.0 M instructions</p>" in page
    assert "<p>no instructions counted</p>" in page  # of several CPUs some boots have none


def test_a_count_that_stays_is_no_range(tmp_path: Path) -> None:
    for day in (1, 2):
        started = f"2026-02-0{day}T00:00:00Z"
        builder.saved(tmp_path / str(day) / "results.json", builder.case(), started=started)
    assert cli.main(["history", str(tmp_path)]) == 0
    assert "<p>1,300.0 M instructions</p>" in (tmp_path / "history.html").read_text()


def test_a_case_that_was_refused_once_breaks_no_count(tmp_path: Path, capsys: Capture) -> None:
    once = builder.refused(builder.case().claim)
    for day, case in enumerate((builder.case(), once, builder.case(instructions=1_313_000_000))):
        started = f"2026-02-0{day + 1}T00:00:00Z"
        builder.saved(tmp_path / str(day) / "results.json", case, started=started)
    assert cli.main(["history", str(tmp_path)]) == 0
    assert "+1.00%" in capsys.readouterr().out


def test_history_goes_on_with_the_next_version(tmp_path: Path, capsys: Capture) -> None:
    """A kernel that only has the name of its file is the same in another version."""
    for day, count in enumerate((1_300_000_000, 1_313_000_000), 1):
        name = f"vmlinuz-6.1.0-{day}-amd64"
        case = builder.case(kernel=name, instructions=count)
        case = replace(case, kernel=Kernel(name, "ab" * 32, None, "vmlinuz-*-amd64"))
        started = f"2026-02-0{day}T00:00:00Z"
        builder.saved(tmp_path / str(day) / "results.json", case, started=started)
    assert cli.main(["history", str(tmp_path)]) == 0
    (line,) = capsys.readouterr().out.splitlines()[1:2]
    assert line.split() == [
        "x86_64-vmlinuz-6.1.0-2-amd64-elf-pvh-none",
        "▁█",
        "booted",
        "+1.00%",
        "ok",
    ]


def test_history_of_one_run_of_own_kernels(tmp_path: Path, capsys: Capture) -> None:
    """The cases that it made are beside its results."""
    builder.saved(tmp_path / "results.json", builder.case())
    (tmp_path / "generated.cases.json").write_text('{"version": 1, "cases": []}')
    assert cli.main(["history", str(tmp_path)]) == 0
    assert capsys.readouterr().err == ""


def test_history_of_nothing(tmp_path: Path, capsys: Capture) -> None:
    assert cli.main(["history", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"bootproof: {tmp_path}: holds no results.json\n"
    assert cli.main(["history", str(tmp_path / "none")]) == 2


def test_history_beside_files_of_other_programs(tmp_path: Path, capsys: Capture) -> None:
    """They are left out, and said; a damaged file of results is not left out."""
    (tmp_path / "package.json").write_text("{}")
    assert cli.main(["history", str(tmp_path)]) == 2
    left_out = f"bootproof: {tmp_path}/package.json: left out, it is another program's file\n"
    assert capsys.readouterr().err == f"{left_out}bootproof: {tmp_path}: holds no results.json\n"

    builder.saved(tmp_path / "monday.json", builder.case())
    assert cli.main(["history", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("1 run") and shown.err == left_out

    (tmp_path / "tuesday.json").write_bytes((tmp_path / "monday.json").read_bytes()[:-9])
    assert cli.main(["history", str(tmp_path)]) == 2
    assert f"{tmp_path}/tuesday.json: no results that can be read" in capsys.readouterr().err


def test_history_breaks_where_qemu_changed(tmp_path: Path) -> None:
    for day, key in enumerate((builder.KEY, builder.KEY_OF_ANOTHER_QEMU), 1):
        started = f"2026-02-0{day}T00:00:00Z"
        builder.saved(tmp_path / str(day) / "results.json", builder.case(key=key), started=started)
    assert cli.main(["history", str(tmp_path)]) == 0
    assert "<polyline" not in (tmp_path / "history.html").read_text()


def test_history_beside_what_cannot_be_read(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line about all of it. Not even root can list a directory whose name is too long."""
    builder.saved(tmp_path / "a" / "results.json", builder.case())
    monkeypatch.chdir(tmp_path)
    for _ in range(20):
        Path("d" * 250).mkdir()
        os.chdir("d" * 250)
    assert cli.main(["history", str(tmp_path)]) == 0
    said = capsys.readouterr().err
    assert said.startswith(f"bootproof: 1 directory could not be read: {tmp_path}/dddd")
    assert said.endswith("d: File name too long\n")
