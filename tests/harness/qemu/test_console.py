"""The console as a growing file: a real writer, its end, times; what a terminal must not get."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pexpect
import pytest

from bootproof.harness.qemu.console import ConsoleFile, timestamped
from bootproof.harness.text import printable

WRITER = """
import sys, time
path, *steps = sys.argv[1:]
with open(path, "wb", buffering=0) as file:
    for step in steps:
        if step.startswith("wait "):
            time.sleep(float(step[5:]))
        else:
            file.write(step.encode().decode("unicode_escape").encode("latin-1"))
"""


class Writer:
    """Another process that writes to the console's file, with pauses."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *steps: str) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", WRITER, self._path, *steps])

    def ended(self) -> bool:
        assert self._process is not None
        return self._process.poll() is not None

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    writer = Writer(tmp_path / "console.log")
    yield writer
    writer.end()


@contextmanager
def console_of(
    path: Path,
    wait: Callable[[float], object],
    ended: Callable[[], bool],
    on_data: Callable[[bytes], None] | None = None,
) -> Iterator[ConsoleFile]:
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        yield ConsoleFile(file, wait, ended, on_data)
    finally:
        os.close(file)


def opened(
    writer: Writer, tmp_path: Path, seen: list[bytes] | None = None
) -> AbstractContextManager[ConsoleFile]:
    on_data = None if seen is None else seen.append
    return console_of(tmp_path / "console.log", time.sleep, writer.ended, on_data)


def test_expects_text_that_comes_in_two_parts(writer: Writer, tmp_path: Path) -> None:
    """The file does not exist yet when reading begins."""
    seen: list[bytes] = []
    with opened(writer, tmp_path, seen) as console:
        writer.start("wait 0.2", "login", "wait 0.2", r": \r\nmore", "wait 0.2")
        assert console.expect([rb"login: \r\n", pexpect.TIMEOUT], timeout=30) == 0
        assert console.expect([pexpect.EOF], timeout=30) == 0
    assert bytes(console.transcript) == b"".join(seen) == b"login: \r\nmore"
    assert len(seen) >= 2
    offsets = [offset for _, offset in console.arrivals]
    assert offsets == [len(b"".join(seen[:n])) for n in range(len(seen))]
    times = [seconds for seconds, _ in console.arrivals]
    assert times == sorted(times) and times[0] >= 0.2


def test_end_of_file_only_counts_when_the_writer_has_ended(writer: Writer, tmp_path: Path) -> None:
    with opened(writer, tmp_path) as console:
        writer.start("text", "wait 60")
        assert console.expect([rb"text"], timeout=30) == 0
        assert console.expect([pexpect.EOF, pexpect.TIMEOUT], timeout=0.1) == 1
        assert console.isalive()
        writer.end()
        assert not console.isalive()
        assert console.expect([pexpect.EOF, pexpect.TIMEOUT], timeout=0.1) == 0
        assert console.flag_eof


def test_last_words_of_a_writer_that_is_gone_are_read(writer: Writer, tmp_path: Path) -> None:
    with opened(writer, tmp_path) as console:
        writer.start("last words")
        while not writer.ended():
            time.sleep(0.01)
        assert console.expect([rb"last words", pexpect.EOF], timeout=0) == 0
        with pytest.raises(pexpect.EOF):
            console.read_nonblocking(1, timeout=0)


def test_writer_that_never_wrote(writer: Writer, tmp_path: Path) -> None:
    with console_of(tmp_path / "never", time.sleep, lambda: True) as console:
        assert console.expect([pexpect.EOF], timeout=0) == 0
    assert console.transcript == b""


def test_drain_takes_all_that_is_there(writer: Writer, tmp_path: Path) -> None:
    data = bytes(range(256)) * 2000
    (tmp_path / "console.log").write_bytes(data)
    with console_of(tmp_path / "console.log", time.sleep, lambda: True) as console:
        console.drain()
        assert bytes(console.transcript) == data
        console.drain()
    assert bytes(console.transcript) == data


def test_text_across_reads_is_found_in_a_long_transcript(tmp_path: Path) -> None:
    """The search window moves along, and still finds what a read has cut in two."""
    path = tmp_path / "console.log"
    line = b"0123456789abcdef" * 4
    path.write_bytes(line * 4095 + line[:40] + b"bootproof: proof " + line + b"\r\n" + line)
    with console_of(path, time.sleep, lambda: False) as console:
        pattern = console.compile_pattern_list([rb"bootproof: proof [0-9a-f]{64}\r?\n"])
        assert console.expect_list(pattern, timeout=5) == 0


def test_waiting_goes_through_the_callers_wait(tmp_path: Path) -> None:
    """So that the monitor's events are received meanwhile; what is silent is looked at less, and so
    is what nobody listens to.
    """
    path = tmp_path / "console.log"
    waited: list[float] = []
    heard: list[bytes] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 6:
            path.write_bytes(b"at last")

    with console_of(path, wait, lambda: False, heard.append) as console:
        assert console.read_nonblocking(100, timeout=3600) == b"at last"
    assert waited == [0.01, 0.02, 0.04, 0.05, 0.05, 0.05]
    path.unlink()
    waited.clear()
    with console_of(path, wait, lambda: False) as console:
        assert console.read_nonblocking(100, timeout=3600) == b"at last"
    assert waited == [0.05] * 6


def test_no_more_is_waited_than_was_asked_for(tmp_path: Path) -> None:
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        time.sleep(seconds)

    with (
        console_of(tmp_path / "never", wait, lambda: False) as console,
        pytest.raises(pexpect.TIMEOUT),
    ):
        console.read_nonblocking(1, timeout=0.005)
    assert waited and max(waited) <= 0.005


def test_what_has_happened_meanwhile_is_not_waited_on(tmp_path: Path) -> None:
    """QEMU says that the guest has ended: that is seen to at once, after its last words."""
    path = tmp_path / "console.log"
    waits = 0

    def wait(_seconds: float) -> bool:
        nonlocal waits
        waits += 1
        assert waits <= 2
        path.write_bytes(b"last words")
        return True

    with console_of(path, wait, lambda: False) as console:
        assert console.read_nonblocking(100, timeout=3600) == b"last words"
        with pytest.raises(pexpect.TIMEOUT):
            console.read_nonblocking(100, timeout=3600)


# --- the transcript for people -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("transcript", "arrivals", "text"),
    [
        (b"", [], ""),
        (b"one\ntwo\n", [(0.5, 0), (2.0, 4)], "[   0.500] one\n[   2.000] two\n"),
        (b"one\r\ntwo", [(0.5, 0)], "[   0.500] one\n[   0.500] two\n"),
        # A line has the time of its first byte.
        (b"one\ntwo\n", [(0.5, 0), (1.0, 2), (2.0, 6)], "[   0.500] one\n[   1.000] two\n"),
        (b"\n\n", [(123456.789, 0)], "[123456.789] \n[123456.789] \n"),
        (b"a\rb\x1b[2Jc\n", [(0.0, 0)], "[   0.000] a\\rb\\x1b[2Jc\n"),
    ],
)
def test_timestamped(transcript: bytes, arrivals: list[tuple[float, int]], text: str) -> None:
    assert timestamped(transcript, arrivals) == text


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"plain text, with a\ttab", "plain text, with a\ttab"),
        (b"\x1b]0;title\x07\x1b[31m", "\\x1b]0;title\\x07\\x1b[31m"),
        (b"\x00\x08\x0b\x0c\x0d\x7f", "\\x00\\x08\\x0b\\x0c\\r\\x7f"),
        ("C1 \x9b31m \x85".encode(), "C1 \\x9b31m \\x85"),
        ("right to left \u202eabc \u2066".encode(), "right to left \\u202eabc \\u2066"),
        ("line \u2028 paragraph \u2029".encode(), "line \\u2028 paragraph \\u2029"),
        ("käse ✓".encode(), "käse ✓"),
        (b"broken \xff\xc3", "broken \\xff\\xc3"),
        ("far \U000e0001".encode(), "far \\U000e0001"),
        (bytearray(b"\x1b"), "\\x1b"),
    ],
)
def test_guest_output_is_shown_not_obeyed(line: bytes, text: str) -> None:
    assert printable(line) == text
    assert all(character.isprintable() or character == "\t" for character in printable(line))
