"""Reference boots: what QEMU's -kernel does with a file, and what befell it told as of our runs."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest

from bootproof.harness.case import Case
from bootproof.harness.compare import reference
from bootproof.harness.compare.reference import Reference
from bootproof.harness.errors import UserError
from bootproof.harness.host import files
from bootproof.harness.observation import End
from bootproof.harness.prepare import Prepared
from bootproof.harness.qemu.argv import Channels, DirectKernel, Launch, argv
from bootproof.harness.qemu.gdbstub import GdbStub
from bootproof.harness.qemu.machine import Machine
from bootproof.harness.qemu.session import Session
from bootproof.harness.start import Start
from bootproof.harness.terms import Budget
from bootproof.harness.verdict import Verdict
from bootproof.loader.address import GIB, MIB, Range
from bootproof.loader.boot_parameters import BootParameters
from tests.builders.disks import fill
from tests.builders.guests import Claim, Program, machine, program
from tests.builders.images import elf, image, load, notes, pvh_entry

MEMORY = 64 * MIB  # what QEMU's firmware needs
BUDGET = Budget(quiet_instructions=400_000_000)
NOTES = 0x40000  # behind code and text


def boot(code: Program, directory: Path, look: Callable[[], None] | None = None) -> Reference:
    """QEMU's own -kernel with `code` as a vmlinux; `look` is called while it is at its entry."""
    directory.mkdir(exist_ok=True)
    parts = [load(address, data) for address, data in code.contents.items()]
    kernel = elf(*parts, notes(pvh_entry(code.entry), paddr=NOTES), entry=code.entry)
    (directory / "devices").mkdir()
    for name in ("kernel", "initrd"):
        (directory / "devices" / name).write_bytes(kernel)
    file = directory.parent / "vmlinux"
    file.write_bytes(kernel)
    computer = machine("x86_64", memory=MEMORY)
    case = Case("x86_64", str(file), "elf", "pvh", memory=MEMORY)
    start = Start(None, computer, Claim(computer, code.entry).expected, budget=BUDGET)  # type: ignore[arg-type]
    prepared = Prepared(replace(start, lacks=lambda: ("a clock", "a serial port")), None)
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
    assert found.proven.reason.endswith("; the kernel lacks a clock; and a serial port")
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
def test_qemu_that_was_stopped(
    when: str, tmp_path: Path, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    end = Session.tell_to_end

    def free(self: Session) -> bool:
        (place / "filler").unlink()
        return end(self)

    monkeypatch.setattr(Session, "tell_to_end", free)
    said = b"0123456789abcde\n" * 5000
    code = program("x86_64").say(said).halt()
    found = boot(code, place / "run", lambda: fill(place))
    assert (place / "run" / "console.log").read_bytes() != said
    assert found.proven.verdict is Verdict.INCONCLUSIVE
    assert found.proven.reason.startswith("the host had no room for all that the console said")


def test_only_the_reference_boot_has_qemus_own_loader() -> None:
    machine = Machine.with_defaults("x86_64", memory=64 * MIB)
    channels = Channels(console="console.log")
    ours = argv(machine, Launch((), (0x1000,)), channels)
    theirs = argv(machine, DirectKernel("k", "i", "a,b"), channels)
    assert not {"-kernel", "-initrd", "-append", "-bios"} & set(ours)
    assert theirs[-6:] == ["-kernel", "k", "-initrd", "i", "-append", "a,b"]
    loader = ours.index("-device")
    assert ours[:loader] == theirs[:-6]  # the same machine in all else


@pytest.mark.parametrize(
    ("text_offset", "base"), [(0, GIB + 2 * MIB), (0xFFF, GIB + 2 * MIB), (0x80000, GIB)]
)
def test_where_qemu_puts_an_image(tmp_path: Path, text_offset: int, base: int) -> None:
    kernel = tmp_path / "Image"
    kernel.write_bytes(image(text_offset=text_offset))
    assert reference.default_offset("aarch64", kernel) == base


def test_qemu_puts_a_vmlinux_where_it_says(tmp_path: Path) -> None:
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(elf(load(MIB, b"code"), entry=MIB))
    assert reference.default_offset("x86_64", kernel) is None


def test_qemu_starts_no_vmlinux_without_a_pvh_note(tmp_path: Path) -> None:
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(elf(load(MIB, b"code"), entry=MIB))
    case = Case("x86_64", str(kernel), "elf", "linux64")
    with pytest.raises(UserError, match="has no PVH note"):
        reference.plan(case, Machine.with_defaults("x86_64", memory=64 * MIB), "linux64")


def test_a_vmlinux_is_entered_at_its_pvh_note_however_we_enter_it(tmp_path: Path) -> None:
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(elf(load(MIB, b"code"), notes(pvh_entry(MIB + 0x10)), entry=MIB))
    case = Case("x86_64", str(kernel), "elf", "linux64", offset=2 * MIB)
    found = reference.plan(case, Machine.with_defaults("x86_64", memory=64 * MIB), "linux64")
    assert (found.protocol, found.entry) == ("pvh", MIB + 0x10)


def test_expects_the_ram_that_its_kernel_was_told_of(tmp_path: Path) -> None:
    """Whether the kernel logs it or not: with "quiet" it says nothing of its map."""
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(elf(load(MIB, b"code"), notes(pvh_entry(MIB)), entry=MIB))
    computer = machine("x86_64", memory=MEMORY)
    plan = reference.plan(Case("x86_64", str(kernel), "elf", "pvh"), computer, "pvh")
    ours = Claim(computer, MIB).expected
    cut = (Range(0x1000, 0x9EC00), Range.between(MIB, MEMORY - MIB))
    expected = reference._expected(ours, plan, computer, BootParameters(system_ram=cut))
    assert expected.ram == cut != ours.ram
    assert reference._expected(ours, plan, computer, None).ram == ours.ram
