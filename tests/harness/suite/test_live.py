"""The line of each case in flight: on a terminal, and nowhere else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pexpect
import psutil
import pytest

from bootproof.harness.case import Case, Expectation
from bootproof.harness.suite import live
from bootproof.harness.terms import Budget, Usage
from bootproof.harness.verdict import Verdict
from bootproof.loader.address import MIB
from tests import ROOT
from tests.builders.guests import X86Program
from tests.builders.processes import LOAD, bootproof_matrix, environment, vmlinux_with_text
from tests.builders.screen import Screen

PRINTING = b"[    0.0] Linux version 6.1\n[    0.5] Memory: 1K/2K available\n"
IN_FLIGHT = re.compile(r"^  … memory +\d+\.\d\d/60 G instr\. +\d+\.\d s (x86_64-|…)\S*goes-on")


def command(directory: Path, *, endless: bool, quiet: bool = False) -> list[str]:
    """A matrix of a guest that ends and, if asked for, of one that goes on for ever."""
    codes = {"ends": X86Program(LOAD).say(PRINTING).reset()}
    if endless:
        codes["goes-on"] = X86Program(LOAD).say(PRINTING).count()
    cases = []
    for name, code in codes.items():
        kernel = directory / name
        kernel.write_bytes(vmlinux_with_text(code))
        cases.append(
            Case(
                *("x86_64", "a-name-of-a-kernel-that-is-rather-long", "elf", "linux64"),
                memory=32 * MIB,
                kernel_path=str(kernel),
                label=name,
                expect=Expectation(Verdict.CPU_RESET, why="a test"),
            )
        )
    return bootproof_matrix(directory, cases, jobs=2, quiet=quiet)


def on_terminal(directory: Path, **variables: str) -> dict[str, str]:
    own = environment(directory, TERM="xterm")
    unwanted = ("NO_COLOR", "COLUMNS", "LINES", "FORCE_COLOR", "GITHUB_STEP_SUMMARY")
    return {k: v for k, v in own.items() if k not in unwanted} | variables


class Terminal:
    """A matrix on a terminal, and what is to be seen there."""

    def __init__(self, words: list[str], env: dict[str, str], width: int, lines: int = 24) -> None:
        self.screen, self.raw = Screen(width), b""
        self.process: pexpect.spawn[bytes] = pexpect.spawn(
            *(words[0], words[1:]), cwd=ROOT, env=env, dimensions=(lines, width), timeout=120
        )

    def until(self, pattern: re.Pattern[str] | None) -> str:
        """The line on the screen that matches; None: until the end, and nothing is given."""
        while True:
            for line in self.screen.lines:
                if pattern is not None and pattern.search(line):
                    return line
            try:
                data = self.process.read_nonblocking(4096, 120)
            except pexpect.EOF:
                assert pattern is None, self.screen.lines
                return ""
            self.raw += data
            self.screen.send(data)

    def end(self) -> int:
        self.until(None)
        self.process.close()
        assert self.process.exitstatus is not None
        return self.process.exitstatus


def test_terminal_that_knows_no_size(tmp_path: Path) -> None:
    """As a pty is made: what is in flight is shown all the same."""
    words = command(tmp_path, endless=True)
    terminal = Terminal(words, on_terminal(tmp_path), 0, lines=0)
    terminal.screen = Screen(80)
    assert len(terminal.until(IN_FLIGHT)) <= 80
    terminal.process.sendintr()
    assert terminal.end() == 130


@pytest.mark.parametrize("width", [80, 120])
def test_lines_in_flight_below_those_that_have_ended(tmp_path: Path, width: int) -> None:
    """Ctrl-C ends it: nothing of the area stays, and the cursor is there."""
    terminal = Terminal(command(tmp_path, endless=True), on_terminal(tmp_path), width)
    ended = re.compile(r"^\[1/2\] ok +cpu-reset +\d+\.\d s x86_64-a-name-of-a-kernel")
    terminal.until(ended)
    line = terminal.until(IN_FLIGHT)
    assert len(line) <= width
    at = [n for n, each in enumerate(terminal.screen.lines) if ended.search(each)]
    assert at and at[0] < terminal.screen.lines.index(line)
    assert not terminal.screen.cursor_shown
    children = psutil.Process(terminal.process.pid).children(recursive=True)
    assert any(child.name() == "qemu-system-x86_64" for child in children)
    terminal.process.sendintr()
    assert terminal.end() == 130
    assert terminal.screen.cursor_shown
    said = "\n".join(terminal.screen.lines)
    assert "  … " not in said and "not come to its end" in said
    assert not any(child.is_running() for child in children)


def test_all_lines_of_a_run_stay_whole(tmp_path: Path) -> None:
    terminal = Terminal(command(tmp_path, endless=False), on_terminal(tmp_path), 200)
    assert terminal.end() == 0
    said = "\n".join(terminal.screen.lines)
    assert re.search(r"^\[1/1\] ok     cpu-reset +\d+\.\d s x86_64-\S+-elf-ends-none$", said, re.M)
    assert "  … " not in said  # whether a case that is this short was shown at all is the host's
    assert b"\x1b[32m" in terminal.raw


def test_no_colour_where_none_is_wanted(tmp_path: Path) -> None:
    env = on_terminal(tmp_path, NO_COLOR="1")
    terminal = Terminal(command(tmp_path, endless=False), env, 120)
    assert terminal.end() == 0
    assert not re.search(rb"\x1b\[[0-9;]+m", terminal.raw)


@pytest.mark.parametrize("how", ["quiet", "dumb", "pipe"])
def test_nothing_of_it_elsewhere(tmp_path: Path, how: str) -> None:
    words = command(tmp_path, endless=False, quiet=how == "quiet")
    env = on_terminal(tmp_path, **({"TERM": "dumb"} if how == "dumb" else {}))
    if how == "pipe":
        run = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, check=False)
        code, raw = run.returncode, run.stdout + run.stderr
        assert b"\x1b" not in raw
    else:
        terminal = Terminal(words, env, 120)
        code, raw = terminal.end(), terminal.raw
    assert code == 0, raw
    assert b"as expected" in raw
    assert b"\xe2\x80\xa6" not in raw and b"\x1b[?25" not in raw and b"\x1b[2K" not in raw


# --- the line ------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", range(40, 130, 7))
def test_line_is_never_wider_than_the_terminal(width: int) -> None:
    name = "aarch64-newest-cloud-arm64-image-arm64-ram+2M"
    found = live.line(name, "first-output", "59.99/60 G instr.", 1234.5, width)
    assert len(found) <= width
    assert found.endswith(name if width >= 89 else name[-3:] if width > 50 else "")


def test_what_is_used_of_which_budget() -> None:
    budget = Budget(instructions=60_000_000_000, cpu_seconds=300.0)
    used = [live.used_of(Usage(count, 12.34, 0), budget) for count in (1_305_000_000, None)]
    assert used == ["1.30/60 G instr.", "12.3/300 CPU s"]


def test_nothing_is_left_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a descriptor nor a thread stays of an area whose session ends without a run."""
    main, other = os.openpty()
    with os.fdopen(other, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setenv("TERM", "xterm")
        before = (len([*Path("/proc/self/fd").iterdir()]), threading.active_count())
        area = live.area(wanted=True)
        assert area is not None and live.area(wanted=False) is None
        area.pytest_unconfigure()
        assert (len([*Path("/proc/self/fd").iterdir()]), threading.active_count()) == before
        monkeypatch.undo()
    os.close(main)
