"""Bisections of real git repositories by real boots of a tiny kernel, and of rows of images.

The kernels are a few instructions each: one that proves its boot with what its initrd says, one
that resets the machine, one that was cut short as by a build that broke.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bootproof.harness import cli
from bootproof.harness.case import Case
from bootproof.harness.guest.nonce import nonce_for
from bootproof.kernels.cache import file_sha256
from bootproof.loader.address import MIB
from tests.builders.guests import Claim, Guest, X86Program, initrd_saying, machine
from tests.builders.processes import (
    LOAD,
    bootproof,
    environment,
    vmlinux,
    vmlinux_with_text,
)
from tests.harness.conftest import Matrix

OPTIONS = ("--protocol", "linux64", "--memory", "32M")
GOOD = vmlinux(X86Program(LOAD).say_initrd().reset())
BAD = vmlinux(X86Program(LOAD).reset())
CUT = GOOD[:300]
PANICS = vmlinux_with_text(X86Program(LOAD).say(b"Kernel panic - not syncing: x\n").reset())


class Repository:
    """A git repository with a commit for each kernel in it."""

    def __init__(self, directory: Path, kernels: Sequence[bytes | None]) -> None:
        self.path, self.initrd, self.out = directory / "r", directory / "initrd", directory / "out"
        self.path.mkdir()
        self.initrd.write_bytes(self._proof())
        self.git("init", "-q", "-b", "main")
        for number, kernel in enumerate(kernels):
            (self.path / "number").write_text(f"{number}\n")
            (self.path / "vmlinux").unlink(missing_ok=True)
            if kernel is not None:
                (self.path / "vmlinux").write_bytes(kernel)
            self.git("add", "-A")
            self.git("commit", "-qm", f"commit {number}")

    def _proof(self) -> bytes:
        """What the good kernel has to say, whichever commit it is of."""
        kernel = self.path / "vmlinux"
        kernel.write_bytes(GOOD)
        nonce = nonce_for(Case("x86_64", "vmlinux", "elf", "linux64").id, file_sha256(kernel))
        cmdline = f"quiet rdinit=/bootproof/init bootproof.nonce={nonce} bootproof.next=/init"
        claim = Claim(machine("x86_64", memory=32 * MIB), LOAD, nonce, cmdline)
        return initrd_saying(claim.text())

    def git(self, *words: str | Path, check: bool = True) -> str:
        who = ["-c", "user.name=a test", "-c", "user.email=test@example.org"]
        environ = environment(XDG_CACHE_HOME=str(self.path.parent / "cache"))
        done = subprocess.run(
            ["git", *who, *map(str, words)],
            cwd=self.path,
            env=environ,
            text=True,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert done.returncode == 0 or not check, done.stdout
        return done.stdout

    def boot(self, *words: str | Path) -> list[str]:
        """The command that is tried on each commit."""
        own = ("--cmdline", "quiet", "--initrd", self.initrd, "--out", self.out, *words)
        return list(map(str, bootproof("boot", "vmlinux", *OPTIONS, *own)))

    def bisect(self, *words: str | Path) -> str:
        """All that a bisection from the first commit to the last says."""
        first = self.git("rev-list", "--max-parents=0", "HEAD").strip()
        self.git("bisect", "start", "HEAD", first)
        return self.git("bisect", "run", *self.boot("--bisect", *words), check=False)


def test_a_build_that_broke_is_not_to_blame(tmp_path: Path) -> None:
    """Whether what it left is cut or nothing at all."""
    said = Repository(tmp_path, [GOOD, GOOD, CUT, None, GOOD, BAD, BAD]).bisect()
    assert "is the first bad commit" in said and "\n    commit 5\n" in said, said


def test_where_only_broken_builds_are_left_nobody_is_to_blame(tmp_path: Path) -> None:
    said = Repository(tmp_path, [GOOD, GOOD, CUT, BAD]).bisect()
    assert "is the first bad commit" not in said
    assert "There are only 'skip'ped commits left to test." in said, said


def test_another_failure_on_the_way(tmp_path: Path) -> None:
    """It hides the one that is looked for, or is as good as none: the user says which."""
    repository = Repository(tmp_path, [GOOD, PANICS, PANICS, BAD])
    subprocess.run(repository.boot(), cwd=repository.path, stdout=subprocess.DEVNULL, check=False)
    wanted = tmp_path / "wanted"
    repository.out.rename(wanted)
    said = repository.bisect("--same-as", wanted)
    assert "There are only 'skip'ped commits left to test." in said, said
    repository.git("bisect", "reset")
    said = repository.bisect("--same-as", wanted, "--other-failures", "good")
    assert "\n    commit 3\n" in said and "is the first bad commit" in said, said


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("boot", "no such file"), 125),
        (("boot", "kernel", "--qemu", "own=/no/such/qemu"), 125),
        (("boot", "kernel", "--no-such-option"), 128),
        (("boot", "kernel", "--protocol", "none"), 128),
        (("boot", "kernel", "--same-as", "/no/such/run"), 128),
        (("boot", "kernel", "--other-failures", "good"), 128),
        (("run", "no such image"), 125),
        (("matrix", "--kernel", "no such file"), 125),
        (("matrix", "--shard", "5/4"), 128),
    ],
)
def test_neither_good_nor_bad(
    words: tuple[str, ...],
    code: int,
    offline: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("kernel").write_bytes(BAD)
    ended = cli.main([*words, "--bisect", "--out", str(tmp_path / "out")])
    assert ended == code


def test_a_mistake_of_ours_stops_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python would end with 1: a bad commit."""

    def break_down(_: object) -> int:
        raise AssertionError("a mistake of ours")

    broken = replace(cli.COMMANDS["boot"], run=break_down)
    monkeypatch.setattr(cli, "COMMANDS", {"boot": broken})
    assert cli.main(["boot", "vmlinux", "--bisect"]) == 128
    assert "AssertionError: a mistake of ours" in capsys.readouterr().err


def test_options_of_a_bisection_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["boot", "vmlinux", "--same-as", "run"]) == 2
    assert "--same-as: only with --bisect" in capsys.readouterr().err
    words = ["--bisect", "--other-failures", "good"]
    assert cli.main(["boot", "vmlinux", *words]) == 128  # which stops `git bisect run`
    assert "--other-failures: other than which?" in capsys.readouterr().err


def test_matrix(tmp_path: Path, matrix_here: Matrix) -> None:
    """A case that fails is bad; what an earlier commit left in the same place is nothing."""
    kernel, out = tmp_path / "vmlinux", tmp_path / "out"
    chosen = ("--bisect", "-k", "linux64-none", f"--kernel={kernel}", f"--out={out}")

    def code(what: bytes, *words: str | Path) -> int:
        kernel.write_bytes(what)
        done = matrix_here(*chosen, *map(str, words))
        assert "Traceback" not in done.stderr
        return done.returncode

    assert code(BAD) == 1
    (out / "results.json").rename(tmp_path / "results.json")
    assert code(PANICS) == 1
    assert code(PANICS, "--same-as", tmp_path / "results.json") == 125
    assert code(PANICS, "--same-as", tmp_path / "results.json", "--other-failures", "good") == 0
    assert code(BAD, "--same-as", tmp_path / "results.json") == 1
    assert code(CUT) == 125


def test_run(tmp_path: Path) -> None:
    """Of a boot image: what it is to be is asked by the other options."""
    image, out = tmp_path / "image", tmp_path / "out"
    image.mkdir()
    Guest(X86Program(LOAD).reset()).write(image, machine("x86_64", memory=32 * MIB))
    for words, code in (((), 1), (("--only-handover",), 0), (("--memory", "64M"), 125)):
        assert cli.main(["run", str(image), "--out", str(out), "--bisect", *words]) == code


# --- many images -------------------------------------------------------------------------------


def row(directory: Path, kernels: Sequence[bytes]) -> list[Path]:
    """These kernels, no two with the same bytes."""
    directory.mkdir()
    paths = [directory / f"build-{number}" for number in range(1, len(kernels) + 1)]
    for number, (path, what) in enumerate(zip(paths, kernels, strict=True)):
        path.write_bytes(what + bytes(number + 1))
    return paths


def test_twelve_images_in_six_boots(
    offline: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two of them cannot be tested; failures of another kind come before the one that is sought."""
    kinds = [PANICS] * 5 + [CUT] + [PANICS] * 2 + [CUT] + [BAD] * 3
    paths = row(tmp_path / "builds", kinds)
    out = tmp_path / "out"
    options = ("--memory", "32M", "--out", str(out))
    assert cli.main(["boot", str(paths[-1]), *options[:2], "--out", str(tmp_path / "wanted")]) == 1
    same = ("--same-as", str(tmp_path / "wanted"), "--other-failures", "good")
    capsys.readouterr()
    assert cli.main(["bisect", str(tmp_path / "builds"), *same, *options]) == 125
    said = capsys.readouterr().out
    assert "images    12, from " in said
    assert f"last good {paths[7]}\nuntested  {paths[8]}\nfirst bad not known; no later than" in said
    boots = int(said.partition("boots     ")[2].split("\n")[0])
    assert boots <= 4
    # Without the one beside it, the first bad one is named, and how to see it again.
    others = [str(path) for path in paths if path != paths[8]]
    assert cli.main(["bisect", *others, *same, *options]) == 0
    said = capsys.readouterr().out
    assert f"last good {paths[7]}\nfirst bad {paths[9]}\nreason    cpu-reset instead" in said
    assert f" boot {shlex.quote(str(paths[9]))} --memory 32M\n" in said
    assert (out / said.rstrip().rpartition("/")[2] / "console.log").exists()


def test_the_same_kernel_is_booted_once(
    offline: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a row without a good one says so."""
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(BAD)
    words = [str(kernel)] * 6
    assert cli.main(["bisect", *words, "--memory", "32M", "--out", str(tmp_path / "out")]) == 125
    said = capsys.readouterr().out
    assert "boots     1\nlast good none\nfirst bad not known; no later than" in said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["one"], "one image is nothing to search in"),
        (["one", "two", "--offset", "x"], "--offset"),
        (["one", "two", "--same-as", "nowhere"], "--same-as"),
        (["one", "nowhere"], "nowhere: no such file"),
        (["--list", "one", "nowhere"], "nowhere: no such file"),
        (["--list", "one", "https://nowhere.example/kernel"], "a URL needs its file's hash"),
        (["--list", "one", "fifo"], "fifo: is not a regular file"),
        (["--list", "one", ""], "a kernel's name is empty"),
        (["one", "two", "--out", "one/out"], "/one: is no directory; name another place"),
        (["one", "two", "--initrd", "nowhere"], "nowhere: No such file or directory (--initrd)"),
        (["one", "two", "--overlay", "one"], "one: is no directory (--overlay)"),
        (["one", "two", "--qemu", "x=nowhere"], "nowhere: cannot be run as QEMU"),
        (["one", "two", "--cmdline", 'a="b'], "has a quote that is never closed"),
    ],
)
def test_rows_that_are_none(
    words: list[str],
    told: str,
    offline: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        Path(name).write_bytes(BAD)
    os.mkfifo("fifo")
    code = cli.main(["bisect", *words])
    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    assert told in said.err
    assert said.err.count("\n") == 1


def test_what_is_wrong_with_one_image_is_told_of_it(
    offline: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = row(tmp_path / "builds", [b"none", b"none", CUT])
    assert cli.main(["bisect", *map(str, paths), "--out", str(tmp_path / "out")]) == 125
    told = capsys.readouterr().out
    assert told.count(": cannot tell: ") == 3
    assert f"{paths[2]}: cannot tell: is no Linux kernel that can be proved: " in told


def test_failure_in_a_fifo_is_not_waited_for(
    tmp_path: Path, offline: None, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert cli.main(["bisect", "one", "two", "--same-as", str(tmp_path / "fifo")]) == 2
    assert "fifo: is not a regular file" in capsys.readouterr().err
