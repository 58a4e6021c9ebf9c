"""What a person sees: lines in a log, a bar on a terminal."""

from __future__ import annotations

import io

from bootproof.kernels.progress import Bars, Lines, console_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_one_line_for_each_event() -> None:
    log = io.StringIO()
    progress = console_progress(log)
    with progress.download("6.1: linux 6.1", 3 << 20, 0) as advance:
        advance(1 << 20)
        progress.note("a moment")
    with progress.download("x", 1 << 20, 1 << 19):
        pass
    progress.warn("careful")
    assert log.getvalue().splitlines() == [
        "bootproof: fetching 6.1: linux 6.1 (3.0 MiB)",
        "bootproof: a moment",
        "bootproof: fetching x (1.0 MiB, going on at 0.5 MiB)",
        "bootproof: warning: careful",
    ]


def test_a_terminal_gets_a_bar_and_notes_above_it() -> None:
    terminal = Terminal()
    progress = console_progress(terminal)
    assert isinstance(progress, Bars)
    with progress.download("[b]6.1[/b]", 1000, 0) as advance:
        progress.note(f"trying [again] {'and ' * 40}again")
        advance(1000)
    progress.warn(f"after {'and ' * 40}after")
    shown = terminal.getvalue()
    assert "[b]6.1[/b]" in shown
    assert f"bootproof: trying [again] {'and ' * 40}again\n" in shown
    assert shown.endswith(f"bootproof: warning: after {'and ' * 40}after\n")


def test_a_pipe_gets_lines() -> None:
    assert type(console_progress(io.StringIO())) is Lines
