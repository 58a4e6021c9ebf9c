"""Sessions with real QEMU: how they start and end, whoever ends them, and that nothing stays."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from bootproof.harness.arch.table import ARCHES
from bootproof.harness.errors import UserError
from bootproof.harness.host import signals
from bootproof.harness.host.confined import landlock_abi
from bootproof.harness.host.files import NOBODY, is_root
from bootproof.harness.host.process import RUNNING
from bootproof.harness.host.rundir import CONSOLE, RUN_LOG
from bootproof.harness.host.turns import TURNS
from bootproof.harness.observation import End
from bootproof.harness.qemu import spawn
from bootproof.harness.qemu.binary import find_qemu
from bootproof.harness.qemu.machine import Machine
from bootproof.harness.qemu.placement import guest_ram, place_image, write
from bootproof.harness.qemu.session import Session
from bootproof.harness.qemu.spawn import Spawned
from bootproof.harness.qemu.watch import Ending, Watch
from bootproof.harness.terms import Budget, Placement
from bootproof.loader import bootimage
from tests.builders.guests import Guest, Program, machine, program

BUDGET = Budget(quiet_instructions=20_000_000)


@contextmanager
def session(
    code: Program, directory: Path, on: Machine | None = None, **options: Any
) -> Iterator[Session]:
    computer = on or machine(code.arch)
    image = Guest(code).write(directory, computer)
    with bootimage.open_ram(image, directory) as memory:
        placed = place_image(image, memory, computer, Placement.DEVICES)
        write(placed, memory, directory)
        with (
            guest_ram(memory, computer.banks, placed.mapped) as ram,
            Spawned(
                *(computer, placed.launch, ram, directory), **({"budget": BUDGET} | options)
            ) as qemu,
            Session(qemu) as started,
        ):
            yield started


def go_on(session: Session, watch: Watch) -> Ending:
    session.monitor.execute("cont")
    return watch.until_the_end()


@contextmanager
def somebodys_turn() -> Iterator[threading.Event]:
    """The only turn there is, until the event is set."""
    taken, over = threading.Event(), threading.Event()

    def hold() -> None:
        TURNS.take(lambda: False)
        taken.set()
        over.wait(60)
        TURNS.give_back()

    thread = threading.Thread(target=hold)
    with TURNS.at_most(1):
        thread.start()
        assert taken.wait(60)
        yield over
        over.set()
        thread.join()


def test_a_guest_stands_before_its_first_instruction_until_its_turn(tmp_path: Path) -> None:
    """QEMU is ready by then."""
    said, code = tmp_path / CONSOLE, program("x86_64").say(b"hello\n").reset()
    with somebodys_turn() as over, session(code, tmp_path, with_gdb=False) as running:
        before: list[bytes] = []

        def end_of_turn() -> None:
            while not running.monitor.connected:
                time.sleep(0.01)
            time.sleep(0.5)  # a guest that does not wait says all of it in a few milliseconds
            before.append(said.read_bytes())
            over.set()

        thread = threading.Thread(target=end_of_turn)
        thread.start()
        seen, _ = running.observe(lambda watch: go_on(running, watch))
        thread.join()
    assert before == [b""]
    assert (seen.end, seen.transcript) == (End.GUEST_RESET, b"hello\n")


def test_one_that_waits_for_its_turn_is_ended_with_all_others(tmp_path: Path) -> None:
    with somebodys_turn(), session(program("x86_64").reset(), tmp_path) as running:
        process = running.process
        end = threading.Timer(0.5, RUNNING.end)
        end.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                running.observe(lambda watch: go_on(running, watch))
        finally:
            end.join()
            RUNNING.begin()
        assert process.wait(60) == -signal.SIGKILL


def test_a_guest_that_sleeps_lets_another_one_run(tmp_path: Path) -> None:
    """Nobody would use its CPU meanwhile: it may wait for a user, or for nothing."""
    taken = threading.Event()

    def run_another() -> None:
        TURNS.take(lambda: RUNNING.ending)
        taken.set()
        TURNS.give_back()

    computer = replace(machine("x86_64"), realtime="a test")
    code = program("x86_64").halt()
    with TURNS.at_most(1), session(code, tmp_path, computer, with_gdb=False) as running:
        another = threading.Thread(target=run_another)
        late = time.monotonic() + 5
        meanwhile: list[bool] = []

        def halt(watch: Watch) -> Ending:
            another.start()
            running.monitor.execute("cont")
            end = watch.until_the_end(left=lambda: taken.is_set() or time.monotonic() > late)
            meanwhile.append(taken.is_set())
            return end

        running.observe(halt)
    another.join()
    assert meanwhile == [True]


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_from_start_to_end(arch: str, tmp_path: Path) -> None:
    assert find_qemu(arch).version  # the file that it is kept in stays open
    files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with session(program(arch).say(b"hello\n").reset(), tmp_path, with_gdb=False) as running:
        if is_root():
            assert tmp_path.stat().st_uid == NOBODY
        seen, ending = running.observe(lambda watch: go_on(running, watch))
        assert running.process.ended()
    assert (seen.end, seen.transcript, seen.exit_code) == (End.GUEST_RESET, b"hello\n", None)
    assert seen.instructions == ending.usage.instructions is not None
    assert running.timed_transcript().endswith("] hello\n")
    assert (tmp_path / CONSOLE).read_bytes() == b"hello\n" and (tmp_path / RUN_LOG).exists()
    assert tmp_path.stat().st_uid == os.geteuid()
    assert len(os.listdir("/proc/self/fd")) == files  # noqa: PTH208
    assert psutil.Process().children(recursive=True) == []


def test_stands_at_the_entry(tmp_path: Path) -> None:
    code = program("x86_64").say(b"hello\n").reset()
    with session(code, tmp_path) as running:

        def steps(watch: Watch) -> Ending:
            assert running.run_to(code.entry, watch.given_up) == (True, running_at(running))
            return watch.stop(End.ENTERED)

        seen, ending = running.observe(steps)
    assert (seen.end, seen.transcript) == (End.ENTERED, b"")
    assert ending.place is not None and ending.place.pc == code.entry


def running_at(running: Session) -> object:
    return running.machine.arch.dump.parse(running.monitor.registers(), {})


def test_without_a_gdbstub(tmp_path: Path) -> None:
    with session(program("x86_64").reset(), tmp_path, with_gdb=False) as running:
        with pytest.raises(AssertionError, match="without a gdbstub"):
            assert running.gdb
        assert "-gdb" not in psutil.Process(running.process.pid).cmdline()


def test_qemu_that_is_not_there(tmp_path: Path) -> None:
    computer = machine("x86_64")
    computer = replace(computer, qemu=replace(computer.qemu, path="/no/such/qemu"))
    with (
        session(program("x86_64").reset(), tmp_path, computer) as running,
        pytest.raises(
            UserError, match=r"QEMU cannot be started: confined: /no/such/qemu: No such file"
        ),
    ):
        running.observe(lambda watch: go_on(running, watch))
    assert tmp_path.stat().st_uid == os.geteuid()


@pytest.mark.skipif(landlock_abi() == 0, reason="this kernel has no Landlock")
def test_script_that_starts_a_qemu_from_elsewhere(tmp_path: Path) -> None:
    """The shell's word for it says nothing of who forbids that, and what to do."""
    with tempfile.TemporaryDirectory() as name:  # nobody does not get into tmp_path
        place = Path(name)
        place.chmod(0o755)
        qemu, wrapper = place / "else" / "qemu", place / "wrapper" / "bin" / "qemu-system-x86_64"
        for path in (qemu, wrapper):
            path.parent.mkdir(parents=True)
            path.write_text(f'#!/bin/sh\nexec {qemu} "$@"\n' if path == wrapper else "#!/bin/sh\n")
            path.chmod(0o755)
        computer = machine("x86_64")
        computer = replace(computer, qemu=replace(computer.qemu, path=str(wrapper)))
        with (
            session(program("x86_64").reset(), tmp_path, computer) as running,
            pytest.raises(UserError) as error,
        ):
            running.observe(lambda watch: go_on(running, watch))
        assert f"{qemu}: Permission denied; the sandbox lets it read programs in /usr, " in str(
            error.value
        )
        assert f" and {place / 'wrapper'} only: name the QEMU that it starts" in str(error.value)


def test_start_that_fails_leaves_the_directory_ours(tmp_path: Path) -> None:
    (tmp_path / CONSOLE).write_text("of another run")
    with (
        pytest.raises(UserError, match=r"console\.log: File exists"),
        session(program("x86_64").reset(), tmp_path),
    ):
        raise AssertionError
    assert tmp_path.stat().st_uid == os.geteuid()


@pytest.mark.parametrize(
    ("number", "end"), [(signal.SIGTERM, End.HOST_ENDED), (signal.SIGKILL, End.QEMU_EXITED)]
)
def test_ended_while_nobody_listens(number: int, end: End, tmp_path: Path) -> None:
    """What QEMU says of its end is there, but has not been read when its channels break."""
    with session(program("x86_64").count(), tmp_path) as running:

        def steps(watch: Watch) -> Ending:
            os.kill(running.process.pid, number)
            running.process.wait(30)
            running.gdb.detach()
            return watch.until_the_end()

        seen, _ = running.observe(steps)
    assert (seen.end, seen.exit_code) == (end, -9 if number == signal.SIGKILL else None)


# --- page sizes of CPU models --------------------------------------------------------------------

# Arm ARM (DDI 0487), ID_AA64MMFR0_EL1: where the field of a page size is, and what it says of a CPU
# that lacks it.
GRANULES: Final = {"4K": (28, 0xF), "16K": (20, 0x0), "64K": (24, 0xF)}


def models_of_64_bits() -> list[str]:
    command = [find_qemu("aarch64").path, "-cpu", "help"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    narrow = r"arm|cortex-(a7|a8|a9|a15|[mr]\d+f?)$|pxa|sa11|ti925"
    return [name for name in said.split()[2:] if not re.match(narrow, name)]


def granules(model: str, directory: Path) -> int:
    """Its ID_AA64MMFR0_EL1."""
    found: dict[str, int] = {}
    computer = replace(machine("aarch64"), cpu=model)
    with session(program("aarch64").reset(), directory, computer) as running:

        def steps(watch: Watch) -> Ending:
            found.update(running.gdb.system_registers(["ID_AA64MMFR0_EL1"]))
            return watch.stop(End.ENTERED)

        running.observe(steps)
    return found["ID_AA64MMFR0_EL1"]


def test_which_cpus_lack_a_page_size(tmp_path: Path) -> None:
    """Asked of each model: the table says no more and no less."""
    lacking: dict[str, set[str]] = {}
    for model in models_of_64_bits():
        (tmp_path / model).mkdir()
        has = granules(model, tmp_path / model)
        for size, (bit, none) in GRANULES.items():
            if has >> bit & 0xF == none:
                lacking.setdefault(size, set()).add(model)
    assert "cortex-a57" in lacking["16K"]
    known = ARCHES["aarch64"].without_pages
    assert lacking == {size: names & {*models_of_64_bits()} for size, names in known.items()}


@pytest.fixture
def own_signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As a command of ours obeys them; what it is told is forgotten afterwards."""
    for name in ("_received", "_held", "_put_off"):
        monkeypatch.setattr(signals, name, [])
    before = signals.obey_signals()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("name", ["file_for_qemu", "has_room", "QemuProcess"])
def test_an_interruption_while_qemu_starts_leaves_no_descriptor(
    name: str, tmp_path: Path, own_signals: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = getattr(spawn, name)

    def interrupted(*words: Any, **others: Any) -> Any:
        made = real(*words, **others)
        signal.raise_signal(signal.SIGINT)
        return made

    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with session(program("x86_64").halt(), first):
        pass  # which opens what stays open
    before = sorted(each.name for each in Path("/proc/self/fd").iterdir())
    monkeypatch.setattr(spawn, name, interrupted)
    with pytest.raises(KeyboardInterrupt), session(program("x86_64").halt(), second):
        pass
    assert sorted(each.name for each in Path("/proc/self/fd").iterdir()) == before
    assert psutil.Process().children(recursive=True) == []
