"""Scenario files as pytest items, and the matrix command over them: ids, selection, verdicts."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from bootproof.harness.cases import select
from bootproof.harness.suite import items
from bootproof.loader import bootimage
from tests.builders import images
from tests.builders.guests import X86Program
from tests.builders.processes import CLI, LOAD, python, vmlinux
from tests.harness.conftest import Matrix

PATCH = "from bootproof.harness.inputs import images\nimages.busybox = lambda arch: b'no busybox'\n"
SCENARIOS = """
[defaults]
arch = "x86_64"
kernel = "./vmlinux"
format = "elf"
protocol = "linux64"
memory = "32M"

[[claim]]
name = "resets"
why = "it resets the CPU at once"
offset = ["none", "1M"]
expect = { verdict = "cpu-reset" }
short = { offset = "none" }

[[claim.except]]
when = { offset = "1M" }
expect = { verdict = "load-refused", says = "2 MiB" }
reason = "page tables"

[[claim]]
name = "boots"
why = "it does not: seen to fail"
offset = "0"
"""
IDS = [
    "my.toml::resets[x86_64-vmlinux-elf-linux64-none]",
    "my.toml::resets[x86_64-vmlinux-elf-linux64-+1M]",
    "my.toml::boots[x86_64-vmlinux-elf-linux64-+0]",
]


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """Somebody else's repository: a kernel, claims, and a test that has nothing to do with us."""
    (tmp_path / "vmlinux").write_bytes(vmlinux(X86Program(LOAD).reset()))
    (tmp_path / "my.toml").write_text(SCENARIOS)
    (tmp_path / "broken.toml").write_text("this is [ no TOML")
    (tmp_path / "test_other.py").write_text("def test_other(): pass\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    (tmp_path / "patch.py").write_text(PATCH)
    return tmp_path


def run(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """pytest with the plugin, as where it is installed."""
    plugins = ["-p", "patch", "-p", "xdist", "-p", "bootproof.harness.plugin"]
    return python("-m", "pytest", "-q", *plugins, *options, cwd=directory, path=[directory])


def here(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The same in this process, where no guest is started."""
    out, err, modules = io.StringIO(), io.StringIO(), dict(sys.modules)
    words = ["-q", "-p", "bootproof.harness.plugin", "--capture=no", *options]
    to_us = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
    try:
        with contextlib.chdir(directory), to_us[0], to_us[1]:
            code = pytest.main(words)
    finally:
        for name in sys.modules.keys() - modules.keys():  # of the tests there
            del sys.modules[name]
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def collected(directory: Path, *options: str) -> list[str]:
    """The ids of what pytest finds there."""
    done = here(directory, "--collect-only", *options)
    assert done.returncode == pytest.ExitCode.OK
    return [line for line in done.stdout.splitlines() if "::" in line]


def test_a_file_that_nobody_names_is_not_opened(suite: Path) -> None:
    assert collected(suite) == ["test_other.py::test_other"]


def test_a_file_that_is_named(suite: Path) -> None:
    assert collected(suite, "my.toml") == IDS


def test_files_named_by_the_configuration(suite: Path) -> None:
    (suite / "pytest.ini").write_text("[pytest]\nbootproof_scenarios = m*.toml\n")
    assert collected(suite) == [*IDS, "test_other.py::test_other"]


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["-k", "resets"], [0, 1]),
        (["-k", "boots[x86_64-vmlinux-elf-linux64-+0]"], [2]),
        (["-m", "short"], [0]),
        (["--bootproof=only=offset=none", "--bootproof=only=offset=0"], [0, 2]),
        (["--bootproof=only=kernel=vm*", "--bootproof=only=offset=1M"], [1]),
        ([IDS[1]], [1]),
    ],
)
def test_selection(options: list[str], kept: list[int], suite: Path) -> None:
    files = [] if options[0] in IDS else ["my.toml"]
    assert collected(suite, *files, *options) == [IDS[number] for number in kept]


KEPT = """
def pytest_terminal_summary(terminalreporter):
    kept = [r for all in terminalreporter.stats.values() for r in all if hasattr(r, "when")]
    print("kept", len(kept), sum(len(r.user_properties) + len(r.keywords) for r in kept))
"""


def test_results_are_not_kept_twice(suite: Path) -> None:
    """pytest has all reports in memory to the end: of thousands of cases, with all they printed."""
    (suite / "kept.py").write_text(KEPT)
    done = run(suite, "my.toml", "-k", "1M", "-p", "kept")
    assert "kept 3 0\n" in done.stdout
    assert "1 of 1 cases as expected" in done.stdout


def test_every_test_is_in_exactly_one_shard(suite: Path) -> None:
    parts = [
        collected(suite, "my.toml", "test_other.py", f"--bootproof=shard={number}/3")
        for number in (1, 2, 3)
    ]
    assert sorted(itertools.chain(*parts)) == sorted([*IDS, "test_other.py::test_other"])


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--bootproof=shard=4/3", "'4/3' is no shard; write it like 1/4: the first of four"),
        ("--bootproof=only=ofset=1", "unknown filter 'ofset'; did you mean 'offset'?"),
        ("--bootproof=only=offset=1Q", "offset: '1Q' is neither a size nor an address"),
        ("--bootproof=costs=gone.json", None),
    ],
)
def test_options_that_mean_nothing(option: str, said: str | None, suite: Path) -> None:
    done = here(suite, "my.toml", "--bootproof=shard=1/1", option, "--collect-only")
    assert done.returncode == 4
    assert (said or "gone.json: No such file or directory") in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_two_files_with_the_same_case(suite: Path) -> None:
    """Their run directories would be one."""
    (suite / "again.toml").write_text(SCENARIOS)
    done = here(suite, "my.toml", "again.toml", "--collect-only")
    assert done.returncode == 4
    both = f"{suite / 'again.toml'} and of {suite / 'my.toml'}"
    said = f"x86_64-vmlinux-elf-linux64-none: is a case of {both}; give one of them a label"
    assert said in done.stderr


def test_a_broken_file_is_one_line(suite: Path) -> None:
    done = here(suite, "broken.toml")
    assert done.returncode == 2
    assert "broken.toml: is no TOML: " in done.stdout
    assert "Traceback" not in done.stdout


def test_cases_run_and_what_failed_runs_again(suite: Path) -> None:
    done = run(suite, "my.toml", "-n", "2", "--bootproof=command=make boot")
    assert (done.returncode, done.stderr) == (1, "")
    assert "1 failed, 2 passed" in done.stdout
    assert "cpu-reset instead of booted" in done.stdout
    assert "reproduce: make boot -k 'boots[x86_64-vmlinux-elf-linux64-+0]'" in done.stdout
    assert collected(suite, "my.toml", "--lf") == IDS[2:]


def test_environment_that_is_wrong_is_one_line(suite: Path) -> None:
    (suite / "vmlinux").unlink()
    done = here(suite, IDS[0])
    assert done.returncode == 1
    assert f"x86_64-vmlinux-elf-linux64-none: {suite}/vmlinux: no such file" in done.stdout
    assert "Traceback" not in done.stdout and "Error\n" not in done.stdout


@pytest.fixture
def matrix(suite: Path, matrix_here: Matrix, monkeypatch: pytest.MonkeyPatch) -> Matrix:
    """The command, in the directory of the suite."""
    monkeypatch.chdir(suite)
    return partial(matrix_here, "--out", "out", "-n", "1")


def test_the_command_runs_the_users_file_and_nothing_beside_it(suite: Path, matrix: Matrix) -> None:
    (suite / "conftest.py").write_text("raise SystemExit('executed')")
    (suite / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    done = matrix("--scenarios", "my.toml", "-k", "resets")
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 of 2 cases as expected" in done.stdout
    rows = json.loads((suite / "out" / "results.json").read_text())["cases"]
    assert sorted(row["verdict"] for row in rows) == ["cpu-reset", "load-refused"]
    costs = ["--scenarios", "my.toml", "--costs", "out/results.json", "--list"]
    shown = [matrix(*costs, "--shard", shard).stdout for shard in ("1/2", "2/2")]
    counts = sorted(text.splitlines()[-2] for text in shown)
    assert counts == ["1 case, 0 tests", "2 cases, 0 tests"]
    costs_file = suite / "out" / "results.json"
    assert select.read_costs(costs_file).keys() == {"x86_64-vmlinux-elf-linux64-none"}


@pytest.mark.skipif(os.geteuid() != 0, reason="QEMU is another user under root only")
@pytest.mark.parametrize("how", ["root", "another", "keep"])
def test_what_cases_have_in_common_is_lent(
    how: str, suite: Path, matrix: Matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also to the one that fails; but nothing that a QEMU could write to, nor where RAM goes."""
    code = bytes(X86Program(LOAD).reset().code)
    kernel = images.elf(images.load(LOAD, code.ljust(512 << 10, b"\x90") + images.LINUX))
    (suite / "vmlinux").write_bytes(kernel)
    if how == "another":
        monkeypatch.setattr(items, "is_root", lambda: False)
    keep = ["--keep", "failed"] if how == "keep" else []
    matrix("--scenarios", "my.toml", *keep)
    passed, failed = (
        suite / "out" / f"x86_64-vmlinux-elf-linux64-{offset}" for offset in ("none", "+0")
    )
    assert (failed / "kernel.img").exists() == (how == "root")
    assert (passed / "kernel.img").exists() == (how != "keep")
    image = bootimage.open_boot_image(failed)
    with bootimage.open_ram(image, failed) as memory:
        assert memory.read(LOAD, 512 << 10) == code.ljust(512 << 10, b"\x90")
    if how == "root":
        assert (failed / "kernel.img").samefile(passed / "kernel.img")
        nobody = ["setpriv", "--reuid=65534", "--clear-groups", "sh", "-c", "echo >> kernel.img"]
        passed.chmod(0o755)
        done = subprocess.run(nobody, cwd=passed, capture_output=True, check=False)
        assert b"Permission denied" in done.stderr


def test_the_command_says_how_to_repeat_a_case_and_does(matrix: Matrix) -> None:
    done = matrix("--scenarios", "my.toml", "--offset", "0")
    assert done.returncode == 1
    assert "reproduce: ./bootproof matrix --scenarios my.toml -k 'boots[" in done.stdout
    again = matrix("--scenarios", "my.toml", "--lf", "--list")
    assert "1 case, 0 tests" in again.stdout


def test_another_qemu_is_given_by_the_user_alone(suite: Path, matrix: Matrix) -> None:
    """The file only has its name."""
    path = suite / "my.toml"
    path.write_text(SCENARIOS.replace("[defaults]", '[defaults]\nqemu = "other"'))
    refused = matrix("--scenarios", "my.toml", "-k", "resets")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "needs a QEMU; name it with --qemu other=PATH" in refused.stderr
    binary = suite / "qemu-of-mine"
    binary.symlink_to(str(shutil.which("qemu-system-x86_64")))
    done = matrix("--scenarios", "my.toml", "-k", "resets", "--qemu", f"other={binary}")
    assert (done.returncode, done.stderr) == (0, "")
    result = suite / "out" / "x86_64-vmlinux-elf-linux64-none-other" / "result.json"
    assert json.loads(result.read_text())["machine"]["qemu"].startswith("qemu-of-mine ")


SHARD = ["--scenarios", "my.toml", "--shard", "1/2"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--scenarios", "broken.toml"], "broken.toml: is no TOML: "),
        (["--scenarios", "a[b]/my.toml"], "a[b]/my.toml: a path with '[' or '::' means something"),
        (["--scenarios", "gone.toml"], "gone.toml: No such file or directory"),
        (["--scenarios", "my.toml", "--shard", "0/3"], "'0/3' is no shard; write it like 1/4"),
        (["--scenarios", "my.toml", "--protocol", "pvhh"], "protocol: unknown value 'pvhh'; did"),
        ([*SHARD, "--costs", "gone.json"], "gone.json: No such file or directory"),
        ([*SHARD, "--costs", "my.toml"], "my.toml: no results that can be read"),
        ([*SHARD, "--threshold", "1%"], "--threshold: is of a comparison: give --baseline"),
    ],
)
def test_the_command_refuses_in_one_line(
    options: list[str], said: str, suite: Path, matrix: Matrix
) -> None:
    done = matrix(*options)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr and done.stderr.count("\n") == 1
    assert not (suite / "out").exists()


def test_help_fits_a_screen_and_has_an_example() -> None:
    done = python(*CLI, "matrix", "--help", env={"COLUMNS": "80"})
    assert len(done.stdout.splitlines()) <= 42
    assert "example: bootproof matrix" in done.stdout
