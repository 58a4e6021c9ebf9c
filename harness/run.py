"""One boot image on one machine, from start to artifacts: realise, start, watch, judge, report.

Owns the run directory and the order of the steps; each step lives in a module of its own.
"""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from harness import qemu, reproduce, verdict
from harness.console import ConsoleFile, timestamped
from harness.monitor import Monitor, MonitorError
from harness.process import QemuProcess, give_to_qemu
from harness.qemu import Channels, Machine
from harness.realise import PIECES_DIRECTORY, Placement, Realisation, realise, write
from harness.rundir import CONSOLE, TRANSCRIPT
from harness.verdict import End, Expected, Judgement, Observation
from harness.watch import Budget, Ending, Usage, Watch, ending_without_answer
from loader import bootimage
from loader.bootimage import BootImage
from loader.memory import GuestMemory

_GREETING_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class Costs:
    """What a run took. `host_seconds` is wall time, of which `qemu_seconds` QEMU was running."""

    host_seconds: float
    qemu_seconds: float
    cpu_seconds: float
    instructions: int | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A judged run and the directory that holds all of it."""

    judgement: Judgement
    observation: Observation
    costs: Costs
    directory: Path


@dataclass(frozen=True, slots=True)
class Start:
    """What to run: a boot image (its directory is the run directory) on a machine."""

    image: BootImage
    machine: Machine
    expected: Expected
    placement: Placement = Placement.PIECES
    budget: Budget = field(default_factory=Budget)
    on_console: Callable[[bytes], None] | None = None
    interactive: bool = False


def run(start: Start, directory: Path) -> Outcome:
    """Boots `directory`'s boot image and judges it; leaves no process and no file but artifacts.

    Raises LoaderError when the image cannot be realised on this machine, UserError when QEMU cannot
    be started at all.
    """
    began = time.monotonic()
    banks = [(bank.base, bank.size) for bank in start.image.banks]
    with GuestMemory.open(directory / bootimage.RAM, banks) as memory:
        realisation = realise(start.image, memory, start.machine, start.placement)
        try:
            write(realisation, memory, directory)
            reproduce.write_script(start.machine, realisation, memory, directory)
            give_to_qemu(directory)
            qemu_began = time.monotonic()
            observation = _observe(start, realisation, directory)
            qemu_seconds = time.monotonic() - qemu_began
        finally:
            shutil.rmtree(directory / PIECES_DIRECTORY, ignore_errors=True)
    judgement = verdict.judge(start.expected, observation)
    costs = Costs(
        time.monotonic() - began, qemu_seconds, observation.cpu_seconds, observation.instructions
    )
    return Outcome(judgement, observation, costs, directory)


def _observe(start: Start, realisation: Realisation, directory: Path) -> Observation:
    ours, theirs = socket.socketpair()
    with Monitor(ours) as monitor, theirs:
        channels = Channels(CONSOLE, theirs.fileno(), terminal=start.interactive)
        argv = qemu.argv(start.machine, realisation.launch, channels)
        with QemuProcess(
            argv, directory, pass_fds=[theirs.fileno()], terminal=start.interactive
        ) as process:
            theirs.close()
            with ConsoleFile(
                directory / CONSOLE, monitor.wait, process.ended, start.on_console
            ) as console:
                ending = _watch(start, process, monitor, console)
                _end_qemu(process, monitor)
        (directory / TRANSCRIPT).write_text(timestamped(console.transcript, console.arrivals))
    return Observation(
        transcript=bytes(console.transcript),
        end=ending.end,
        exit_code=process.exit_code if ending.end is End.QEMU_EXITED else None,
        stderr=process.stderr(),
        instructions=ending.usage.instructions,
        cpu_seconds=ending.usage.cpu_seconds,
        registers=ending.registers,
        pc=start.machine.arch.dump.program_counter(ending.registers),
    )


def _watch(start: Start, process: QemuProcess, monitor: Monitor, console: ConsoleFile) -> Ending:
    try:
        monitor.connect(_GREETING_SECONDS)
    except MonitorError:
        return ending_without_answer(process, Usage(None, process.cpu_seconds(), 0))
    return Watch(process, monitor, console, start.budget, start.machine.arch.dump).until_the_end()


def _end_qemu(process: QemuProcess, monitor: Monitor) -> None:
    if process.ended():
        return
    try:
        monitor.execute("quit")
    except MonitorError:
        return  # already on its way out; leaving the process's context ends it for certain
    process.wait(2)
