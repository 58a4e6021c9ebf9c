"""One boot image on one machine, from start to artifacts: realise, start, watch, judge, report.

Owns the run directory and the order of the steps; each step lives in a module of its own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Generic, TypeVar

from bootproof.harness import evidence, verdict
from bootproof.harness.guest import logbuffer, text_in_ram
from bootproof.harness.guest.stages import Stage
from bootproof.harness.host.files import (
    disk_errors,
    file_for_qemu,
    has_room,
    lent_to_qemu,
    write_whole,
)
from bootproof.harness.host.process import STDERR, QemuProcess, most_written
from bootproof.harness.inputs.symbols import Symbols
from bootproof.harness.observation import (
    Budget,
    End,
    Observation,
    Observer,
    Placement,
    Probe,
    TextCheck,
)
from bootproof.harness.qemu import probe
from bootproof.harness.qemu.argv import Channels, LogMode, RamFile, RunLog, argv
from bootproof.harness.qemu.console import DEFAULT_LIMIT, ConsoleFile, timestamped
from bootproof.harness.qemu.gdbstub import GdbError, GdbStub
from bootproof.harness.qemu.machine import Machine
from bootproof.harness.qemu.monitor import Monitor, MonitorError
from bootproof.harness.qemu.placement import (
    PIECES_DIRECTORY,
    Realisation,
    guest_ram,
    realise,
    write,
)
from bootproof.harness.qemu.probe import Guest
from bootproof.harness.qemu.watch import (
    Ending,
    Watch,
    end_qemu,
    ending_without_answer,
    reset_cause,
)
from bootproof.harness.qemu.watchdog import Patience
from bootproof.harness.record import recording, reproduce
from bootproof.harness.record.recording import Record
from bootproof.harness.record.rundir import CONSOLE, DMESG, RECORD, RUN_LOG, TRANSCRIPT
from bootproof.harness.text import printable
from bootproof.harness.verdict import Expected, ExpectedHandover, Judgement, Verdict
from bootproof.loader import bootimage, imagedigest
from bootproof.loader.address import Range, format_size
from bootproof.loader.bootimage import BootImage
from bootproof.loader.layout import Region
from bootproof.loader.memory import GuestMemory

_GREETING_SECONDS: Final = 300.0
_Client = TypeVar("_Client", Monitor, GdbStub)
_Asked = TypeVar("_Asked", bound=Expected | ExpectedHandover, covariant=True)


@dataclass(frozen=True, slots=True)
class Costs:
    """What a run took. `host_seconds` is wall time, of which `qemu_seconds` QEMU was running.

    Of a guest that was run twice, `instructions` are those of the second run; the rest is the sum.
    """

    host_seconds: float
    qemu_seconds: float
    cpu_seconds: float
    instructions: int | None

    def after(self, first: Costs) -> Costs:
        """The costs of two runs of which only this one counts."""
        return Costs(
            first.host_seconds + self.host_seconds,
            first.qemu_seconds + self.qemu_seconds,
            first.cpu_seconds + self.cpu_seconds,
            self.instructions,
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """A judged run and the directory that holds all of it.

    `boot_image` is the digest of what was started; `placed` is what was added to it in guest RAM;
    `not_recorded` says why there is no record of any use, None when there is one.
    """

    judgement: Judgement
    observation: Observation
    costs: Costs
    directory: Path
    stages: tuple[Stage, ...]
    boot_image: str | None = None
    placed: tuple[Region, ...] = ()
    not_recorded: str | None = None


@dataclass(frozen=True, slots=True)
class Unpacked:
    """The vmlinux that a bzImage will unpack, linked to run at guest-physical `linked_at`."""

    vmlinux: Path
    linked_at: int


@dataclass(frozen=True, slots=True)
class Start(Generic[_Asked]):
    """What to run: a boot image (its directory is the run directory) on a machine.

    `unpacked` is needed to find the code of a kernel that unpacks itself; `check_text` is off when
    it is not at hand. `symbols` gives the kernel's, when one is
    needed. `marker` is console text that ends the run; `kill_at` is text at which QEMU
    is killed, to see that noticed. `stop_at_entry` ends the run with the hand-over.
    """

    image: BootImage
    machine: Machine
    expected: _Asked
    placement: Placement = Placement.PIECES
    budget: Budget = field(default_factory=Budget)
    on_console: Callable[[bytes], None] | None = None
    observer: Observer | None = None
    interactive: bool = False
    probe: bool = True
    unpacked: Unpacked | None = None
    check_text: bool = True
    symbols: Callable[[], Symbols | None] | None = None
    marker: bytes | None = None
    kill_at: bytes | None = None
    stop_at_entry: bool = False


AnyStart = Start[Expected | ExpectedHandover]


def run(start: AnyStart, directory: Path) -> Outcome:
    """Boots `directory`'s boot image and judges it; leaves no process and no file but artifacts.

    Raises LoaderError when the image cannot be realised on this machine, UserError when QEMU cannot
    be started at all or the disk is full.
    """
    with bootimage.open_ram(start.image, directory) as memory:
        return run_with(start, memory, directory)


def run_with(start: AnyStart, memory: GuestMemory, directory: Path) -> Outcome:
    """`run` with the image's RAM open already; it is only read.

    A guest that only the record is in the way of is run again without one.
    """
    outcome = _run_once(start, memory, directory)
    why = in_the_way(outcome.observation, directory) if start.machine.recorded else None
    if why is None:
        return outcome
    for name in (CONSOLE, STDERR, RUN_LOG, RECORD, DMESG):
        (directory / name).unlink(missing_ok=True)
    machine = replace(start.machine, unrecorded=why)
    again = _run_once(replace(start, machine=machine), memory, directory)
    return replace(again, costs=again.costs.after(outcome.costs))


def in_the_way(seen: Observation, directory: Path) -> str | None:
    """How recording ended a run that need not have ended, if it did.

    A CPU that takes one exception after the other and executes nothing keeps a QEMU that records
    from answering at all; and a log may become longer than any file may.
    """
    if seen.end is End.TOO_BUSY:
        return "QEMU does not answer while it records this guest"
    if seen.end is End.QEMU_EXITED and seen.exit_code == -signal.SIGXFSZ:
        most = most_written()
        log = directory / RUN_LOG
        if log.exists() and log.stat().st_size >= most:
            return f"the record is longer than {format_size(most)}"
    return None


def _run_once(start: AnyStart, memory: GuestMemory, directory: Path) -> Outcome:
    began = time.monotonic()
    realisation = realise(start.image, memory, start.machine, start.placement)
    try:
        with disk_errors(directory):
            write(realisation, memory, directory)
        with lent_to_qemu(directory), contextlib.ExitStack() as stack:
            qemu_began = time.monotonic()
            guest = _Run(start, realisation, memory, directory, stack)
            observation, log, code = guest.observe()
        qemu_seconds = time.monotonic() - qemu_began
    finally:
        shutil.rmtree(directory / PIECES_DIRECTORY, ignore_errors=True)
    # Not before QEMU is dead and the directory ours again: a shell is going to run the script.
    reproduce.write_script(start.machine, realisation, memory, directory)
    write_whole(directory / TRANSCRIPT, log.encode())
    if observation.log:
        write_whole(directory / DMESG, b"".join(map(_shown, observation.log.splitlines())))
    if start.machine.recorded:
        lost = recording.console_lost(directory / RUN_LOG, room_was_set_aside=guest.has_room)
        observation = replace(observation, console_lost=lost or observation.console_lost)
    judgement, observation = _judged(start, observation, code)
    costs = Costs(
        time.monotonic() - began, qemu_seconds, observation.cpu_seconds, observation.instructions
    )
    entry = observation.probe.instructions if observation.probe else None
    not_recorded = start.machine.not_recorded
    if not_recorded is None:
        record = Record(start.machine, start.placement, observation.instructions, entry)
        not_recorded = recording.finish(record, directory, observation.stderr)
    stages = recording.stages(observation, directory / RUN_LOG)
    digest = imagedigest.digest(start.image, memory)
    found = (judgement, observation, costs, directory, stages, digest, realisation.added)
    return Outcome(*found, not_recorded)


def _judged(
    start: AnyStart, observation: Observation, code: tuple[bytes, bytes]
) -> tuple[Judgement, Observation]:
    """The verdict, and what was seen: with a name for the place where that is what one asks for."""
    judgement = verdict.judge(start.expected, observation)
    place = observation.place
    symbols = start.symbols() if judgement.verdict in _NAMED and place and start.symbols else None
    if place is None or symbols is None:
        return judgement, observation
    region = start.image.region("kernel") if start.unpacked is None else None
    name = symbols.name(place.pc, *code, displacement=region.start if region else 0)
    observation = replace(observation, place=replace(place, symbol=name))
    return verdict.judge(start.expected, observation), observation


# What else a guest ends with, it has said itself. Finding names may take half a minute.
_NAMED: Final = (Verdict.STUCK, Verdict.SILENT, Verdict.CPU_RESET, Verdict.OVER_BUDGET)


def _shown(line: bytes) -> bytes:
    return f"{printable(line)}\n".encode()


class _Run:
    """One QEMU with its channels and its RAM; `stack` ends them all, whatever happens."""

    def __init__(
        self,
        start: AnyStart,
        realisation: Realisation,
        memory: GuestMemory,
        directory: Path,
        stack: contextlib.ExitStack,
    ) -> None:
        self._start = start
        self._directory = directory
        self._monitor, qmp = _channel(stack, Monitor)
        self._gdb, gdb = None, None
        if start.probe:
            self._gdb, gdb = _channel(stack, lambda ours: GdbStub(ours, self._monitor.wait))
        ram = stack.enter_context(guest_ram(memory, mapped=realisation.launch.mapped))
        channels = Channels(
            console=CONSOLE,
            qmp_fd=qmp.fileno(),
            gdb_fd=gdb.fileno() if gdb else None,
            ram=RamFile(f"/proc/self/fd/{ram.fileno()}", shared=True),
            terminal=start.interactive,
            append=True,
            log=RunLog(RUN_LOG, LogMode.RECORD) if start.machine.recorded else None,
        )
        room = min(start.budget.console_bytes, DEFAULT_LIMIT)
        console = file_for_qemu(directory / CONSOLE, room)
        self.has_room = has_room(console, room)
        self._console = stack.enter_context(
            ConsoleFile(
                console,
                self._monitor.wait,
                self._ended,
                start.on_console,
                limit=start.budget.console_bytes + 1,
            )
        )
        inherited = [qmp.fileno(), ram.fileno(), *([gdb.fileno()] if gdb else [])]
        words = argv(start.machine, realisation.launch, channels)
        self._process = stack.enter_context(
            QemuProcess(words, directory, pass_fds=inherited, terminal=start.interactive)
        )
        self._patience = Patience(
            self._process, start.budget.idle_seconds, lambda: self._monitor.told_to_end
        )
        self._monitor.give_up_when(self._patience.is_over)
        for theirs in (qmp, gdb):
            if theirs is not None:
                theirs.close()
        self._guest = Guest(start.image, start.machine.arch.dump, realisation, memory, ram)

    def observe(self) -> tuple[Observation, str, tuple[bytes, bytes]]:
        """Watches the guest to its end, and ends QEMU.

        Also gives the transcript with times, and the code before and at the program counter.
        """
        probe, ending = self._watch()
        end_qemu(self._process, self._monitor)
        transcript = bytes(self._console.transcript)
        said = evidence.parse(transcript)
        text = self._check_text(said.code)
        log = timestamped(transcript, self._console.arrivals)
        observation = Observation(
            transcript=transcript,
            end=ending.end,
            exit_code=self._process.exit_code if ending.end is End.QEMU_EXITED else None,
            stderr=self._process.stderr(),
            instructions=ending.usage.instructions,
            cpu_seconds=ending.usage.cpu_seconds,
            registers=ending.registers,
            log=b"" if said.proof else logbuffer.read(self._guest.ram),
            place=ending.place,
            reset=reset_cause(self._start.machine.arch.dump, ending),
            probe=probe,
            text=text,
            console_lost=not self.has_room and self._disk_was_full(),
        )
        return observation, log, (ending.before, ending.at)

    def _check_text(self, code: Range | None) -> TextCheck | None:
        """Looks for the kernel's code in RAM where the guest says it is, if it says so."""
        ram = self._guest.ram
        wanted = self._start.check_text
        if not wanted or code is None or not ram.contains(code.start, code.size):
            return None
        unpacked = self._start.unpacked
        if unpacked is None:
            return text_in_ram.check(self._guest.written, ram, code)
        banks = [(bank.base, bank.size) for bank in ram.banks]
        offset = code.start - unpacked.linked_at
        with text_in_ram.unpacked(unpacked.vmlinux, offset, banks) as reference:
            return text_in_ram.check(reference, ram, code)

    def _watch(self) -> tuple[Probe | None, Ending]:
        found: Probe | None = None
        watch = Watch(
            self._process,
            self._monitor,
            self._console,
            self._start.budget,
            self._start.machine.arch.dump,
            self._guest.ram,
            self._start.observer,
        )
        try:
            self._monitor.connect(_GREETING_SECONDS, wake=self._start.machine.recorded)
            # QEMU has read them; were we killed now, nothing of them would stay.
            shutil.rmtree(self._directory / PIECES_DIRECTORY, ignore_errors=True)
            if self._gdb is None:
                self._monitor.execute("cont")
            else:
                found = probe.at_entry(
                    self._guest,
                    self._monitor,
                    self._gdb,
                    watch.given_up,
                    go_on=not self._start.stop_at_entry,
                )
                if not found.reached:
                    return found, watch.not_entered()
                if not found.clean:
                    return found, watch.stop(End.WRONG_HANDOVER)
                if self._start.stop_at_entry:
                    return found, watch.stop(End.ENTERED)
            proof = isinstance(self._start.expected, Expected)
            return found, watch.until_the_end(
                proof=proof, marker=self._start.marker, kill_at=self._start.kill_at
            )
        except (MonitorError, GdbError):
            # QEMU closes its channels when it ends; its exit says more than the broken connection.
            ending = ending_without_answer(self._process, self._console, self._patience.end)
            told = ending.end is End.QEMU_EXITED and watch.shutdown() is End.HOST_ENDED
            return found, replace(ending, end=End.HOST_ENDED) if told else ending

    def _disk_was_full(self) -> bool:
        """Whether it is full now, or was when QEMU wrote its log."""
        full = os.statvfs(self._directory).f_bavail == 0
        return full or recording.write_failed(self._process.stderr())

    def _ended(self) -> bool:
        return self._process.ended()


def _channel(
    stack: contextlib.ExitStack, client: Callable[[socket.socket], _Client]
) -> tuple[_Client, socket.socket]:
    """A client on one end of a socket pair, and the other end for QEMU to inherit."""
    ours, theirs = socket.socketpair()
    stack.enter_context(theirs)
    return stack.enter_context(client(ours)), theirs
