"""The record of a run: QEMU's log of it, and what else it takes to play that back.

    replay.bin    the log, written by QEMU (bootproof.harness.record.replaylog reads it)
    replay.json   the machine, the placement and the QEMU version of the run, and its length

Owns replay.json. It may come from a stranger: it names no file and no command, and all that goes
from it into a QEMU command line is one of a list or of a narrow form.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeAlias

from bootproof.dataclass import dataclass
from bootproof.harness.arch.arch import Arch, Version
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.errors import UserError
from bootproof.harness.guest.stages import ENTRY, Mark, Stage, marks
from bootproof.harness.host.files import disk_errors, open_regular, write_whole
from bootproof.harness.host.rundir import RECORD, RESULT, RUN_LOG
from bootproof.harness.observation import End, Observation
from bootproof.harness.qemu.binary import QemuBinary, version_text
from bootproof.harness.qemu.clock import ICOUNT_SHIFT
from bootproof.harness.qemu.machine import Machine
from bootproof.harness.qemu.session import log_write_failed
from bootproof.harness.record import replaylog
from bootproof.harness.record.replaylog import ReplayLog, ReplayLogError
from bootproof.harness.terms import Placement
from bootproof.loader import strictjson
from bootproof.loader.address import MIB, format_size

# What is read of a log, or why it cannot be.
Logged: TypeAlias = ReplayLog | ReplayLogError

FORMAT: Final = "bootproof record"
_VERSION: Final = 1
_SIZE_LIMIT: Final = 1 << 16
_CPU_MODEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=,+-]{0,199}", re.ASCII)
_QEMU_VERSION: Final = re.compile(r"(\d{1,4})\.(\d{1,4})\.(\d{1,4})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Record:
    """A recorded run."""

    # Its QEMU has the version that recorded and no path: another QEMU plays it back.
    machine: Machine
    placement: Placement
    # None when QEMU went away before it could be asked.
    instructions: int | None
    # How many of them had been executed when the guest was stopped at its entry, if it was.
    entry: int | None = None


def read_log(path: Path, transcript: bytes, limit: int = replaylog.READ_LIMIT) -> Logged:
    """What QEMU's log of a run says, of the stages that the transcript shows too; or why it cannot
    be read, as where it is longer than `limit` bytes.

    All that is asked of a log when a run ends is asked of this: reading it again takes as long.
    """
    offsets = [mark.offset for mark in marks(transcript)]
    for asked in (offsets, []):  # without them, where the log does not reach as far
        try:
            return replaylog.read(path, asked, limit)
        except ReplayLogError as error:
            unread = error
    return unread


def stages(observation: Observation, log: Logged | None) -> tuple[Stage, ...]:
    """The stages of a run, with exact instruction counts where the log has them."""
    reached = marks(observation.transcript)
    counts = _counts(reached, observation, log)
    probe = observation.probe
    entry = []
    if probe is not None and probe.reached:
        entry = [Stage(ENTRY, probe.instructions, None)]
    pairs = zip(reached, counts, strict=True)
    return (*entry, *(mark.reached_after(count) for mark, count in pairs))


def _counts(
    reached: list[Mark], observation: Observation, log: Logged | None
) -> tuple[int, ...] | tuple[None, ...]:
    """Instructions before each mark; not one of them when log and run do not agree entirely."""
    if isinstance(log, ReplayLog) and len(log.at) == len(reached):
        whole = (log.instructions, log.console_bytes)
        if whole == (observation.instructions, len(observation.transcript)):
            return log.at
    return (None,) * len(reached)


def finish(record: Record, directory: Path, stderr: str, log: Logged) -> str | None:
    """Completes the record of a run that has just ended, and writes replay.json.

    Gives the reason when it is of no use. A log that QEMU could not write is removed, whatever can
    be read of it; any other is left as it is: it tells itself what is wrong with it. Raises
    UserError.
    """
    if log_write_failed(stderr):
        (directory / RUN_LOG).unlink(missing_ok=True)
        return "QEMU could not write all of its log: it was too long, or the disk was full"
    save(record, directory)
    if isinstance(log, ReplayLogError):
        return f"{RUN_LOG} {log}"
    replaylog.put_in_order(directory / RUN_LOG, log)
    return None


def counted(seen: Observation, log: Logged) -> Observation:
    """What was seen, with the log's count of instructions where QEMU ended before it was asked.

    A log that could not be written as a whole lacks some of them.
    """
    if seen.exit_code is None or isinstance(log, ReplayLogError) or log_write_failed(seen.stderr):
        return seen
    return replace(seen, instructions=log.instructions or None)


def instructions(seen: Observation, arch: Arch) -> int | None:
    """Of the guest, until it ended; None also where it ran on until QEMU had stopped it."""
    off = seen.end is End.GUEST_SHUTDOWN and seen.exit_code is None
    return None if off and not arch.stops_at_power_off else seen.instructions


def console_lost(seen: Observation, log: Logged, path: Path, *, room_was_set_aside: bool) -> bool:
    """Whether the host may not have taken all that the console said.

    The log, which is at `path`, tells, if it is of all that was executed. If it has not itself
    found room on the disk, only room that was set aside for the console is certain.
    """
    if isinstance(log, ReplayLogError):
        too_long = path.exists() and path.stat().st_size > replaylog.READ_LIMIT
        return not room_was_set_aside and not too_long
    whole = (log.instructions or None) == seen.instructions
    return log.failed_writes > 0 or not (whole or room_was_set_aside)


def save(record: Record, directory: Path) -> None:
    """Writes replay.json. Raises UserError."""
    machine = record.machine
    data = {
        "format": FORMAT,
        "version": _VERSION,
        "qemu": version_text(machine.qemu.version),
        "arch": machine.arch.name,
        "board": machine.board,
        "cpu": machine.cpu,
        "memory": machine.memory,
        "icount_shift": ICOUNT_SHIFT,
        "placement": record.placement.value,
        "instructions": record.instructions,
        "entry_instructions": record.entry,
    }
    write_whole(directory / RECORD, f"{json.dumps(data, indent=2)}\n".encode())


def load(directory: Path) -> Record:
    """Reads replay.json. Raises UserError naming the file, the field and the reason."""
    path = directory / RECORD
    if not os.path.lexists(path):
        raise UserError(
            f"{directory}: there is no record of this run ({RECORD});"
            f" {RESULT} says why (not_recorded)"
        )
    try:
        return parse(read_small(path))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def parse(raw: bytes) -> Record:
    """The record that a replay.json describes. Raises ValueError naming the JSON path."""
    required = ("format", "version", "qemu", "arch", "board", "cpu", "memory")
    more = ("icount_shift", "placement", "instructions", "entry_instructions")
    root = strictjson.record(strictjson.parse(raw), "$", (*required, *more))
    strictjson.one_of(root["format"], "$.format", (FORMAT,))
    _equal(root, "version", _VERSION)
    _equal(root, "icount_shift", ICOUNT_SHIFT)
    arch = ARCHES[strictjson.one_of(root["arch"], "$.arch", tuple(ARCHES))]
    board = strictjson.one_of(root["board"], "$.board", tuple(arch.boards))
    machine = Machine(
        arch=arch,
        qemu=QemuBinary(arch.emulator, _version(root)),
        board=board,
        cpu=_cpu(root),
        memory=_within(root, "memory", MIB, arch.most_memory(board)),
    )
    if machine.memory % MIB:
        raise ValueError(f"$.memory: {machine.memory:#x} is not a whole number of MiB")
    instructions, entry = _count(root, "instructions"), _count(root, "entry_instructions")
    return Record(machine, _placement(root), instructions, entry)


def _placement(root: dict[str, Any]) -> Placement:
    """Records that say "pieces" were made when that was the word for devices."""
    word = "devices" if root["placement"] == "pieces" else root["placement"]
    words = tuple(placement.value for placement in Placement)
    return Placement(strictjson.one_of(word, "$.placement", words))


def read_small(path: Path, limit: int = _SIZE_LIMIT) -> bytes:
    """All of a regular file of at most `limit` bytes. Raises UserError."""
    with disk_errors(path), open_regular(path) as file:
        raw = file.read(limit + 1)
    if len(raw) > limit:
        raise UserError(f"{path}: is larger than {format_size(limit)}")
    return raw


def _equal(root: dict[str, Any], key: str, known: int) -> None:
    if type(root[key]) is not int or root[key] != known:
        value = strictjson.shown(root[key])
        raise ValueError(f"$.{key}: {value} is not known; this program replays {known}")


def _within(root: dict[str, Any], key: str, least: int, most: int) -> int:
    value = strictjson.number(root[key], f"$.{key}")
    if not least <= value <= most:
        raise ValueError(f"$.{key}: {value:#x} is not from {least:#x} to {most:#x}")
    return value


def _count(root: dict[str, Any], key: str) -> int | None:
    return None if root[key] is None else strictjson.number(root[key], f"$.{key}")


def _version(root: dict[str, Any]) -> Version:
    text = root["qemu"]
    match = _QEMU_VERSION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"$.qemu: {strictjson.shown(text)} is no version such as 7.2.22")
    major, minor, micro = map(int, match.groups())
    return (major, minor, micro)


def _cpu(root: dict[str, Any]) -> str:
    text = root["cpu"]
    if not isinstance(text, str) or not _CPU_MODEL.fullmatch(text):
        raise ValueError(f"$.cpu: {strictjson.shown(text)} is no CPU model")
    return text
