"""Where an output goes there may be another program's file: no command replaces it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bootproof.harness import cli, exitcode
from tests.builders import results as builder
from tests.builders.guests import X86Program
from tests.builders.processes import LOAD, vmlinux

Capture = pytest.CaptureFixture[str]
NAMES = ("report.html", "junit.xml", "results.json")
THEIRS = b'<html><title>Nightly</title></html>{"version": {"major": 4}, "tests": [{}]}'
NOBODY_READS = "is a FIFO that nobody reads, or a socket; start its reader first, or name a file"
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


ONE_FILE = pytest.mark.parametrize(
    "words", [["report", "RUN", *KCIDB], ["history", "RUNS", "--out"], ["initramfs"]]
)


def write(words: list[str], place: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path)
    known = {"RUN": run, "RUNS": str(Path(run).parent)}
    assert cli.main([*(known.get(word, word) for word in words), str(place)]) == 0


@ONE_FILE
def test_what_we_made_is_replaced(words: list[str], tmp_path: Path) -> None:
    place = tmp_path / "out"
    place.touch()  # as mktemp(1) makes it
    for _ in range(2):
        write(words, place, tmp_path)
        assert place.stat().st_size


@ONE_FILE
def test_a_link_stays_a_link(words: list[str], tmp_path: Path) -> None:
    """As /dev/stdout, which root would have replaced for all."""
    place, real = tmp_path / "out", tmp_path / "real"
    place.symlink_to(real)
    write(words, place, tmp_path)
    assert place.is_symlink() and real.stat().st_size


@ONE_FILE
def test_nothing_beside_an_output_is_touched(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "out.part").write_bytes(THEIRS)
    write(words, tmp_path / "out", tmp_path)
    assert (tmp_path / "out.part").read_bytes() == THEIRS
    assert {path.name for path in tmp_path.iterdir()} == {"out", "out.part", "run"}


def test_an_initramfs_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """In place, whoever reads the old one at that moment would have half of each."""
    old = tmp_path / "old"
    old.write_bytes(b"070701bootproof/")
    (tmp_path / "out").hardlink_to(old)
    write(["initramfs"], tmp_path / "out", tmp_path)
    assert old.read_bytes() == b"070701bootproof/"
    assert (tmp_path / "out").stat().st_size > 1000


@pytest.mark.parametrize(
    "words",
    [["report", "RUN", *KCIDB], ["history", "RUNS", "--out"], ["initramfs"]],
    ids=["report", "history", "initramfs"],
)
def test_a_fifo_is_written_to_and_not_waited_for(
    words: list[str], tmp_path: Path, capsys: Capture
) -> None:
    run = run_of(tmp_path)
    known = {"RUN": run, "RUNS": str(Path(run).parent)}
    words = [*(known.get(word, word) for word in words), str(fifo := tmp_path / "fifo")]
    os.mkfifo(fifo)
    assert cli.main(words) == exitcode.USAGE
    assert capsys.readouterr().err == f"bootproof: {fifo}: {NOBODY_READS}\n"
    with (tmp_path / "read").open("wb") as read, subprocess.Popen(["cat", fifo], stdout=read):
        code = exitcode.USAGE
        while code == exitcode.USAGE:  # until it has opened it
            code = cli.main(words)
    assert (tmp_path / "read").stat().st_size > 0
    assert fifo.is_fifo()


def test_a_step_summary_that_nobody_reads_is_not_waited_for(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(fifo := tmp_path / "fifo")
    run = run_of(tmp_path)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(fifo))
    assert cli.main(["report", run, "--out", str(tmp_path / "out")]) == exitcode.USAGE
    err = capsys.readouterr().err
    assert err == f"bootproof: {fifo}: {NOBODY_READS} (GITHUB_STEP_SUMMARY)\n"


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_file_is_not_replaced(name: str, tmp_path: Path, capsys: Capture) -> None:
    run, out = run_of(tmp_path), tmp_path / "out"
    out.mkdir()
    os.mkfifo(out / name)
    assert cli.main(["report", run, "--out", str(out)]) == exitcode.USAGE
    err = capsys.readouterr().err
    assert err == f"bootproof: {out / name}: is no regular file; take another name\n"
    assert (out / name).is_fifo()
