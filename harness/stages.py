"""The stages of a boot, as a kernel's own log lines mark them, in guest seconds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_MARKS: Final = (
    ("banner", rb"Linux version "),
    ("memory", rb"Memory: \d+K/\d+K available"),
    ("drivers", rb"(?:Serial: 8250|Serial: AMBA|printk: console|PCI: Using|clocksource: Switched)"),
    ("init", rb"Run /\S+ as init process"),
    ("proof", rb"bootproof: proof "),
)
_TIME: Final = re.compile(rb"^\[ *(\d+\.\d+)\]")


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage that was reached; `guest_seconds` is the kernel's own time stamp, if there is one."""

    name: str
    guest_seconds: float | None


def stages(transcript: bytes) -> list[Stage]:
    """The stages in the order of the boot, those that were reached."""
    found = []
    if transcript:
        found.append(Stage("first output", None))
    for name, pattern in _MARKS:
        match = re.search(rb"^.*?" + pattern, transcript, re.MULTILINE)
        if match:
            stamp = _TIME.match(match.group())
            found.append(Stage(name, float(stamp.group(1)) if stamp else None))
    return found
