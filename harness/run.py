"""One boot image on one machine: placed, started, and again where only the record was in the way.

What follows when QEMU was started is bootproof.harness.course's.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bootproof.harness.host.files import disk_errors
from bootproof.harness.host.rundir import CONSOLE, DEVICES_DIRECTORY, DMESG, RECORD, RUN_LOG, STDERR
from bootproof.harness.host.turns import TURNS
from bootproof.harness.qemu.placement import PlacedImage, guest_ram, place_image, write
from bootproof.harness.qemu.spawn import Spawned
from bootproof.harness.start import Start
from bootproof.loader import bootimage
from bootproof.loader.arch import StubError
from bootproof.loader.errors import LoaderError
from bootproof.loader.layout import LayoutError
from bootproof.loader.memory import GuestMemory

if TYPE_CHECKING:
    from bootproof.harness.course import Outcome


def run(start: Start, directory: Path) -> Outcome:
    """Boots `directory`'s boot image and judges it; leaves no process and no file but artifacts.

    Raises LoaderError when the image cannot be placed on this machine, UserError when QEMU cannot
    be started at all or the disk is full.
    """
    home = start.home or directory
    try:
        with bootimage.open_ram(start.image, home, start.nonzero) as memory:
            return _run(start, memory, directory)
    except LoaderError as error:
        if start.home is not None:
            error.file = error.file or str(home / bootimage.DESCRIPTION)
        raise


def _run(start: Start, memory: GuestMemory, directory: Path) -> Outcome:
    """A guest that only the record is in the way of is run again without one."""
    try:
        outcome = _run_once(start, memory, directory)
    except (StubError, LayoutError) as error:
        from bootproof.harness import course

        return course.never_started(start, memory, directory, error)
    if outcome.in_the_way is None:
        return outcome
    for name in (CONSOLE, STDERR, RUN_LOG, RECORD, DMESG):
        (directory / name).unlink(missing_ok=True)
    machine = replace(start.machine, unrecorded=outcome.in_the_way)
    again = _run_once(replace(start, machine=machine), memory, directory)
    return replace(again, costs=again.costs.after(outcome.costs))


def _run_once(start: Start, memory: GuestMemory, directory: Path) -> Outcome:
    began = TURNS.clock()
    placed = place_image(start.image, memory, start.machine, start.placement)
    with guest_ram(memory, start.machine.banks, placed.mapped) as ram:
        with _device_files(placed, memory, directory):
            qemu_began = TURNS.clock()
            with Spawned(
                *(start.machine, placed.launch, ram, directory),
                budget=start.budget,
                with_gdb=start.probe,
                talker=start.talker,
            ) as qemu:
                from bootproof.harness.course import Course  # QEMU takes as long to start as this

                course = Course(start, qemu, placed, memory)
                course.follow()
            qemu_seconds = TURNS.clock() - qemu_began
        return course.outcome(lambda: TURNS.clock() - began, qemu_seconds)


@contextlib.contextmanager
def _device_files(placed: PlacedImage, memory: GuestMemory, directory: Path) -> Iterator[None]:
    """What QEMU reads as it starts. Raises UserError."""
    try:
        with disk_errors(directory):
            write(placed, memory, directory)
        yield
    finally:
        shutil.rmtree(directory / DEVICES_DIRECTORY, ignore_errors=True)
