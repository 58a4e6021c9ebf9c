"""What a person sees while kernels are fetched: a bar on a terminal, plain lines in a log.

Owns the output to stderr of this room. Must not know what is being fetched or why.
rich is imported when the first bar is drawn: a fetch that finds everything cached shows nothing.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol, TextIO

from bootproof.printable import one_line

Advance = Callable[[int], None]
"""Called with the bytes that are there so far: fewer when a server makes us start again."""


class Progress(Protocol):
    """How the fetcher talks. Every method may be called from a process that shares its terminal."""

    def note(self, text: str) -> None:
        """Something the user may want to know."""

    def warn(self, text: str) -> None:
        """Something the user must not miss."""

    def download(self, label: str, size: int, have: int) -> AbstractContextManager[Advance]:
        """A download of `size` bytes begins, of which `have` are there from an earlier try."""


class Lines:
    """One line for each event, for logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def note(self, text: str) -> None:
        self._print(f"bootproof: {text}")

    def warn(self, text: str) -> None:
        self._print(f"bootproof: warning: {text}")

    @contextlib.contextmanager
    def download(self, label: str, size: int, have: int) -> Iterator[Advance]:
        resumed = f", going on at {mebibytes(have)}" if have else ""
        self.note(f"fetching {label} ({mebibytes(size)}{resumed})")
        yield lambda done: None

    def _print(self, text: str) -> None:
        print(one_line(text), file=self._stream, flush=True)


class Bars(Lines):
    """A bar for each download, on a terminal; what is said meanwhile goes above it."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._above: Callable[[str], None] | None = None

    @contextlib.contextmanager
    def download(self, label: str, size: int, have: int) -> Iterator[Advance]:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TransferSpeedColumn,
        )

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
        )
        # Our own streams let nobody move the cursor, and have one that does.
        console = Console(file=getattr(self._stream, "drawn", self._stream))
        with Progress(*columns, console=console, expand=True) as bar:
            self._above = functools.partial(
                console.print, markup=False, highlight=False, soft_wrap=True
            )
            task = bar.add_task(one_line(label), total=size, completed=have)
            try:
                yield lambda done: bar.update(task, completed=done)
            finally:
                self._above = None

    def _print(self, text: str) -> None:
        if self._above is not None:
            self._above(one_line(text))
        else:
            super()._print(text)


def console_progress(stream: TextIO | None = None) -> Progress:
    """Bars when `stream` (stderr by default) is a terminal, lines otherwise."""
    chosen = stream or sys.stderr
    return Bars(chosen) if chosen.isatty() else Lines(chosen)


def mebibytes(size: int) -> str:
    """A size in bytes as "29.4 MiB"."""
    return f"{size / (1 << 20):.1f} MiB"
