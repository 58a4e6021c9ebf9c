"""The stages of a boot, as a kernel's own log lines mark them: guest instructions, guest seconds.

A stage is reached when the first byte of its line is written to the console. What a kernel prints
before it has a console appears at once when it gets one: those stages then differ only in the
kernel's own time stamps.
"""

from __future__ import annotations

import re
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.harness.typedjson import about

ENTRY: Final = "entry"
_FIRST_OUTPUT: Final = "first-output"
_MARKS: Final = (
    ("banner", rb"Linux version "),
    ("memory", rb"Memory: \d+K/\d+K available"),
    ("drivers", rb"(?:Serial: 8250|Serial: AMBA|printk: console|PCI: Using|clocksource: Switched)"),
    ("init", rb"Run /\S+ as init process"),
    ("proof", rb"bootproof: proof "),
)
_WINDOW: Final = 1 << 16  # bytes of a transcript that a follower looks back
_TIME: Final = re.compile(rb"\[ *(\d{1,12}\.\d{1,12})\]")


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of the boot that was reached."""

    name: str = about("entry, first-output, banner, memory, drivers, init or proof")
    instructions: int | None = about("guest instructions before it; null when not known")
    guest_seconds: float | None = about("the kernel's own time stamp, if there is one")


@dataclass(frozen=True, slots=True)
class Mark:
    """A stage in the transcript."""

    name: str
    offset: int  # in bytes, of the line that says that it is reached
    guest_seconds: float | None

    def reached_after(self, instructions: int | None) -> Stage:
        return Stage(self.name, instructions, self.guest_seconds)


class Follower:
    """The last stage that a growing transcript shows; each line is looked at once."""

    def __init__(self) -> None:
        self._stage: str | None = None
        self._left = dict(_MARKS)
        self._size = self._line = 0

    def follow(self, transcript: bytes | bytearray) -> str | None:
        """The stage after what has been added since; None as long as nothing was printed."""
        if len(transcript) == self._size:
            return self._stage
        self._stage = self._stage or _FIRST_OUTPUT
        self._line = max(self._line, len(transcript) - _WINDOW)
        shown = marks(bytes(transcript[self._line :]))
        new = [mark.name for mark in shown if mark.name in self._left]
        for name in new:
            del self._left[name]
        self._stage = new[-1] if new else self._stage
        self._size = len(transcript)
        self._line = max(self._line, transcript.rfind(b"\n", self._line) + 1)
        return self._stage


def marks(transcript: bytes) -> list[Mark]:
    """The stages that the console shows, in the order of their lines."""
    reached = []
    if transcript:
        reached.append(Mark(_FIRST_OUTPUT, 0, None))
    for name, pattern in _MARKS:
        match = re.search(pattern, transcript)
        if match:
            line = transcript.rfind(b"\n", 0, match.start()) + 1
            stamp = _TIME.match(transcript, line)
            reached.append(Mark(name, line, float(stamp.group(1)) if stamp else None))
    return sorted(reached, key=lambda mark: mark.offset)
