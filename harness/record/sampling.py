"""Where a recorded run was: its program counter, and who called, at fixed guest instructions.

Plays the record back and stops it in the middle of every part of so many instructions. What is
looked at there changes nothing, so that the same record gives the same samples each time, and each
stands for exactly the instructions of its part. Knows no names.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.harness.arch.dump import DumpFormat, FrameRecord
from bootproof.harness.errors import UserError
from bootproof.harness.qemu.monitor import Monitor
from bootproof.harness.record import playback
from bootproof.harness.record.playback import Recorded

MOST: Final = 100_000
_DEEPEST: Final = 64
_AROUND: Final = 16  # bytes of code before a program counter, and at it
_WINDOW: Final = 512  # bytes of a stack that are read at once
_RECORD: Final = struct.Struct("<Q")
_KERNEL_HALF: Final = 1 << 63


@dataclass(frozen=True, slots=True)
class Sample:
    """A moment of a run, and the instructions that it stands for: those from `start`, `weight`."""

    start: int
    weight: int
    # Guest-virtual.
    pc: int
    before: bytes
    at: bytes
    # Return addresses, the innermost first; empty where no stack can be told.
    callers: tuple[int, ...] = ()


def take(recorded: Recorded, count: int) -> list[Sample]:
    """`count` samples of a record, fewer of a shorter run. Raises UserError and LoaderError."""
    return list(_taken(recorded, count))


def parts(instructions: int, count: int) -> list[tuple[int, int]]:
    """A run in so many parts of the same length, to one instruction: start and length of each."""
    count = max(1, min(count, instructions))
    starts = [instructions * number // count for number in range(count + 1)]
    return [(start, end - start) for start, end in itertools.pairwise(starts)]


def _taken(recorded: Recorded, count: int) -> Iterator[Sample]:
    format_ = recorded.machine.arch.dump
    # Behind where the run was stopped for its probe: a playback that stops there again may hang.
    probed = recorded.record.entry or 0
    with playback.started(recorded) as running:
        for start, weight in parts(recorded.instructions, count):
            there = start + weight // 2
            running.run_to(probed + 1 if there == probed else there)
            if running.instructions < start:
                raise UserError(f"{recorded.directory}: the playback ends before {there:,}")
            yield _look(running.monitor, format_, start, weight)


def _look(monitor: Monitor, format_: DumpFormat, start: int, weight: int) -> Sample:
    dump = monitor.registers()
    pc = format_.program_counter(dump) or 0
    before, at = _code(monitor, pc)
    if format_.frames is None or pc < _KERNEL_HALF:
        return Sample(start, weight, pc, before, at)
    frame = format_.frames.pointer(dump) or 0
    callers = tuple(_callers(_Stack(monitor), format_.frames, frame))
    return Sample(start, weight, pc, before, at, callers)


def _code(monitor: Monitor, pc: int) -> tuple[bytes, bytes]:
    """The bytes before a program counter and at it, in one question where both are mapped."""
    code = monitor.bytes_at(pc - _AROUND, 2 * _AROUND) if pc >= _AROUND else b""
    if len(code) == 2 * _AROUND:
        return code[:_AROUND], code[_AROUND:]
    return b"", monitor.bytes_at(pc, _AROUND)


def _callers(stack: _Stack, layout: FrameRecord, frame: int) -> Iterator[int]:
    """Return addresses, out of frame records that lie one above the other on the kernel's stack."""
    for _ in range(_DEEPEST):
        caller = stack.word(frame + layout.caller)
        address = stack.word(frame + layout.return_address)
        if caller is None or address is None or address < _KERNEL_HALF:
            return
        yield address
        if caller <= frame:
            return
        frame = caller


class _Stack:
    """Guest-virtual memory, read in pieces."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._start, self._data = 0, b""

    def word(self, address: int) -> int | None:
        """The 64-bit value at an address of the kernel's; None where there is none."""
        if address < _KERNEL_HALF or address % _RECORD.size:
            return None
        at = address - self._start
        if not 0 <= at <= len(self._data) - _RECORD.size:
            self._start, at = address, 0
            self._data = self._monitor.bytes_at(address, _WINDOW)
        if len(self._data) < at + _RECORD.size:
            return None
        return int(_RECORD.unpack_from(self._data, at)[0])
