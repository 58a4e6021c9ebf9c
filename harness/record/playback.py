"""A recorded run played back: the same boot image on the same QEMU, following the run's own log.

Owns opening what a record consists of, and one QEMU in replay mode. The directory of the run is
only read, whoever made it; QEMU works in a temporary one that goes away with it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.harness.errors import UserError
from bootproof.harness.host.files import disk_errors
from bootproof.harness.host.rundir import CONSOLE, RUN_LOG
from bootproof.harness.qemu.binary import find_qemu, version_text
from bootproof.harness.qemu.machine import Machine
from bootproof.harness.qemu.monitor import Event, MonitorError
from bootproof.harness.qemu.placement import guest_ram, place_image, write
from bootproof.harness.qemu.session import Session
from bootproof.harness.qemu.spawn import Spawned
from bootproof.harness.qemu.watch import EXIT_SECONDS, POLL_SECONDS
from bootproof.harness.record import recording, replaylog
from bootproof.harness.record.recording import Record
from bootproof.harness.record.replaylog import ReplayLogError
from bootproof.harness.terms import Budget
from bootproof.harness.text import printable
from bootproof.kernels import scratch
from bootproof.loader import bootimage
from bootproof.loader.bootimage import BootImage
from bootproof.loader.memory import GuestMemory

# A replay that executes nothing for so long waits for ever: busily, or asleep in so many looks.
_STILL_CPU_SECONDS: Final = 20.0
_STILL_LOOKS: Final = 60
_SHORTEST_WAIT: Final = 0.002  # seconds; the next one is twice as long
_ROOM: Final = 1 << 20  # for what a replay may say beyond what was recorded
_CONSOLE_LIMIT: Final = 17 << 20  # what a run's console is cut to, and some


@dataclass(frozen=True, slots=True)
class Recorded:
    """A run that can be played back here: its boot image, its record, and what it printed."""

    directory: Path
    image: BootImage
    home: Path  # the directory that holds the guest's RAM
    record: Record
    machine: Machine  # the one of the record, with the QEMU that is here
    transcript: bytes
    instructions: int  # the length of the run

    @property
    def log(self) -> Path:
        return self.directory / RUN_LOG

    @property
    def last(self) -> int:
        """The last place in it, in instructions, where a playback can be asked anything: with its
        last instruction a guest may end QEMU.
        """
        return self.instructions - self.machine.arch.guest_ends_qemu

    def memory(self) -> GuestMemory:
        """The guest's RAM before its first instruction, to be read. Raises GuestMemoryError."""
        return bootimage.open_ram(self.image, self.home)


def open_recorded(directory: Path, binary: str | None = None) -> Recorded:
    """Reads and checks all that a playback needs, on the QEMU `binary` or the one that is found.

    Raises UserError and LoaderError.
    """
    image, home = _boot_image(directory)
    record = recording.load(directory)
    machine = _machine(record, image, directory, binary)
    try:
        log = replaylog.read(directory / RUN_LOG)
    except ReplayLogError as error:
        raise UserError(f"{directory / RUN_LOG}: {error}") from error
    transcript = recording.read_small(directory / CONSOLE, _CONSOLE_LIMIT)
    return Recorded(directory, image, home, record, machine, transcript, log.instructions)


def _boot_image(directory: Path) -> tuple[BootImage, Path]:
    """The boot image of a run, and where its RAM is: a run of somebody else's has a link to it."""
    description, ram = directory / bootimage.DESCRIPTION, directory / bootimage.RAM
    if not os.path.lexists(directory):
        raise UserError(f"{directory}: {os.strerror(errno.ENOENT)}")
    if not description.exists():
        raise UserError(f"{directory}: is not the directory of a run: no {bootimage.DESCRIPTION}")
    if not ram.exists():
        raise UserError(
            f"{directory}: guest RAM was not kept ({bootimage.RAM}), and nothing can be replayed"
            " without it; run the case again (with --keep all)"
        )
    try:
        image = bootimage.parse(recording.read_small(description, bootimage.DESCRIPTION_LIMIT))
    except ValueError as error:
        raise UserError(f"{description}: {error}") from error
    return image, _linked(ram, image).parent if ram.is_symlink() else directory


def _linked(link: Path, image: BootImage) -> Path:
    """The RAM that a link leads to: that of the boot image that was run, and nobody else's file.

    Raises UserError and LoaderError.
    """
    ram = link.resolve()
    if ram.name == bootimage.RAM:
        found = bootimage.open_boot_image(ram.parent)
        same = (found.arch, found.cpus) == (image.arch, image.cpus)
        if same and {*found.banks} == {*image.banks}:
            return ram
    raise UserError(f"{link}: is a link to {ram}, which is not the RAM of this boot image")


def _machine(record: Record, image: BootImage, directory: Path, binary: str | None) -> Machine:
    """The recorded machine on the QEMU found here, which must be of the very same version."""
    recorded = record.machine
    if (image.arch, image.memory_size) != (recorded.arch.name, recorded.memory):
        raise UserError(
            f"{directory}: the record is of a {recorded.arch.name} machine with"
            f" {recorded.memory:#x} bytes of RAM, the boot image is for {image.arch} with"
            f" {image.memory_size:#x}"
        )
    qemu = find_qemu(recorded.arch.name, binary)
    if qemu.version != recorded.qemu.version:
        raise UserError(
            f"{directory}: was recorded with QEMU {version_text(recorded.qemu.version)}, but"
            f" {qemu.path} is {version_text(qemu.version)}, and a record can only be replayed"
            " with the same version; name one with --qemu NAME=PATH, as for the run"
        )
    return replace(recorded, qemu=qemu)


class Playback:
    """QEMU in replay mode, stopped before the first instruction. See `started`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.process = session.process
        self.monitor = session.monitor
        self._in_all: int | None = None  # known of a QEMU that the guest has ended

    @property
    def instructions(self) -> int:
        return self._in_all or self.monitor.instructions() or 0

    def transcript(self) -> bytes:
        """What the console has shown so far."""
        self._session.console.drain()
        return bytes(self._session.console.transcript)

    def run_to(self, instructions: int) -> None:
        """Goes on to where exactly so many instructions have been executed, and stops there."""
        if instructions > self.instructions:
            self.monitor.execute("replay-break", {"icount": instructions})
            self._go_on(("STOP",), instructions)

    def run_to_the_end(self, recorded: Recorded) -> None:
        """Goes on to the end of a record, or to where it runs astray."""
        if recorded.last < recorded.instructions:
            self.run_to(recorded.last)
        try:
            self._go_on(("SHUTDOWN",), recorded.instructions)
        except MonitorError:
            self.process.wait(EXIT_SECONDS)
            if not self._session.guest_ended_qemu():
                raise
            self._in_all = recorded.instructions

    def _go_on(self, names: tuple[str, ...], most: int) -> None:
        self.monitor.events()
        self.monitor.execute("cont")
        last, since, asleep, pause = -1, 0.0, 0, _SHORTEST_WAIT
        while not any(event.name in names for event in self._events()):
            self.monitor.wait(pause)
            pause = min(2 * pause, POLL_SECONDS)
            asleep = asleep + 1 if self.process.asleep() else 0
            executed, used = self.instructions, self.process.cpu_seconds()
            if executed > most:
                return
            if executed != last:
                last, since, asleep = executed, used, 0
            if used - since > _STILL_CPU_SECONDS or asleep > _STILL_LOOKS:
                return

    def _events(self) -> list[Event]:
        if self.process.ended():
            raise MonitorError(self.process.stderr() or "QEMU ended without a word")
        return self.monitor.events()


@contextlib.contextmanager
def started(
    recorded: Recorded, *, debugger: socket.socket | None = None, snapshots: bytes | None = None
) -> Iterator[Playback]:
    """Starts the playback of a record. Raises UserError and LoaderError.

    `debugger` is a socket on which QEMU listens for one; `snapshots` is an empty qcow2 file for it
    to go back to.
    """
    with (
        scratch.directory() as name,
        recorded.memory() as memory,
    ):
        directory = Path(name)
        placement = recorded.record.placement
        placed = place_image(recorded.image, memory, recorded.machine, placement)
        with disk_errors(directory):
            write(placed, memory, directory)
            shutil.copyfile(recorded.log, directory / RUN_LOG)
        with (
            guest_ram(memory, recorded.machine.banks, placed.mapped) as ram,
            Spawned(
                *(recorded.machine, placed.launch, ram, directory),
                budget=Budget(console_bytes=len(recorded.transcript) + _ROOM),
                with_gdb=False,
                replay=True,
                debugger=debugger,
                snapshots=snapshots,
            ) as qemu,
            Session(qemu) as session,
        ):
            yield from _connected(session)


def _connected(session: Session) -> Iterator[Playback]:
    try:
        session.connect()
        yield Playback(session)
    except MonitorError as error:
        session.process.wait(EXIT_SECONDS)
        given_up = session.watchdog.end
        said = session.process.stderr().splitlines()[-1:]
        why = said or [given_up.value if given_up else str(error)]
        raise UserError(f"the replay failed: {printable(why[0].encode())}") from error
    session.end()
