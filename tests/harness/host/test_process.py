"""The QEMU process: few rights, no way to outlive its harness, whoever ends whom and how."""

from __future__ import annotations

import marshal
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from bootproof.harness.errors import UserError
from bootproof.harness.host import process
from bootproof.harness.host.files import NOBODY
from bootproof.harness.host.process import QemuProcess, launched_ahead
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
    for held in ("Inh", "Prm", "Eff", "Amb"):
        assert f"Cap{held}:\t{0:016x}\n" in status


def test_program_may_be_where_only_root_can_go(directory: Path) -> None:
    """Below the directory that is closed to others."""
    found = shutil.which("sh")
    assert found is not None
    (directory.parent / "sh").symlink_to(found)
    with QemuProcess([str(directory.parent / "sh"), "-c", "exit 7"], directory) as child:
        assert child.wait(30) == 7, child.stderr()


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
        assert child.wait(30) == 1
        assert child.not_started() == "confined: no-such-program: No such file or directory"


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


# --- what is launched ahead ----------------------------------------------------------------------

AHEAD = """
import sys, time
from pathlib import Path
from bootproof.harness.host.process import QemuProcess, launched_ahead

with launched_ahead():
    print("ahead", flush=True)
    time.sleep(0.02)
    with QemuProcess(["sleep", "600"], Path(sys.argv[1])) as child:
        child.wait(600)
"""

# Four files whose descriptors have each other's numbers afterwards.
CROSSED = """
import os
from pathlib import Path
from bootproof.harness.host import confined

files = []
for name in "abcd":
    Path(name).write_text(name)
    files.append(os.open(name, os.O_RDONLY))
a, b, c, d = files
confined.put(tuple(files), [b, a, d + 1, 0])
print(*(os.pread(fd, 9, 0).decode() for fd in (b, a, d + 1, 0)))
print(*map(os.get_inheritable, (b, a, d + 1, 0)))
"""


def _launched() -> psutil.Process:
    """The youngest child of this process."""
    return max(psutil.Process().children(), key=lambda child: child.pid)


def test_what_was_launched_ahead_becomes_the_next_program(directory: Path) -> None:
    with launched_ahead():
        launched = _launched()
        with QemuProcess(["sh", "-c", "echo $0 >&2; exec sleep 60", "said"], directory) as child:
            assert child.pid == launched.pid == os.getsid(child.pid)
            assert child.wait(0.5) is None
            assert child.stderr() == "said"
            assert Path(f"/proc/{child.pid}/cwd").readlink() == directory
        with QemuProcess(["sleep", "60"], directory) as child:
            assert child.pid != launched.pid
    assert not launched.is_running()


def test_what_was_launched_ahead_and_not_needed_is_gone() -> None:
    with launched_ahead():
        launched = _launched()
        assert launched.is_running()
    assert not launched.is_running()


def test_what_was_launched_ahead_belongs_to_its_thread(directory: Path) -> None:
    """It dies with that, and a QEMU must not die with another thread than its own."""
    started = []

    def other() -> None:
        with QemuProcess(["sleep", "60"], directory) as child:
            started.append(child.pid)

    with launched_ahead():
        launched = _launched()
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert started != [launched.pid]
        assert launched.is_running()


def test_what_was_launched_ahead_and_killed_is_done_without(directory: Path) -> None:
    with launched_ahead():
        launched = _launched()
        launched.kill()
        os.waitid(os.P_PID, launched.pid, os.WEXITED | os.WNOWAIT)
        with QemuProcess(["sh", "-c", "exit 7"], directory) as child:
            assert child.wait(30) == 7


@pytest.mark.parametrize("seconds", [0, 0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.2])
def test_killed_harness_takes_what_it_launched_with_it(directory: Path, seconds: float) -> None:
    """Python, or the program by then."""
    words = [sys.executable, "-c", AHEAD, str(directory)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as harness:
        assert harness.stdout is not None
        assert harness.stdout.readline() == "ahead\n"
        time.sleep(seconds)
        family = psutil.Process(harness.pid).children()
        harness.kill()
    assert family
    assert psutil.wait_procs(family, timeout=10)[1] == []


@as_root
@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace to hold a process with")
def test_harness_that_is_killed_while_rights_are_given_up_is_noticed(directory: Path) -> None:
    """The kernel forgets the parent-death signal then."""
    held = ("-e", "trace=setresuid", "-e", "inject=setresuid:delay_exit=1000000")
    words = ["strace", "-f", "-o", os.devnull, *held, sys.executable, "-c", AHEAD, str(directory)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as tracer:
        assert tracer.stdout is not None
        assert tracer.stdout.readline() == "ahead\n"
        [harness] = psutil.Process(tracer.pid).children()
        [launched] = harness.children()
        while launched.uids().effective != NOBODY:
            time.sleep(0.01)
        harness.kill()
        gone, _ = psutil.wait_procs([launched], timeout=10)
        tracer.kill()
    if not gone:
        launched.kill()
    assert gone


def test_a_command_that_was_told_in_part_is_not_run(directory: Path) -> None:
    """Its harness was killed while it told it: the rest may be what matters."""
    made = directory / "made"
    launcher = process._Launcher()
    command = ["sh", "-c", f"touch {made}", "a word that is not all told"]
    told = marshal.dumps(([], str(directory), 1 << 20, None, command))[:-4]
    launcher._channel.sendall(told)
    launcher._channel.close()
    assert launcher.process.wait(30) == 0
    assert not made.exists()


def test_descriptors_get_each_others_numbers(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CROSSED],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["a b c d", "True True True True"]


# --- root that may not do what root does ---------------------------------------------------------

POWERLESS = """
from bootproof.harness.host import files, process
print(files.is_root(), files.why_powerless(), process.user())
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
    assert done.stdout.startswith(f"False {why}") and done.stdout.endswith(" None\n")
    assert done.stderr.startswith(f"bootproof: {why}") and done.stderr.count("\n") == 1


def test_what_cannot_be_started_leaves_nothing_open(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where there may be no more processes."""
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    with pytest.raises(UserError, match="true: cannot be started: ") as refused:
        QemuProcess(["true"], directory)
    assert os.listdir("/proc/self/fd") == before, refused  # noqa: PTH208
