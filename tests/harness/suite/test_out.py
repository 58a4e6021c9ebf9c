"""A matrix and its results: one run at a time, nothing of an earlier one, and true exit codes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from bootproof.harness import exitcode
from bootproof.harness.errors import UserError
from bootproof.harness.host import files
from bootproof.harness.qemu.binary import find_qemu
from bootproof.harness.results import results
from bootproof.loader.address import MIB
from tests.builders import images
from tests.builders import results as builder
from tests.builders.disks import used
from tests.builders.guests import X86Program
from tests.builders.processes import LOAD, environment, python, vmlinux, vmlinux_with_text

SCRIPT = """
import sys
from pathlib import Path
from bootproof.harness import cli
from bootproof.harness.commands import Command
from bootproof.harness.inputs import images
from bootproof.harness.suite import matrix
from bootproof.harness.suite.options import MatrixOptions
from bootproof.harness.case import Case, Expectation
from bootproof.harness.verdict import Verdict

images.busybox = lambda arch: b"no busybox"
matrix.fetch_for = lambda cases: None

def case(offset=None, verdict=Verdict.BOOTED, **others):
    others = {"memory": 32 << 20, "expect": Expectation(verdict)} | others
    return Case("x86_64", sys.argv[1], "elf", "linux64", offset, **others)

def run(cases, expression=None, **options):
    selection = matrix.Selection(MatrixOptions(Path(sys.argv[2]), **options), expression=expression)
    work = lambda arguments: matrix.run_cases(cases, selection)
    cli.COMMANDS = {"matrix": Command("", "", work)}
    sys.exit(cli.main(["matrix"]))
"""
WRONG = "run([case(1 << 20)])"  # refused, and not as expected
RIGHT = "run([case(1 << 20, Verdict.LOAD_REFUSED)])"


def matrix_of(text: str, tmp_path: Path, kernel: bytes | None = None) -> list[str]:
    path = tmp_path / "vmlinux"
    path.write_bytes(vmlinux(X86Program(LOAD).reset()) if kernel is None else kernel)
    return ["-c", f"{SCRIPT}\n{text}", str(path), str(tmp_path / "out")]


def run(
    text: str, tmp_path: Path, kernel: bytes | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    return python(*matrix_of(text, tmp_path, kernel), cwd=tmp_path, env=variables)


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
def test_the_environment_says_nothing_to_pytest(variables: dict[str, str], tmp_path: Path) -> None:
    done = run(WRONG, tmp_path, None, **variables)
    assert (done.returncode, done.stderr) == (1, "")
    assert "0 of 1 cases as expected" in done.stdout


def test_what_is_counted_is_counted_once(tmp_path: Path) -> None:
    """No second summary, by pytest; and what a filter leaves is said."""
    cases = "[case(n << 20, Verdict.LOAD_REFUSED) for n in (1, 3, 5)]"
    done = run(f"run({cases}, '3M')", tmp_path)
    assert done.returncode == 0
    assert "selected  1 of 3 cases\n" in done.stdout
    assert "1 of 1 cases as expected" in done.stdout
    assert "passed" not in done.stdout and "deselected" not in done.stdout


def test_old_results_leave_before_anything_runs(tmp_path: Path) -> None:
    """Whatever becomes of the run: here it selects nothing."""
    assert run(RIGHT, tmp_path).returncode == 0
    out = tmp_path / "out"
    assert results.read(out).success
    names = ("results.json", "report.html", "junit.xml")
    assert all((out / name).is_file() for name in names)
    assert run("run([case(1 << 20)], 'absent')", tmp_path).returncode == exitcode.USAGE
    assert not any((out / name).exists() for name in names)


# --- what it leaves ----------------------------------------------------------------------------


def test_a_passed_case_takes_little_disk(tmp_path: Path) -> None:
    """Of one kernel, booted everywhere; what failed has its RAM for itself, in one file."""
    size, most = 24 * MIB, 20 * MIB
    code = bytes(X86Program(LOAD).reset().code).ljust(size - len(images.LINUX), b"\x90")
    kernel = images.elf(images.load(LOAD, code + images.LINUX))
    cases = "[case(n << 21, Verdict.CPU_RESET, memory=64 << 20) for n in (0, 1, 2)]"
    done = run(f"run({cases}, jobs=2)", tmp_path, kernel)
    assert (done.returncode, done.stderr) == (0, "")
    assert size < used(tmp_path / "out") < 3 * most - size
    wrong = "[case(n << 21, memory=64 << 20) for n in (0, 1)]"
    done = run(f"run({wrong})", tmp_path, kernel)
    assert "0 of 2 cases as expected" in done.stdout
    assert len(list((tmp_path / "out").glob("*/kernel.img"))) == 1  # of the one that did not run
    assert used(tmp_path / "out") > 3 * size


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_that_is_killed_is_not_complete(jobs: int, tmp_path: Path) -> None:
    kernel = vmlinux(X86Program(LOAD).count())
    words = [sys.executable, *matrix_of(f"run([case()], jobs={jobs})", tmp_path, kernel)]
    running = subprocess.Popen(words, env=environment(), stdout=subprocess.DEVNULL)
    out = tmp_path / "out"
    try:
        while not (out / "results.json").exists():
            assert running.poll() is None
            time.sleep(0.05)
        with pytest.raises(UserError, match=r"out: another run is under way there"):
            files.locked(out).__enter__()
        second = run(RIGHT, tmp_path, kernel)
        assert second.returncode == exitcode.USAGE
        assert f"{out}: another run is under way there" in second.stderr
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()
    found = results.read(out)
    assert (found.complete, found.exit_code) == (False, exitcode.CANNOT_TELL)
    assert found.run is not None and found.run.planned == 1
    assert run(RIGHT, tmp_path).returncode == 0  # nobody has to unlock it


def test_a_baseline_where_the_results_go_is_kept(tmp_path: Path) -> None:
    run(RIGHT, tmp_path)
    out = tmp_path / "out"
    first = (out / "results.json").read_bytes()
    again = RIGHT.replace(")])", ")], baseline=Path(sys.argv[2]))")
    done = run(again, tmp_path)
    assert done.returncode == 0
    assert "1 case compared with the run before: 1 same" in done.stdout
    assert (out / "results.before.json").read_bytes() == first


def test_a_baseline_that_says_nothing_of_a_case(tmp_path: Path) -> None:
    """Not a failure of the guest, and no success."""
    baseline = builder.saved(tmp_path / "b.json", builder.case())
    done = run(RIGHT.replace(")])", f")], baseline=Path({baseline!r}))"), tmp_path)
    assert done.returncode == exitcode.NOT_COMPARED
    assert "nothing was compared with the run before: no case in common" in done.stdout
    assert "the run before says nothing of it" in done.stdout


# --- exit codes --------------------------------------------------------------------------------


def test_what_nobody_can_tell_is_an_error(tmp_path: Path) -> None:
    """QEMU is killed from outside: no word on the guest, in the exit code neither."""
    kernel = vmlinux_with_text(X86Program(LOAD).say(b"running\n").spin())
    done = run("run([case(kill_at='running')])", tmp_path, kernel)
    assert done.returncode == exitcode.CANNOT_TELL
    assert "CANNOT BE TOLD (booted)" in done.stdout
    assert "0 of 1 cases as expected" in done.stdout and ": 1 cannot be told" in done.stdout
    root = ET.parse(tmp_path / "out" / "junit.xml").getroot()
    assert (root.get("failures"), root.get("errors")) == ("0", "1")
    failed = run("run([case(kill_at='running'), case(1 << 20)])", tmp_path, kernel)
    assert failed.returncode == exitcode.NOT_AS_EXPECTED


def test_what_the_image_did_not_cause_is_an_error(tmp_path: Path) -> None:
    """The initrd is gone: the case comes to no result, and its kernel is not to blame."""
    done = run("run([case(initrd='/none')])", tmp_path)
    assert done.returncode == exitcode.USAGE
    root = ET.parse(tmp_path / "out" / "junit.xml").getroot()
    assert (root.get("failures"), root.get("errors")) == ("0", "1")
    assert "/none: No such file or directory (--initrd)" in done.stdout


# --- several QEMUs -----------------------------------------------------------------------------


def test_a_whole_matrix_on_each_qemu(tmp_path: Path) -> None:
    """Which ids, results and the next run's baseline know."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "qemu-system-x86_64").symlink_to(find_qemu("x86_64").path)
    qemus = f"qemu=('one={tmp_path}/a', 'two={tmp_path}/b/qemu-system-x86_64')"
    cases = "[case(None, Verdict.CPU_RESET), case(1 << 20, Verdict.LOAD_REFUSED)]"
    assert run(f"run({cases}, {qemus})", tmp_path).returncode == 0
    found = results.read(tmp_path / "out")
    assert [case.claim for case in found.cases] == [
        "elf-linux64-+1M-one",
        "elf-linux64-+1M-two",
        "elf-linux64-none-one",
        "elf-linux64-none-two",
    ]
    script = (Path(found.cases[2].directory) / "qemu.sh").read_text()
    assert f"{tmp_path}/a/qemu-system-x86_64" in script
    baseline = "baseline=Path(sys.argv[2])"
    again = run(f"run({cases}, 'two', {qemus}, {baseline})", tmp_path)
    assert (again.returncode, again.stdout.count("- gone: ")) == (0, 2)
    assert "4 cases compared with the run before: 2 gone, 2 same" in again.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("qemu=('old=/nope',)", "/nope: cannot be run as QEMU: "),
        ("qemu=('old=/etc',)", "/etc/qemu-system-x86_64: cannot be run as QEMU: "),
        ("list_only=True, qemu=('old=/nope',)", "/nope: cannot be run as QEMU: "),
        ("qemu=('a=/x/qemu-system-aarch64',)", "is no QEMU for x86_64; name the directory"),
    ],
)
def test_a_qemu_that_cannot_be_used_is_said_before_anything_runs(
    words: str, said: str, tmp_path: Path
) -> None:
    done = run(f"run([case(1 << 20, Verdict.LOAD_REFUSED)], {words})", tmp_path)
    assert done.returncode == exitcode.USAGE
    assert said in done.stderr and "case" not in done.stdout
