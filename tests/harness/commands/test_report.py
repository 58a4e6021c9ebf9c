"""`bootproof report`: two runs compared, shards merged, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bootproof.harness import cli, exitcode
from bootproof.harness.results import results
from bootproof.harness.results.results import Check
from tests.builders import results as builder

OTHER_IMAGE = replace(builder.KEY, boot_image="22" * 32)
Capture = pytest.CaptureFixture[str]


def test_report_of_two_runs(tmp_path: Path, capsys: Capture) -> None:
    a = builder.saved(tmp_path / "a.json", builder.case())
    b = builder.saved(
        tmp_path / "b.json", builder.case(instructions=1_400_000_000, key=OTHER_IMAGE)
    )
    assert cli.main(["report", a, a]) == 0
    assert capsys.readouterr().out == "1 case compared with the run before: 1 same\n"
    assert cli.main(["report", a, b]) == 1
    assert (
        "whole boot: 1,300,000,000 -> 1,400,000,000 instructions (+7.69%)"
        in capsys.readouterr().out
    )
    assert cli.main(["report", a, b, "--threshold", "10%"]) == 0
    assert cli.main(["report", b, a]) == 0
    assert "+ improved" in capsys.readouterr().out
    c = builder.saved(tmp_path / "c.json", builder.case(key=builder.KEY_OF_ANOTHER_QEMU))
    assert cli.main(["report", a, c]) == exitcode.NOT_COMPARED
    assert "QEMU: 7.2.22 then, 10.0.2 now" in capsys.readouterr().out


def test_report_of_shards(tmp_path: Path, capsys: Capture) -> None:
    for number, name, case in ((1, "one", builder.case("a")), (2, "two", builder.failed("b"))):
        results.write(builder.shard(number, case), tmp_path / name / "results.json")
    shards = [str(tmp_path / name) for name in ("one", "two")]
    out = tmp_path / "all"
    assert cli.main(["report", "--merge", *shards, "--out", str(out)]) == 1
    assert [case.claim for case in results.read(out).cases] == ["a", "b"]
    assert (out / "report.html").exists()
    assert cli.main(["report", "--merge", shards[0], "--out", str(out)]) == exitcode.USAGE
    assert "1 cannot be told, not complete" in (out / "report.html").read_text()
    capsys.readouterr()
    assert cli.main(["report", "--merge", shards[0], *shards, "--out", str(out)]) == 2
    assert "x86_64-6.1-a is also in" in capsys.readouterr().err


def test_report_of_a_run_that_was_cut_short(tmp_path: Path) -> None:
    """The page says that it is not complete, so the exit code does."""
    run = builder.saved(tmp_path / "a", builder.case(), complete=False)
    assert cli.main(["report", run, "--out", str(tmp_path / "out")]) == exitcode.CANNOT_TELL
    assert "Not complete" in (tmp_path / "out" / "report.html").read_text()


def test_what_kcidb_is_not_told_is_said(tmp_path: Path, capsys: Capture) -> None:
    lost = Check("x.toml::claim[x86_64-6.1]", "error", "the disk is full", 0.0, of_case=True)
    run = builder.saved(tmp_path / "a", builder.case(), checks=(lost,), complete=False)
    assert cli.main(["report", run, "--kcidb", "-", "--origin", "my_ci"]) == 0
    assert capsys.readouterr().err == (
        "bootproof: 1 case came to no result, and KCIDB has no word for that\n"
        "bootproof: the run did not come to its end: KCIDB is told of what had ended\n"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a", "a", "a"], "3 runs: give two to compare, or --merge for shards of one run"),
        (["a"], "reports are written to a directory: name it with --out"),
        (["a", "none"], "none: No such file or directory"),
        (["a", "--threshold", "1%"], "--threshold: is of a comparison: give two runs"),
        (["a", "a", "--threshold", "x"], "'x' is no percentage; write it like 0.5%"),
        (["a", "a", "--threshold", "-1"], "'-1' is no percentage"),
    ],
)
def test_report_refuses(words: list[str], said: str, tmp_path: Path, capsys: Capture) -> None:
    builder.saved(tmp_path / "a", builder.case())
    words = [str(tmp_path / word) if word in ("a", "none") else word for word in words]
    code = cli.main(["report", *words])
    captured = capsys.readouterr()
    assert (code, captured.out, captured.err.count("\n")) == (2, "", 1)
    assert said in captured.err
