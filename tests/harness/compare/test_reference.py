"""Reference boots of a small guest: what befell QEMU is told as it is of a run of our own."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest

from bootproof.harness.case import Case
from bootproof.harness.compare import reference
from bootproof.harness.compare.reference import Reference
from bootproof.harness.host import files
from bootproof.harness.observation import Budget, End
from bootproof.harness.prove import Prepared
from bootproof.harness.qemu.gdbstub import GdbStub
from bootproof.harness.qemu.session import Session
from bootproof.harness.run import Start
from bootproof.harness.verdict import Verdict
from bootproof.loader.address import MIB
from tests.builders.disks import fill
from tests.builders.guests import Claim, Program, machine, program
from tests.builders.images import elf, load, notes, pvh_entry

MEMORY = 64 * MIB  # what QEMU's firmware needs
BUDGET = Budget(quiet_instructions=400_000_000)
NOTES = 0x40000  # behind code and text


def boot(code: Program, directory: Path, look: Callable[[], None] | None = None) -> Reference:
    """QEMU's own -kernel with `code` as a vmlinux; `look` is called while it is at its entry."""
    directory.mkdir(exist_ok=True)
    parts = [load(address, data) for address, data in code.contents.items()]
    kernel = elf(*parts, notes(pvh_entry(code.entry), paddr=NOTES), entry=code.entry)
    (directory / "pieces").mkdir()
    for name in ("kernel", "initrd"):
        (directory / "pieces" / name).write_bytes(kernel)
    file = directory.parent / "vmlinux"
    file.write_bytes(kernel)
    computer = machine("x86_64", memory=MEMORY)
    case = Case("x86_64", str(file), "elf", "pvh", memory=MEMORY)
    start = Start(None, computer, Claim(computer, code.entry).expected, budget=BUDGET)  # type: ignore[arg-type]
    prepared = Prepared(None, start)  # type: ignore[arg-type]
    plan = reference.plan(case, computer, "pvh")
    return reference.run(
        case, plan, prepared, directory, lambda _registers, _ram: look() if look else None
    )


def told(found: Reference) -> tuple[Verdict, End, str]:
    outcome = found.proven.outcome
    assert outcome is not None
    return found.proven.verdict, outcome.observation.end, found.proven.reason


def send(number: int) -> None:
    """To every QEMU there is below us."""
    for child in psutil.Process().children(recursive=True):
        child.send_signal(number)


def test_what_the_guest_says_and_how_it_ends(tmp_path: Path) -> None:
    found = boot(program("x86_64").say(b"hello\n").halt(), tmp_path / "run")
    assert found.registers is not None
    assert told(found)[:2] == (Verdict.STUCK, End.LOOPING)
    assert (tmp_path / "run" / "console.log").read_bytes() == b"hello\n"


def on_the_way(do: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Has it done before the guest's first instruction."""
    run_to = GdbStub.run_to

    def first(self: GdbStub, *arguments: Any) -> bool:
        do()
        return run_to(self, *arguments)

    monkeypatch.setattr(GdbStub, "run_to", first)


def once_said(text: bytes, directory: Path, do: Callable[[], None]) -> Callable[[], None]:
    """Starts waiting for text on the console, and has it done then."""

    def wait() -> None:
        deadline = time.monotonic() + 60
        while text not in (directory / "console.log").read_bytes():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        do()

    return Thread(target=wait, daemon=True).start


@pytest.mark.parametrize("when", ["on the way to the entry", "at the entry", "later"])
def test_qemu_that_the_host_ended(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a service manager, or an administrator, does it."""
    end = partial(send, signal.SIGTERM)
    if when == "on the way to the entry":
        on_the_way(end, monkeypatch)
    look = once_said(b"hello", tmp_path / "run", end) if when == "later" else end
    code = program("x86_64").say(b"hello\n").count()
    verdict, how, reason = told(boot(code, tmp_path / "run", look))
    assert (verdict, how) == (Verdict.INCONCLUSIVE, End.HOST_ENDED)
    assert reason.startswith("QEMU was told to end, and not by the guest")
    assert "terminating on signal 15" in reason


def test_qemu_that_was_killed(tmp_path: Path) -> None:
    kill = once_said(b"hello", tmp_path / "run", partial(send, signal.SIGKILL))
    found = boot(program("x86_64").say(b"hello\n").count(), tmp_path / "run", kill)
    assert told(found)[:2] == (Verdict.QEMU_FAILED, End.QEMU_EXITED)
    assert found.proven.reason.startswith("QEMU was ended by signal 9 after 'hello'")


@pytest.mark.parametrize("when", ["on the way to the entry", "at the entry"])
def test_qemu_that_was_stopped(when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = partial(send, signal.SIGSTOP)
    if when == "on the way to the entry":
        on_the_way(stop, monkeypatch)
    code = program("x86_64").say(b"hello\n").count()
    found = boot(code, tmp_path / "run", stop if when == "at the entry" else None)
    assert told(found)[:2] == (Verdict.INCONCLUSIVE, End.HOST_STOPPED)


def test_console_without_room_is_not_held_against_the_guest(
    disk: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that sets nothing aside, full from the entry until the guest has ended."""
    place = disk(40 << 10)
    monkeypatch.setattr(files, "_reserve", lambda *_: None)
    end = Session.end

    def free(self: Session) -> None:
        (place / "filler").unlink()
        end(self)

    monkeypatch.setattr(Session, "end", free)
    said = b"0123456789abcde\n" * 5000
    code = program("x86_64").say(said).halt()
    found = boot(code, place / "run", lambda: fill(place))
    assert (place / "run" / "console.log").read_bytes() != said
    assert found.proven.verdict is Verdict.INCONCLUSIVE
    assert found.proven.reason.startswith("the host had no room for all that the console said")
