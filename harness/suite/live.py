"""A line at the bottom of the terminal for each case in flight: stage, budget used, seconds.

Owns that part of the screen while a matrix runs there; without a terminal nothing of it exists.
It is told of guests what is measured anyway and asks them for nothing.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import field
from typing import Final

import pytest
from rich.console import ConsoleDimensions, Group
from rich.live import Live
from rich.text import Text

from bootproof.dataclass import dataclass
from bootproof.harness.guest.stages import ENTRY, Follower
from bootproof.harness.host.screen import Screen
from bootproof.harness.host.stdout import StandardOutput
from bootproof.harness.terms import Budget, Observer, Usage

AREA: Final = pytest.StashKey["LiveArea"]()
_PER_SECOND: Final = 4  # drawn anew
PREPARING: Final = "preparing"  # before the guest's first instruction
ELSEWHERE: Final = "elsewhere"  # on a cluster, whose guests are not looked at from here
TEST: Final = "test"  # not one boot, so it has no stages
_G: Final = 1_000_000_000
_ECHO: Final = 3  # columns left free at the end: terminals echo ^C there, which must not wrap
_COLUMNS, _LINES = 80, 24  # of a terminal that does not know its size
_LEAST: Final = 40  # columns; less is a terminal that does not know its size


@dataclass(slots=True)
class _Flight:
    """A case, or another test, that is being run."""

    name: str
    stage: str
    began: float = field(default_factory=time.monotonic)
    used: str = ""
    _follower: Follower = field(default_factory=Follower)

    def observe(self, usage: Usage, budget: Budget, transcript: bytes | bytearray) -> None:
        self.stage = self._follower.follow(transcript) or ENTRY
        self.used = used_of(usage, budget)


def used_of(usage: Usage, budget: Budget) -> str:
    """`1.31/60 G instr.`; CPU seconds where no instructions are counted."""
    if usage.instructions is None:
        return f"{usage.cpu_seconds:.1f}/{budget.cpu_seconds:g} CPU s"
    return f"{usage.instructions / _G:.2f}/{budget.instructions / _G:g} G instr."


def line(name: str, stage: str, used: str, seconds: float, width: int) -> str:
    """One line of at most `width` columns; of a name that is too long the end is what differs."""
    text = f"  … {stage:<12} {used:>17} {seconds:6.1f} s "
    room = width - len(text)
    shown = name if len(name) <= room else f"…{name[len(name) - max(0, room - 1) :]}"
    return (text + shown)[:width]


class LiveArea:
    """A pytest plugin of one session whose standard output is a terminal."""

    def __init__(self) -> None:
        # pytest takes the descriptor away while a test runs.
        self._terminal = os.dup(sys.stdout.fileno())
        self._flights: dict[int, _Flight] = {}
        self._lock = threading.Lock()
        self._console = Screen(
            file=StandardOutput().drawing(self._terminal, "utf-8", "replace"), highlight=False
        )
        self._live = Live(
            console=self._console,
            get_renderable=self._lines,
            refresh_per_second=_PER_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    @contextlib.contextmanager
    def case(self, name: str, stage: str) -> Iterator[Observer]:
        """Has a line for a case as long as it runs; gives what is to be told of its guest."""
        flight = _Flight(name, stage)
        with self._lock:
            self._flights[id(flight)] = flight
        try:
            yield flight.observe
        finally:
            with self._lock:
                del self._flights[id(flight)]

    def print(self, text: str) -> None:
        """A line that stays, above those in flight."""
        self._console.print(Text.from_ansi(text), soft_wrap=True)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """However the loop ends, the area is gone then and the cursor is back."""
        self._live.start()
        try:
            return (yield)
        finally:
            self._live.stop()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """A test that is not one case has a line, too."""
        if not isinstance(item, pytest.Function):
            return (yield)
        with self.case(item.name, TEST):
            return (yield)

    def pytest_unconfigure(self) -> None:
        os.close(self._terminal)

    def _lines(self) -> Group:
        with contextlib.suppress(OSError):  # else the size that rich found is as good as any
            size = os.get_terminal_size(self._terminal)
            # One that knows no size says 0: nothing would be shown of what has no room.
            self._console.size = ConsoleDimensions(size.columns or _COLUMNS, size.lines or _LINES)
        with self._lock:
            flights = [*self._flights.values()]
        width, now = max(_LEAST, self._console.width - _ECHO), time.monotonic()
        style = "" if self._console.no_color else "dim"
        return Group(
            *(
                Text(line(each.name, each.stage, each.used, now - each.began, width), style)
                for each in flights
            )
        )


def area(*, wanted: bool) -> LiveArea | None:
    """The area of a session, where there is a terminal that can have one."""
    if not wanted or not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return None
    return LiveArea()
