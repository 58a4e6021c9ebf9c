"""`bootproof profile`: of a run, of a kernel, of two; what it leaves and what it refuses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bootproof.harness import cli
from bootproof.harness.record import pack
from tests.builders.guests import X86Program, boot, program
from tests.builders.processes import LOAD, vmlinux


def profile(*words: str | Path) -> int:
    return cli.main(["profile", *map(str, words)])


def test_runs_and_packs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in (("short", b"hello\n"), ("long", b"hello\n" * 50)):
        boot(program("x86_64").say(text).reset(), tmp_path / name)
    packed = tmp_path / f"long{pack.SUFFIX}"
    pack.pack(tmp_path / "long", packed)
    out = tmp_path / "out"
    said = []
    for run in (tmp_path / "long", packed):
        assert profile(run, "--samples", "20", "--out", out) == 0
        said.append(capsys.readouterr().out.replace(str(run), "RUN"))
    assert said[0] == said[1]
    assert "function " in said[0] and said[0].endswith(f"page      {out / 'profile.html'}\n")
    assert {path.name for path in out.iterdir()} == {"profile.html", "profile.folded"}
    assert profile(tmp_path / "short", packed, "--samples", "20", "--out", tmp_path / "two") == 0
    told = capsys.readouterr().out
    assert "change    +" in told and "stage " in told
    assert [path.name for path in (tmp_path / "two").iterdir()] == ["profile.html"]


def test_a_run_whose_name_is_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / os.fsdecode(b"r\x1b[2J\n<b>\xff")
    boot(program("x86_64").say(b"hello\n").reset(), run)
    assert profile(run, "--samples", "5", "--out", tmp_path / "out") == 0
    assert capsys.readouterr().out.replace("\n", "").replace("\t", "").isprintable()
    assert r"r\x1b[2J\n&lt;b&gt;\udcff" in (tmp_path / "out" / "profile.html").read_text()


def test_a_kernel_is_booted_first(
    offline: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(vmlinux(X86Program(LOAD).reset()))
    out = tmp_path / "out"
    assert profile(kernel, "--memory", "32M", "--samples", "5", "--out", out) == 0
    assert capsys.readouterr().out.startswith("verdict   cpu-reset: ")
    assert (out / "run-1" / "result.json").exists()
    assert profile(kernel, "--memory", "32M", "--realtime", "--out", out) == 2
    assert "there is no record to profile" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere"], "nowhere: no such file"),
        (["damaged.tar.zst"], "damaged.tar.zst: is no pack of a run"),
        (["kernel", "--symbols", "damaged.tar.zst"], "--symbols"),
        (["kernel", "--out", "kernel/out"], "/kernel: is no directory; name another place"),
        (["kernel", "--out", "nowhere"], "/nowhere: is a link to what is not there; name another"),
    ],
)
def test_all_words_are_looked_at_before_anything_runs(
    words: list[str],
    told: str,
    offline: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("kernel").write_bytes(vmlinux(X86Program(LOAD).reset()))
    Path("damaged.tar.zst").write_bytes(b"damaged")
    Path("nowhere").symlink_to("none")
    assert profile("--memory", "32M", "--out", "out", "kernel", *words) == 2
    said = capsys.readouterr()
    assert (said.out, told in said.err) == ("", True), said
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("a", "b", "c"), "of one run, or the difference of two"),
        (("a", "--samples", "0"), "no number from 1 to"),
        (("a", "--samples", "9" * 5000), "no number from 1 to"),
        (("no such run",), "no such file"),
    ],
)
def test_what_is_refused(
    words: tuple[str, ...], told: str, offline: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert profile(*words) == 2
    assert told in capsys.readouterr().err
