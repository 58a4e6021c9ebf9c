"""A matrix and its results: one run at a time, nothing of an earlier one, and true exit codes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bootproof.harness import cli, exitcode
from bootproof.harness.case import Case, Expectation
from bootproof.harness.commands import Command
from bootproof.harness.errors import UserError
from bootproof.harness.host import files
from bootproof.harness.qemu.binary import find_qemu
from bootproof.harness.results import results
from bootproof.harness.suite import matrix
from bootproof.harness.suite.options import MatrixOptions
from bootproof.harness.verdict import Verdict
from bootproof.loader.address import MIB
from tests.builders import images
from tests.builders import results as builder
from tests.builders.disks import used
from tests.builders.guests import X86Program
from tests.builders.processes import LOAD, environment, vmlinux, vmlinux_with_text
from tests.harness.conftest import Matrix

RESETS = vmlinux(X86Program(LOAD).reset())
Run = Callable[..., subprocess.CompletedProcess[str]]
Made = Callable[..., Case]


@pytest.fixture
def case(tmp_path: Path) -> Made:
    """Makes cases of the kernel that a run writes."""

    def made(offset: int | None = None, verdict: Verdict = Verdict.BOOTED, **others: Any) -> Case:
        own: dict[str, Any] = {"memory": 32 * MIB, "expect": Expectation(verdict)} | others
        return Case("x86_64", str(tmp_path / "vmlinux"), "elf", "linux64", offset, **own)

    return made


@pytest.fixture
def wrong(case: Made) -> list[Case]:
    """Refused, and not as expected."""
    return [case(MIB)]


@pytest.fixture
def right(case: Made) -> list[Case]:
    return [case(MIB, Verdict.LOAD_REFUSED)]


@pytest.fixture
def run(tmp_path: Path, matrix_here: Matrix, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a matrix of these cases in this process, into `out`."""

    def run(
        cases: list[Case], expression: str | None = None, kernel: bytes = RESETS, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        (tmp_path / "vmlinux").write_bytes(kernel)
        chosen = MatrixOptions(tmp_path / "out", **options)
        selection = matrix.Selection(chosen, expression=expression)
        command = Command("", "", lambda _arguments: matrix.run_cases(cases, selection))
        monkeypatch.setattr(cli, "COMMANDS", {"matrix": command})
        return matrix_here()

    return run


# --- what was run ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTEST_ADDOPTS": "--collect-only"},
        {"PYTEST_ADDOPTS": "--setup-plan -k nothing"},
        {"PYTEST_ADDOPTS": "--no-such-option"},
        {"PYTEST_PLUGINS": "no_such_plugin", "PYTEST_XDIST_WORKER": "gw0"},
    ],
)
def test_the_environment_says_nothing_to_pytest(
    variables: dict[str, str], wrong: list[Case], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = run(wrong)
    assert (done.returncode, done.stderr) == (1, "")
    assert "0 of 1 cases as expected" in done.stdout


def test_what_is_counted_is_counted_once(case: Made, run: Run) -> None:
    """No second summary, by pytest; and what a filter leaves is said."""
    cases = [case(n * MIB, Verdict.LOAD_REFUSED) for n in (1, 3, 5)]
    done = run(cases, only=("offset=3M",))
    assert "selected  1 of 3 cases\n" in done.stdout
    done = run(cases, "3M")
    assert done.returncode == 0
    assert "selected  1 of 3 cases\n" in done.stdout
    assert "1 of 1 cases as expected" in done.stdout
    assert "passed" not in done.stdout and "deselected" not in done.stdout


def test_old_results_leave_before_anything_runs(
    right: list[Case], wrong: list[Case], run: Run, tmp_path: Path
) -> None:
    """Whatever becomes of the run: here it selects nothing."""
    assert run(right).returncode == 0
    out = tmp_path / "out"
    assert results.read(out).success
    names = ("results.json", "report.html", "junit.xml")
    assert all((out / name).is_file() for name in names)
    assert run(wrong, "absent").returncode == exitcode.USAGE
    assert not any((out / name).exists() for name in names)


# --- what it leaves ----------------------------------------------------------------------------


def test_a_passed_case_takes_little_disk(case: Made, run: Run, tmp_path: Path) -> None:
    """Of one kernel, booted everywhere; what failed has its RAM for itself, in one file, unless it
    was lent the kernel from the start.
    """
    size, most = 24 * MIB, 20 * MIB
    code = bytes(X86Program(LOAD).reset().code).ljust(size - len(images.LINUX), b"\x90")
    kernel = images.elf(images.load(LOAD, code + images.LINUX))
    cases = [case(2 * n * MIB, Verdict.CPU_RESET, memory=64 * MIB) for n in (0, 1, 2)]
    done = run(cases, kernel=kernel, jobs=2)
    assert (done.returncode, done.stderr) == (0, "")
    assert size < used(tmp_path / "out") < 3 * most - size
    done = run([case(2 * n * MIB, memory=64 * MIB) for n in (0, 1)], kernel=kernel)
    assert "0 of 2 cases as expected" in done.stdout
    own = 0 if files.is_root() else 2  # but for the one that did not run
    assert len(list((tmp_path / "out").glob("*/kernel.img"))) == 3 - own
    assert size < used(tmp_path / "out") - own * size < 3 * most - size


ONE_CASE = """
import sys
from pathlib import Path
from bootproof.harness.case import Case
from bootproof.harness.inputs import images
from bootproof.harness.suite import matrix
from bootproof.harness.suite.options import MatrixOptions

images.busybox = lambda arch: b"no busybox"
matrix.fetch_for = lambda cases: None
case = Case("x86_64", sys.argv[1], "elf", "linux64", memory=32 << 20)
matrix.run_cases([case], matrix.Selection(MatrixOptions(Path(sys.argv[2]), jobs=int(sys.argv[3]))))
"""


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_that_is_killed_is_not_complete(
    jobs: int, right: list[Case], run: Run, tmp_path: Path
) -> None:
    path, kernel = tmp_path / "vmlinux", vmlinux(X86Program(LOAD).count())
    path.write_bytes(kernel)
    words = [sys.executable, "-c", ONE_CASE, str(path), str(tmp_path / "out"), str(jobs)]
    running = subprocess.Popen(words, env=environment(), stdout=subprocess.DEVNULL)
    out = tmp_path / "out"
    try:
        while not (out / "results.json").exists():
            assert running.poll() is None
            time.sleep(0.05)
        with pytest.raises(UserError, match=r"out: another run is under way there"):
            files.locked(out).__enter__()
        second = run(right, kernel=kernel)
        assert second.returncode == exitcode.USAGE
        assert f"{out}: another run is under way there" in second.stderr
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()
    found = results.read(out)
    assert (found.complete, found.exit_code) == (False, exitcode.CANNOT_TELL)
    assert found.run is not None and found.run.planned == 1
    assert run(right).returncode == 0  # nobody has to unlock it


def test_a_baseline_where_the_results_go_is_kept(
    right: list[Case], run: Run, tmp_path: Path
) -> None:
    run(right)
    out = tmp_path / "out"
    first = (out / "results.json").read_bytes()
    done = run(right, baseline=out)
    assert done.returncode == 0
    assert "1 case compared with the run before: 1 same" in done.stdout
    assert (out / "results.before.json").read_bytes() == first


def test_a_baseline_that_says_nothing_of_a_case(
    right: list[Case], run: Run, tmp_path: Path
) -> None:
    """Not a failure of the guest, and no success."""
    baseline = builder.saved(tmp_path / "b.json", builder.case())
    done = run(right, baseline=Path(baseline))
    assert done.returncode == exitcode.NOT_COMPARED
    assert "nothing was compared with the run before: no case in common" in done.stdout
    assert "the run before says nothing of it" in done.stdout


# --- exit codes --------------------------------------------------------------------------------


def test_reports_that_cannot_be_written_hide_no_result(
    right: list[Case], wrong: list[Case], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "/none/summary.md")
    for cases, code, told in ((right, 2, "1 of 1 cases"), (wrong, 1, "0 of 1 cases")):
        done = run(cases)
        assert (done.returncode, f"\n{told} as expected in " in done.stdout) == (code, True)
        why = "/none/summary.md: No such file or directory (GITHUB_STEP_SUMMARY)"
        assert done.stderr == f"bootproof: {why}\n"


def test_what_pytest_cannot_keep_hides_no_result(
    right: list[Case], run: Run, tmp_path: Path
) -> None:
    """It is for --lf only; on a full disk the run ended in pytest's traceback."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".pytest_cache").write_text("")
    done = run(right)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\n1 of 1 cases as expected in " in done.stdout


def test_a_case_without_a_result_is_counted_as_one(case: Made, run: Run, tmp_path: Path) -> None:
    done = run([case(MIB, Verdict.LOAD_REFUSED), case(initrd=str(tmp_path / "none"))])
    assert done.returncode == 2
    assert "\n1 of 2 cases as expected in " in done.stdout


def test_what_nobody_can_tell_is_an_error(case: Made, run: Run, tmp_path: Path) -> None:
    """QEMU is killed from outside: no word on the guest, in the exit code neither."""
    kernel = vmlinux_with_text(X86Program(LOAD).say(b"running\n").spin())
    done = run([case(kill_at="running")], kernel=kernel)
    assert done.returncode == exitcode.CANNOT_TELL
    assert "CANNOT BE TOLD (instead of booted)" in done.stdout
    assert "0 of 1 cases as expected" in done.stdout and ": 1 cannot be told" in done.stdout
    root = ET.parse(tmp_path / "out" / "junit.xml").getroot()
    assert (root.get("failures"), root.get("errors")) == ("0", "1")
    failed = run([case(kill_at="running"), case(MIB)], kernel=kernel)
    assert failed.returncode == exitcode.NOT_AS_EXPECTED


def test_what_the_image_did_not_cause_is_an_error(case: Made, run: Run, tmp_path: Path) -> None:
    """The initrd is gone: the case comes to no result, and its kernel is not to blame."""
    done = run([case(initrd="/none")])
    assert done.returncode == exitcode.USAGE
    root = ET.parse(tmp_path / "out" / "junit.xml").getroot()
    assert (root.get("failures"), root.get("errors")) == ("0", "1")
    assert "/none: No such file or directory (--initrd)" in done.stdout


# --- several QEMUs -----------------------------------------------------------------------------


def test_a_whole_matrix_on_each_qemu(case: Made, run: Run, tmp_path: Path) -> None:
    """Which ids, results and the next run's baseline know."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "qemu-system-x86_64").symlink_to(find_qemu("x86_64").path)
    qemus = (f"one={tmp_path}/a", f"two={tmp_path}/b/qemu-system-x86_64")
    cases = [case(None, Verdict.CPU_RESET), case(MIB, Verdict.LOAD_REFUSED)]
    assert run(cases, qemu=qemus).returncode == 0
    found = results.read(tmp_path / "out")
    assert [case.claim for case in found.cases] == [
        "elf-linux64-+1M-one",
        "elf-linux64-+1M-two",
        "elf-linux64-none-one",
        "elf-linux64-none-two",
    ]
    script = (Path(found.cases[2].directory) / "qemu.sh").read_text()
    assert f"{tmp_path}/a/qemu-system-x86_64" in script
    again = run(cases, "two", qemu=qemus, baseline=tmp_path / "out")
    assert (again.returncode, again.stdout.count("- gone: ")) == (0, 2)
    assert "2 cases compared with the run before: 2 same; others: 2 gone" in again.stdout


@pytest.mark.parametrize(
    ("qemu", "options", "said"),
    [
        ("old=/nope", {}, "/nope: cannot be run as QEMU: "),
        ("old=/etc", {}, "/etc/qemu-system-x86_64: cannot be run as QEMU: "),
        ("old=/nope", {"list_only": True}, "/nope: cannot be run as QEMU: "),
        ("a=/x/qemu-system-aarch64", {}, "is no QEMU for x86_64; name the directory"),
    ],
)
def test_a_qemu_that_cannot_be_used_is_said_before_anything_runs(
    qemu: str, options: dict[str, Any], said: str, right: list[Case], run: Run
) -> None:
    done = run(right, qemu=(qemu,), **options)
    assert done.returncode == exitcode.USAGE
    assert said in done.stderr and "case" not in done.stdout
