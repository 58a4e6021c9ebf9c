"""The guest's serial console: QEMU writes it to a regular file, pexpect reads it from there.

A regular file is the only console that does not change the guest's run (a socket, pipe or pty makes
the guest wait for its reader). Owns reading, the raw transcript with its limit, and the host times
at which bytes arrived; judges nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pexpect
from pexpect.spawnbase import SpawnBase

from bootproof.harness.host.turns import TURNS
from bootproof.harness.terms import Budget
from bootproof.harness.text import printable
from bootproof.loader.address import counted

if TYPE_CHECKING:
    _Spawn = SpawnBase[bytes]
else:  # generic in its stubs only
    _Spawn = SpawnBase

_CHUNK = 64 << 10
_HALF = 100_000  # lines of a transcript with times, from each end
_WINDOW = 2 * _CHUNK  # a read, and a pattern that began in the one before
_PAUSE, _LONGEST_PAUSE = 0.01, 0.05  # seconds: what speaks most often goes on, if anybody listens
_LONGEST_LINE = 8192  # bytes that are looked at


class ConsoleFile(_Spawn):
    """A growing file as a pexpect object.

    `fd` is the file, open for reading; it stays open, and no more than `limit` bytes of it are ever
    read. `wait(seconds)` is called when nothing new is there, and may return early: what is true
    then has to be seen to, and nothing is waited for. `ended()` says whether the writer is gone,
    which makes the end of the file an EOF; `on_data` is told what arrives.
    """

    def __init__(
        self,
        fd: int,
        wait: Callable[[float], object],
        ended: Callable[[], bool],
        on_data: Callable[[bytes], None] | None = None,
        *,
        limit: int = Budget().console_bytes,
    ) -> None:
        super().__init__(timeout=0, maxread=_CHUNK, searchwindowsize=_WINDOW)
        self.delayafterread = None  # which is for a writer that waits for its reader
        self._limit = limit
        self.transcript = bytearray()
        self.arrivals: list[tuple[float, int]] = []  # host seconds since start, bytes before
        self._wait = wait
        self._ended = ended
        self._on_data = on_data
        self._started = TURNS.clock()
        self.child_fd = fd

    def read_nonblocking(self, size: int = 1, timeout: float | None = None) -> bytes:
        """Up to `size` new bytes. Raises pexpect.TIMEOUT when none came, pexpect.EOF at the end."""
        deadline = time.monotonic() + (timeout or 0)
        pause = _LONGEST_PAUSE if self._on_data is None else _PAUSE
        while True:
            ended = self._ended()  # asked before reading: what came before the end is still read
            data = self._take(size)
            if data:
                return data
            if ended:
                self.flag_eof = True
                raise pexpect.EOF("the console's writer has ended")
            left = deadline - time.monotonic()
            if left <= 0:
                raise pexpect.TIMEOUT("no console output")
            if self._wait(min(pause, left)):
                deadline = 0.0  # what was written until then is still read
            pause = min(2 * pause, _LONGEST_PAUSE)

    @property
    def written(self) -> int:
        """How many bytes there are by now, whether read or not."""
        return os.fstat(self.child_fd).st_size

    @property
    def full(self) -> bool:
        """Whether as much was read as ever will be."""
        return len(self.transcript) >= self._limit

    def line_before_match(self) -> bytes:
        """What stands before the last match on its line, as far as lines are read."""
        matched = self.after if isinstance(self.after, bytes) else b""
        begin = len(self.transcript) - len(self.buffer) - len(matched)
        start = max(0, begin - _LONGEST_LINE)
        start = max(start, self.transcript.rfind(b"\n", start, begin) + 1)
        return bytes(self.transcript[start:begin])

    def drain(self) -> None:
        """Reads all that is there, without looking for anything."""
        while self._take(_CHUNK):
            pass

    def _take(self, size: int) -> bytes:
        done = len(self.transcript)
        data = os.pread(self.child_fd, min(size, self._limit - done), done)
        if data:
            self.arrivals.append((TURNS.clock() - self._started, len(self.transcript)))
            self.transcript += data
            if self._on_data is not None:
                self._on_data(data)
        return data

    def isalive(self) -> bool:
        """Whether more output may come."""
        return not self._ended()


def timestamped(transcript: bytes | bytearray, arrivals: list[tuple[float, int]]) -> str:
    """The transcript with host seconds before each line; control characters are made visible.

    Of a flood of lines, the beginning and the end.
    """
    lines = []
    index = 0
    for position, line in _lines(bytes(transcript)):
        while index + 1 < len(arrivals) and arrivals[index + 1][1] <= position:
            index += 1
        seconds = arrivals[index][0] if arrivals else 0.0
        lines.append(f"[{seconds:8.3f}] {line}\n")
    return "".join(lines)


def _lines(transcript: bytes) -> Iterator[tuple[int, str]]:
    """Each line with its place in bytes; what stands for those that are left out."""
    begin = transcript.split(b"\n", _HALF)
    end: list[bytes] = []
    position, gone = 0, 0
    if len(begin) > _HALF and begin[-1].count(b"\n") > _HALF:
        end = begin.pop().rsplit(b"\n", _HALF)
        gone = end[0].count(b"\n") + 1
    for number, line in enumerate([*begin, *end]):
        if gone and number == len(begin):
            yield position, f"[… {counted(gone, 'line')} left out, see console.log …]"
        elif line or position < len(transcript):
            yield position, printable(line.rstrip(b"\r"))
        position += len(line) + 1
