"""Who talks to a guest through its console, if anybody does.

What is said comes when it comes: the guest runs in real time then, and no run of it is repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.harness import command_line


@dataclass(frozen=True, slots=True)
class Talker:
    """A user at a terminal, or a program."""

    # What bootproof.harness.results.key calls such a console.
    console: str
    # Why the guest runs in real time.
    about: str
    # The program of the guest that is talked to after the proof, where the user brings none.
    shell: str
    # The descriptor that QEMU reads for the guest, every byte of it; None: our own standard input,
    # with standard output and QEMU's own escape.
    stdin: int | None = None
    # Whether the talker has had enough: the run ends then.
    left: Callable[[], bool] = lambda: False


TERMINAL: Final = Talker("terminal", "interactive console", command_line.SHELL)
