"""The QEMU process: few rights, no way to outlive its harness, whoever ends whom and how."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from bootproof.harness.errors import UserError
from bootproof.harness.host.files import NOBODY
from bootproof.harness.host.process import QemuProcess
from tests import ROOT
from tests.builders.guests import Guest, live, machine, program
from tests.builders.processes import environment

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")

# Boots a guest that never ends in the directory it is given; says when the guest is running.
HARNESS = """
import sys
from pathlib import Path
from bootproof.harness.run import run
from bootproof.harness.start import Start
from bootproof.harness.terms import Budget
from tests.builders.guests import Claim, Guest, machine, program

directory = Path(sys.argv[1])
computer = machine("x86_64")
guest = Guest(program("x86_64").say(b"running\\n").count())
image = guest.write(directory, computer)
never = Budget(*[1 << 62] * 10)
start = Start(image, computer, Claim(computer, guest.program.entry).expected, budget=never,
    on_console=lambda data: print("running", flush=True))
run(start, directory)
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A run directory below one that is closed to everybody else."""
    closed = tmp_path / "closed"
    closed.mkdir(0o700)
    directory = closed / "run"
    directory.mkdir()
    return directory


@as_root
def test_qemu_runs_as_nobody_and_can_gain_nothing(directory: Path) -> None:
    with live(Guest(program("x86_64").count()), machine("x86_64"), directory) as running:
        pid = running.process.pid
        status = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if ":\t" in line
        )
        assert Path(f"/proc/{pid}/exe").readlink().name == "qemu-system-x86_64"
        assert status["Uid"].split() == status["Gid"].split() == [str(NOBODY)] * 4
        assert status["Groups"].strip() == ""
        assert status["NoNewPrivs"] == "1"
        assert int(status["CapPrm"], 16) == int(status["CapEff"], 16) == 0
        assert status["Seccomp"] == "2"
        assert os.getsid(pid) == pid != os.getsid(0)
        assert Path(f"/proc/{pid}/cwd").readlink() == directory


def test_qemu_inherits_its_channel_and_nothing_else_of_ours(directory: Path) -> None:
    secret = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(secret, True)
    try:
        with live(Guest(program("x86_64").count()), machine("x86_64"), directory) as running:
            links = [fd.readlink() for fd in Path(f"/proc/{running.process.pid}/fd").iterdir()]
    finally:
        os.close(secret)
    assert sum(str(link).startswith("socket:") for link in links) == 1
    assert links.count(Path(os.devnull)) == 1  # standard input


@as_root
def test_rights_are_taken_before_qemu_runs(directory: Path) -> None:
    """QEMU's own sandbox comes later; and groups of ours are not its."""
    groups = os.getgroups()
    os.setgroups([0, 5, 4242])
    try:
        with QemuProcess(["sh", "-c", "cat /proc/self/status >&2"], directory) as child:
            assert child.wait(30) == 0
            status = child.stderr()
    finally:
        os.setgroups(groups)
    assert "NoNewPrivs:\t1\n" in status
    assert "Groups:\t \n" in status or "Groups:\t\n" in status
    assert f"Uid:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}\n" in status


def test_leaving_the_context_ends_it(directory: Path) -> None:
    with live(Guest(program("x86_64").count()), machine("x86_64"), directory) as running:
        pid = running.process.pid
        assert psutil.pid_exists(pid)
    assert not psutil.pid_exists(pid)
    assert running.process.exit_code == -signal.SIGKILL


def test_asleep_tells_a_parked_guest_from_a_busy_one(tmp_path: Path) -> None:
    found = {}
    for name, code in (
        ("parked", program("aarch64").halt()),
        ("busy", program("aarch64").count()),
    ):
        directory = tmp_path / name
        directory.mkdir()
        # With icount a timer of its own keeps QEMU awake.
        computer = replace(machine("aarch64"), realtime="QEMU sleeps")
        with live(Guest(code), computer, directory) as running:
            running.monitor.wait(0.5)
            looks = []
            for _ in range(10):
                running.monitor.wait(0.02)
                looks.append(running.process.asleep())
            found[name] = sum(looks)
    assert found["parked"] >= 8
    assert found["busy"] == 0


def test_exit_code_and_the_last_words(directory: Path) -> None:
    shell = [
        "sh",
        "-c",
        "head -c 100000 /dev/zero | tr '\\0' x >&2; printf 'last words' >&2; exit 7",
    ]
    with QemuProcess(shell, directory) as child:
        assert child.wait(30) == 7
        assert child.ended()
        said = child.stderr()
        assert said.endswith("xlast words") and len(said) == 16 << 10
        assert child.cpu_seconds() >= 0
        assert child.exit_code == 7


@pytest.mark.parametrize("looks", [True, False])
def test_all_that_it_used_is_known_at_its_end(directory: Path, looks: bool) -> None:
    """Whoever finds it gone, and however long ago it was last asked for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = "i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done"
    with QemuProcess(["sh", "-c", busy], directory) as process:
        while looks and not process.ended():
            threading.Event().wait(0.01)
        assert process.wait(60) == 0
        used = process.cpu_seconds()
        process._process.pid = os.getpid()  # a number may be given again, once it was waited for
        assert process.cpu_seconds() == used
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    whole = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used == pytest.approx(whole, abs=0.03)  # in hundredths, of either kind


def test_wait_gives_up_on_a_process_that_goes_on(directory: Path) -> None:
    with QemuProcess(["sleep", "60"], directory) as child:
        assert child.wait(0.05) is None
        assert not child.ended()
        assert child.exit_code is None


def test_program_that_is_not_there(directory: Path) -> None:
    with QemuProcess(["no-such-program"], directory) as child:
        assert child.wait(30) in (126, 127)  # or not to be run, somewhere on PATH
        assert "no-such-program" in child.stderr()


def test_without_setpriv_nothing_is_started(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(directory))
    with pytest.raises(UserError, match="setpriv is not installed; it is part of util-linux"):
        QemuProcess(["/bin/true"], directory)


# --- when the harness ends ---------------------------------------------------------------------


@pytest.fixture
def start(directory: Path) -> Iterator[Started]:
    started = Started(directory)
    yield started
    started.end()


class Started:
    """A Python process that boots a guest which never ends, in a session of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[str] | None = None
        self.qemu: list[psutil.Process] = []

    def __call__(self, script: str) -> subprocess.Popen[str]:
        """Returns when the guest's console has been seen."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", script, str(self._directory)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "running\n"
        self.qemu = psutil.Process(self._process.pid).children(recursive=True)
        assert [child.name() for child in self.qemu] == ["qemu-system-x86_64"]
        return self._process

    def qemu_is_gone(self) -> bool:
        _, alive = psutil.wait_procs(self.qemu, timeout=10)
        return not alive

    def end(self) -> None:
        for child in self.qemu:
            if child.is_running():
                child.kill()
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


def test_killed_harness_takes_qemu_with_it(start: Started) -> None:
    harness = start(HARNESS)
    harness.kill()
    assert start.qemu_is_gone()


# --- root that may not do what root does ---------------------------------------------------------

POWERLESS = """
from bootproof.harness.host import files, process
print(files.is_root(), files.why_powerless(), *process.privileges())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can lack the rights of root")
@pytest.mark.parametrize(
    ("without", "why"),
    [
        (("setpriv", "--bounding-set=-all", "--inh-caps=-all"), "root has no CAP_CHOWN, "),
        (("setpriv", "--bounding-set=-setuid", "--inh-caps=-setuid"), "root has no CAP_SETUID"),
        (("unshare", "--user", "--map-root-user"), "this user namespace has no user nobody"),
    ],
)
def test_root_without_rights_is_found_out_and_done_without(
    without: tuple[str, ...], why: str
) -> None:
    words = [*without, sys.executable, "-c", POWERLESS]
    done = subprocess.run(
        words, capture_output=True, encoding="utf-8", env=environment(), check=False
    )
    if "unshare failed" in done.stderr:
        pytest.skip("no user namespaces here")
    assert done.stdout.startswith(f"False {why}")
    assert "--reuid" not in done.stdout and "--no-new-privs" in done.stdout
    assert done.stderr.startswith(f"bootproof: {why}") and done.stderr.count("\n") == 1
