"""QEMU's log of a recorded run: how many guest instructions had been executed at each console byte.

Owns the format of the log that `-icount …,rr=record` writes, as far as a machine without network,
disk and input writes it. A log may come from a stranger: it is read with bounded memory, and any
event that is not known ends the reading with an error; nothing is guessed.

Source: replay/replay-internal.h (enum ReplayEvents) and scripts/replay-dump.py of QEMU 7.2. All
numbers are big-endian. Instructions are counted between events, so what is read here is exact.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import stat
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from bootproof.dataclass import dataclass

KNOWN_VERSIONS: Final = (0xE0200C,)  # REPLAY_VERSION in replay/replay.c: QEMU 7.2 to 10.0
_HEADER: Final = 12  # version, and eight bytes that are not used
_EXECUTED_SIZE: Final = 5
_UNFINISHED: Final = 0  # the version is written last
# Reading is about 60 MB/s. A boot's log has a few hundred KiB; console floods have more.
READ_LIMIT: Final = 32 << 20
# As much is copied. Who still writes a file could shorten it, which nobody survives who has mapped
# it: of a QEMU that has not ended no more may be read.
COPIED: Final = 1 << 20
_NEVER: Final = 1 << 64  # no console offset
_Data: TypeAlias = bytes | mmap.mmap

# What only has to be passed over: clocks (8 bytes each); bottom halves, interrupts, exceptions,
# shutdown requests, checkpoints.
_PASSED: Final = rb"(?:[\x03\x04\x1c\x1d].{8}|[\x01\x02\x0a\x0b\x0d-\x15\x1e-\x26])"
# Instructions executed and then a console write (its result, bytes written), many times over: most
# of a log. Or executed and then what is passed over: the rest of that of a guest which idles. Then
# one event each: a console write, random bytes for a device (result, size; the bytes follow), the
# end, a quit.
_EVENT: Final = re.compile(
    rb"(?P<prints>(?:\x00.{4}\x16.{8}){1,4096})"
    rb"|\x00(?P<executed>.{4})" + _PASSED + rb"{0,4096}"
    rb"|\x16(?P<written>.{8})|\x1b.{4}(?P<random>.{4})|(?P<end>\x27)|(?P<quit>\x0c)|" + _PASSED,
    re.DOTALL,
)
_PRINTS: Final = struct.Struct(">xIxiI")  # of `prints`: instructions, result, bytes written
_WRITTEN: Final = struct.Struct(">iI")


class ReplayLogError(Exception):
    """A log that cannot be read: what is wrong with it, without the file's name."""


@dataclass(frozen=True, slots=True)
class ReplayLog:
    """What a log says of its run.

    `at` has, for each console offset that was asked for, the number of guest instructions executed
    when that byte was written, the one that wrote it included. `failed_writes` counts console
    writes that the host did not take: the console is then not complete. `early_quit` is the offset
    of a `quit` that stands before the instructions that were executed before it.
    """

    instructions: int
    console_bytes: int
    failed_writes: int
    at: tuple[int, ...]
    early_quit: int | None = None


def read(path: Path, offsets: Sequence[int] = (), limit: int | None = None) -> ReplayLog:
    """Reads a log of at most `limit` bytes to its end; `offsets` are console bytes, ascending.

    Raises ReplayLogError for anything but a complete log of a known version.
    """
    with _contents(path, limit) as data:
        version = int.from_bytes(data[:4], "big")
        if version == _UNFINISHED:
            raise ReplayLogError("is not complete: QEMU did not come to finish it")
        if version not in KNOWN_VERSIONS:
            known = ", ".join(map(hex, KNOWN_VERSIONS))
            raise ReplayLogError(f"has version {version:#x}; this program reads {known}")
        return _read_events(data, offsets)


@contextlib.contextmanager
def _contents(path: Path, limit: int | None) -> Iterator[_Data]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise ReplayLogError(f"cannot be opened: {error.strerror}") from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ReplayLogError("is not a regular file")
        if status.st_size <= _HEADER:
            raise ReplayLogError(f"has only {status.st_size} bytes")
        if limit is not None and status.st_size > limit:
            raise ReplayLogError(f"has {status.st_size:,} bytes, more than {limit:,}")
        if status.st_size <= COPIED:
            yield os.pread(fd, COPIED, 0)
        else:
            with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as data:
                yield data
    finally:
        os.close(fd)


def _read_events(data: _Data, offsets: Sequence[int]) -> ReplayLog:
    tally = _Tally(offsets)
    quit_at: int | None = None
    early: int | None = None
    for event in _events(data):
        match event.lastgroup:
            case "prints":
                tally.print(_PRINTS.iter_unpack(event["prints"]))
                early = quit_at if quit_at == event.start() - 1 else early
            case "executed":
                tally.executed += int.from_bytes(event["executed"], "big")
                early = quit_at if quit_at == event.start() - 1 else early
            case "quit":
                quit_at = event.start()
            case "written":
                tally.print([(0, *_WRITTEN.unpack(event["written"]))])
    if len(tally.at) < len(offsets):
        missing = offsets[len(tally.at)]
        raise ReplayLogError(f"tells of {tally.written} console bytes, not of byte {missing}")
    return ReplayLog(tally.executed, tally.written, tally.failed, tuple(tally.at), early)


class _Tally:
    """What was executed and written up to here; `at` as in ReplayLog."""

    def __init__(self, offsets: Sequence[int]) -> None:
        self.executed = self.written = self.failed = 0
        self.at: list[int] = []
        self._offsets = iter(offsets)
        self._next = next(self._offsets, _NEVER)

    def print(self, writes: Iterable[tuple[int, ...]]) -> None:
        """Takes instructions executed before each write, its result, and the bytes written."""
        for executed, result, size in writes:
            self.executed += executed
            self.failed += result < 0
            self.written += size
            while self._next < self.written:
                self.at.append(self.executed)
                self._next = next(self._offsets, _NEVER)


def _events(data: _Data) -> Iterator[re.Match[bytes]]:
    """Every event before the end, behind which nothing may follow."""
    position = _HEADER
    while event := _EVENT.match(data, position):
        position = event.end()
        if event.lastgroup == "random":
            position += int.from_bytes(event["random"], "big")
        if event.lastgroup == "end":
            if position != len(data):
                raise ReplayLogError(f"goes on behind its end at offset {position:#x}")
            return
        yield event
    raise ReplayLogError(_broken(data, position))


def put_in_order(path: Path, log: ReplayLog) -> None:
    """Moves an early `quit` behind the instructions before it, which would not be replayed else.

    QEMU logs the request when its monitor gets it, and what the guest had executed since the last
    event only when it ends. `log` is what was read of it.
    """
    if log.early_quit is None:
        return
    with path.open("r+b") as file:
        file.seek(log.early_quit)
        quit_, executed = file.read(1), file.read(_EXECUTED_SIZE)
        file.seek(log.early_quit)
        file.write(executed + quit_)


def _broken(data: _Data, position: int) -> str:
    left = data[position : position + 16]
    if position >= len(data) or _EVENT.match(left + bytes(16)):
        return f"is cut off at offset {position:#x}"
    return f"has an event that is not known at offset {position:#x}: {left[0]:#x}"
