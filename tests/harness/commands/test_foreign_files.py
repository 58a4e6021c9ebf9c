"""Where an output goes there may be another program's file: no command replaces it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootproof.harness import cli, exitcode
from tests.builders import results as builder
from tests.builders.guests import X86Program
from tests.builders.processes import LOAD, vmlinux

Capture = pytest.CaptureFixture[str]
NAMES = ("report.html", "junit.xml", "results.json")
THEIRS = b'<html><title>Nightly</title></html>{"version": {"major": 4}, "tests": [{}]}'
KCIDB = ["--origin", "us", "--kcidb"]


def run_of(tmp_path: Path) -> str:
    return builder.saved(tmp_path / "run" / "results.json", builder.case())


def refused(words: list[str], place: Path, capsys: Capture) -> None:
    """The command is refused by the one message, and the file is as it was."""
    before = {path: path.read_bytes() for path in place.parent.iterdir() if path.is_file()}
    assert cli.main(words) == exitcode.USAGE
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == (
        f"bootproof: {place.parent}: holds {place.name}, which no run has made; take another one\n"
    )
    assert {path: path.read_bytes() for path in place.parent.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("command", ["report", "matrix"])
def test_reports(command: str, name: str, tmp_path: Path, capsys: Capture) -> None:
    """All of them are looked at before any is written, or removed."""
    out = tmp_path / "out"
    run = run_of(tmp_path)
    assert cli.main(["report", run, "--out", str(out)]) == 0
    (out / name).write_bytes(THEIRS)
    capsys.readouterr()
    words = {"report": [run], "matrix": ["-k", "nothing"]}[command]
    refused([command, *words, "--out", str(out)], out / name, capsys)


def test_results_that_are_kept_as_the_baseline(tmp_path: Path, capsys: Capture) -> None:
    out = run_of(tmp_path)
    before = Path(out).with_name("results.before.json")
    before.write_bytes(THEIRS)
    words = ["matrix", "-k", "nothing", "--baseline", out, "--out", str(before.parent)]
    refused(words, before, capsys)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["report", "RUN", *KCIDB], "report.json"),
        (["history", "RUNS", "--out"], "trend.html"),
        (["initramfs"], "init.cpio"),
        (["pack", "RUNS", "--out"], "run.tar.zst"),
        (["profile", "RUNS", "--out"], "profile.html"),
        (["profile", "RUNS", "--out"], "profile.folded"),
        (["compare", "KERNEL", "--out"], "comparison.json"),
    ],
)
def test_files(words: list[str], name: str, tmp_path: Path, capsys: Capture) -> None:
    run = run_of(tmp_path)
    place = tmp_path / "out" / name
    place.parent.mkdir()
    place.write_bytes(THEIRS)
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(vmlinux(X86Program(LOAD).reset()))
    known = {"RUN": run, "RUNS": str(Path(run).parent), "KERNEL": str(kernel)}
    words = [known.get(word, word) for word in words]
    takes_directory = words[0] in ("profile", "compare")
    refused([*words, str(place.parent if takes_directory else place)], place, capsys)


@pytest.mark.parametrize(
    "words", [["report", "RUN", *KCIDB], ["history", "RUNS", "--out"], ["initramfs"]]
)
def test_what_we_made_is_replaced(words: list[str], tmp_path: Path) -> None:
    run = run_of(tmp_path)
    known = {"RUN": run, "RUNS": str(Path(run).parent)}
    place = tmp_path / "out"
    place.touch()  # as mktemp(1) makes it
    for _ in range(2):
        assert cli.main([*(known.get(word, word) for word in words), str(place)]) == 0
        assert place.stat().st_size
