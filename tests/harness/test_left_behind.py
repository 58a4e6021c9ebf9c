"""Whatever goes wrong, and whenever: a verdict that is true, and nothing left behind."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from bootproof.harness import run
from bootproof.harness.course import Outcome
from bootproof.harness.errors import UserError
from bootproof.harness.host import files, process, rundir
from bootproof.harness.host.files import take_back, write_whole
from bootproof.harness.observation import End
from bootproof.harness.qemu import monitor
from bootproof.harness.qemu.binary import QemuBinary, find_qemu
from bootproof.harness.qemu.gdbstub import GdbStub
from bootproof.harness.qemu.monitor import Monitor, MonitorError
from bootproof.harness.qemu.session import Session
from bootproof.harness.record import playback
from bootproof.harness.start import Start
from bootproof.harness.terms import Budget
from bootproof.harness.verdict import Verdict
from bootproof.loader.address import MIB
from tests import ROOT
from tests.builders import guests
from tests.builders.disks import fill
from tests.builders.guests import Claim, Guest, Program, machine, program


def descriptors() -> set[str]:
    """What this process has open, sockets and pseudo-terminals included."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"{path.name} {path.readlink()}")
        except OSError:
            continue
    return {each for each in found if "/proc/" not in each}


EVERYBODYS = tempfile.gettempdir()


@pytest.fixture(autouse=True)
def _nothing_stays(
    impatient: None, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    # One of our own: other tests and programs come and go in the system's.
    own = str(tmp_path_factory.mktemp("temporary"))
    monkeypatch.setenv("TMPDIR", own)
    monkeypatch.setattr(tempfile, "tempdir", own)
    for arch in ("x86_64", "aarch64"):
        assert find_qemu(arch).version  # the files that it is kept in stay open
    before = descriptors(), set(Path(tempfile.gettempdir()).glob("bootproof-*"))
    yield
    assert psutil.Process().children(recursive=True) == []
    assert (descriptors(), set(Path(tempfile.gettempdir()).glob("bootproof-*"))) == before


def boot(code: Program, directory: Path, qemu: str | None = None, **options: Any) -> Outcome:
    """Runs `code`; `qemu` is another program to be started as QEMU."""
    computer = machine(code.arch)
    if qemu is not None:
        computer = replace(computer, qemu=QemuBinary(qemu, computer.qemu.version))
    guest = Guest(code, extra={code.entry + 4 * MIB: b"data" * 99})
    return guests.boot(guest, directory, on=computer, **({"budget": Budget()} | options))


def once(action: Callable[[], None]) -> Callable[[bytes], None]:
    """A console listener that acts on the first output."""
    done: list[bytes] = []

    def listen(data: bytes) -> None:
        done.append(data)
        if len(done) == 1:
            action()

    return listen


def the_qemu() -> psutil.Process:
    (child,) = psutil.Process().children(recursive=True)
    return child


# --- channels that close -----------------------------------------------------------------------


@pytest.mark.parametrize("step", [0, 1, 2, 3, 4, 6, 9, 14, 25])
def test_monitor_that_closes_at_any_step(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QEMU lives on and cannot be asked any more: nothing is known then, and nothing is claimed."""
    steps: list[None] = []
    genuine = Monitor._answer

    def cut(self: Monitor, *arguments: Any, **named: Any) -> Any:
        if len(steps) == step:
            self._sock.shutdown(2)
        steps.append(None)
        return genuine(self, *arguments, **named)

    monkeypatch.setattr(Monitor, "_answer", cut)
    outcome = boot(program("x86_64").say(b"hello\n").count(), tmp_path)
    assert len(steps) > step
    assert outcome.judgement.verdict is Verdict.INCONCLUSIVE
    assert outcome.observation.end is End.NO_ANSWER


@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_gdbstub_that_closes_at_any_step(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    genuine = GdbStub._send

    def cut(self: GdbStub, packet: str) -> None:
        if len(sent) == step:
            self._sock.shutdown(2)
        sent.append(packet)
        genuine(self, packet)

    monkeypatch.setattr(GdbStub, "_send", cut)
    outcome = boot(program("x86_64").say_for_ever(b"again and again\n"), tmp_path)
    assert len(sent) > step
    assert outcome.judgement.verdict is Verdict.INCONCLUSIVE


# --- a QEMU that will not end ------------------------------------------------------------------


def test_qemu_that_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "_ANSWER_SECONDS", 1)
    outcome = boot(
        program("x86_64").say_for_ever(b"again and again\n"),
        tmp_path,
        on_console=once(lambda: the_qemu().suspend()),
    )
    assert outcome.judgement.verdict is Verdict.INCONCLUSIVE
    assert outcome.costs.host_seconds < 60


def test_qemu_that_ignores_quit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = Monitor.execute

    def deaf(self: Monitor, command: str, *arguments: Any, **named: Any) -> Any:
        if command == "quit":
            raise MonitorError("nobody listens")
        return genuine(self, command, *arguments, **named)

    monkeypatch.setattr(Monitor, "execute", deaf)
    outcome = boot(program("x86_64").say(b"bye\n").reset(), tmp_path)
    assert outcome.observation.end is End.GUEST_RESET


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that any user may read."""
    path = Path(tempfile.mkdtemp(prefix="qemu-for-test-", dir=EVERYBODYS))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def script(directory: Path, text: str) -> str:
    path = directory / "qemu"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_qemu_that_says_nothing_and_ignores_every_signal(
    tmp_path: Path, public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "_ANSWER_SECONDS", 1.0)
    deaf = script(public, "trap '' TERM INT HUP QUIT; while :; do sleep 1; done")
    outcome = boot(program("x86_64").reset(), tmp_path, deaf)
    assert outcome.judgement.verdict is Verdict.INCONCLUSIVE
    assert outcome.observation.end is End.NO_ANSWER


# --- floods ------------------------------------------------------------------------------------


def test_flood_on_stderr_ends_the_program_and_is_cut(
    tmp_path: Path, public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "MOST_WRITTEN", 8 * MIB)
    outcome = boot(
        program("x86_64").reset(), tmp_path, script(public, "exec yes flood >&2; echo $?")
    )
    assert outcome.judgement.verdict is Verdict.QEMU_FAILED
    assert outcome.observation.exit_code == -signal.SIGXFSZ
    assert outcome.judgement.reason.startswith("QEMU was ended by signal 25 before any console")
    assert (tmp_path / "qemu.stderr").stat().st_size <= MIB
    assert len(outcome.observation.stderr) <= 16 << 10


def test_console_ends_at_its_limit_also_when_nobody_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The harness gets no CPU, or is stopped, while the guest prints on."""
    assert Budget().console_bytes == 16 * MIB < process.MOST_WRITTEN
    monkeypatch.setattr(process, "MOST_WRITTEN", 128 << 10)

    def sleep() -> None:
        deadline = time.monotonic() + 120
        while (tmp_path / "console.log").stat().st_size < 128 << 10:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(0.5)  # it prints on
        assert (tmp_path / "console.log").stat().st_size == 128 << 10

    outcome = boot(
        program("x86_64").say_for_ever(b"again and again\n"),
        tmp_path,
        budget=Budget(console_bytes=100_000),
        on_console=once(sleep),
    )
    assert outcome.judgement.verdict is Verdict.CONSOLE_LIMIT
    assert len(outcome.observation.transcript) == 100_001
    assert (tmp_path / "console.log").stat().st_size == 100_001


# --- disks that are full -----------------------------------------------------------------------


def test_disk_that_has_no_room_for_the_console(disk: Callable[[int], Path]) -> None:
    """QEMU would drop what the guest says, and the guest would be blamed for it."""
    directory = disk(4096) / "run"
    directory.mkdir()
    with pytest.raises(UserError, match=r"console.log: no room for 16 MiB: No space left"):
        boot(program("x86_64").say(b"hello\n").reset(), directory)
    assert not (directory / "console.log").exists()
    assert not (directory / "devices").exists()


def test_disk_that_has_no_room_for_the_devices_files(disk: Callable[[int], Path]) -> None:
    place = disk(4096)
    directory = place / "run"
    directory.mkdir()
    computer = machine("x86_64")
    code = program("x86_64").reset()
    image = Guest(code, extra={4 * MIB: b"data" * 99}).write(directory, computer)
    fill(place)
    with pytest.raises(UserError, match=r"^/.*: No space left on device$"):
        run.run(Start(image, computer, Claim(computer, code.entry).expected), directory)
    assert not (directory / "devices").exists()


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_disk_that_fills_up_during_the_run_takes_no_word_from_the_guest(
    arch: str, disk: Callable[[int], Path]
) -> None:
    """What was set aside for the console is enough for all that is written after the run, too."""
    place = disk(40 << 10)
    directory = place / "run"
    directory.mkdir()
    seen: list[bytes] = []

    def fill_when_it_speaks() -> None:
        """Looks for itself: who watches the guest may have to wait for QEMU's answer."""
        console = directory / "console.log"
        while not console.exists() or not console.stat().st_size:
            time.sleep(0.001)
        fill(place)

    said = b"0123456789abcde\n" * 5000
    guest = program(arch).say(b"begins\n" + said).reset()
    filling = threading.Thread(target=fill_when_it_speaks)
    filling.start()
    outcome = boot(guest, directory, on_console=seen.append)
    filling.join()
    assert outcome.judgement.verdict is Verdict.CPU_RESET
    assert b"".join(seen) == b"begins\n" + said
    assert (directory / "console.log").read_bytes() == b"begins\n" + said
    assert (directory / "transcript.log").read_text().count("0123456789abcde\n") == 5000
    assert (directory / "qemu.sh").exists()
    # QEMU goes on when it cannot write its log. What it wrote of it is of no use to anybody.
    assert outcome.not_recorded is not None
    with pytest.raises(UserError, match=r"^.*/replay\.(bin|json).*$|no record of this run"):
        playback.open_recorded(directory)


@pytest.mark.parametrize(
    ("said", "whole"),
    [
        pytest.param(b"few words\n", True, id="log-still-in-memory"),
        pytest.param(b"0123456789abcde\n" * 5000, False, id="log-lost-too"),
    ],
)
def test_console_without_room_is_not_held_against_the_guest(
    said: bytes, whole: bool, disk: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that sets nothing aside, full from the start until the guest has ended."""
    place = disk(40 << 10)
    directory = place / "run"
    directory.mkdir()
    monkeypatch.setattr(files, "_reserve", lambda *_: None)
    run_to, end = GdbStub.run_to, Session.tell_to_end

    def full(self: GdbStub, *arguments: Any) -> bool:
        shutil.rmtree(directory / "devices")  # as the harness does when the guest runs already
        fill(place)
        return run_to(self, *arguments)

    def free(self: Session) -> bool:
        (place / "filler").unlink()
        return end(self)

    monkeypatch.setattr(GdbStub, "run_to", full)
    monkeypatch.setattr(Session, "tell_to_end", free)
    outcome = boot(program("x86_64").say(said).reset(), directory)
    assert outcome.observation.transcript != said
    assert outcome.judgement.verdict is Verdict.INCONCLUSIVE
    assert outcome.judgement.reason.startswith("the host had no room for all that the console said")
    assert (outcome.not_recorded is None) is whole


def test_disk_that_is_full_keeps_the_file_that_was_there(disk: Callable[[int], Path]) -> None:
    place = disk(1024)
    write_whole(place / "result.json", b"old")
    fill(place)
    with pytest.raises(UserError, match=r"result.json: No space left on device$"):
        write_whole(place / "result.json", b"new" * 99999)
    assert {path.name for path in place.iterdir()} == {"result.json", "filler"}
    assert (place / "result.json").read_bytes() == b"old"


# --- when the harness is killed ----------------------------------------------------------------

NEVER_ENDS = """
import sys
from pathlib import Path
from bootproof.harness.run import run
from bootproof.harness.start import Start
from bootproof.harness.terms import Budget
from bootproof.loader.address import MIB
from tests.builders.guests import Claim, Guest, machine, program

directory = Path(sys.argv[1])
computer = machine("x86_64")
guest = Guest(program("x86_64").say(b"running\\n").count(), extra={4 * MIB: b"data" * 99})
image = guest.write(directory, computer)
start = Start(image, computer, Claim(computer, guest.program.entry).expected,
    budget=Budget(*[1 << 62] * 10), on_console=lambda data: print("running", flush=True))
run(start, directory)
"""


def test_sigkill_leaves_no_process_and_no_temporary_file(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", NEVER_ENDS, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as harness:
        assert harness.stdout is not None
        assert harness.stdout.readline() == "running\n"
        family = psutil.Process(harness.pid).children(recursive=True)
        assert [child.name() for child in family] == ["qemu-system-x86_64"]
        harness.kill()
    assert psutil.wait_procs(family, timeout=10)[1] == []
    take_back(tmp_path)
    assert not (tmp_path / "devices").exists()
    rundir.make_fresh(tmp_path)  # refuses what is no artifact
    assert list(tmp_path.iterdir()) == []


def test_thread_that_ends_takes_what_it_started_with_it(tmp_path: Path) -> None:
    """No parent to die with any more when it asks for that: it ends by itself."""
    script = (
        "import os, sys\nfrom bootproof.harness.host import confined\n"
        "if os.fork():\n    os._exit(0)\n"
        "confined.die_with(1 << 22)\nprint('survived')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("", "")
