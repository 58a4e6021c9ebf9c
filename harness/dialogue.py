"""A dialogue with a guest through its serial console: pexpect over what it says.

Owns the thread that watches the guest meanwhile, what was heard so far, and the way of words to the
guest. In real time: no such run is deterministic, and none is recorded. Knows nothing of pytest.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pexpect
from pexpect.spawnbase import SpawnBase

from bootproof.harness import command_line
from bootproof.harness.case import Case
from bootproof.harness.errors import UserError
from bootproof.harness.prepare import Options, prepare
from bootproof.harness.prove import Proven, run_prepared
from bootproof.harness.qemu.talker import Talker
from bootproof.harness.terms import Budget
from bootproof.harness.text import printable

if TYPE_CHECKING:
    _Spawn = SpawnBase[str]
else:  # generic in its stubs only
    _Spawn = SpawnBase

__tracebackhide__ = True  # pytest shows the line of the test, and none of these
_CHUNK: Final = 64 << 10
_WINDOW: Final = 2 * _CHUNK  # a read, and a pattern that began in the one before
_FULL_SECONDS: Final = 0.02  # until a full pipe is tried again
_LAST_LINES: Final = 10
# Who talks to a guest decides when it ends; a QEMU that does nothing at all is ended all the same.
_BUDGET: Final = replace(
    Budget.unlimited(),
    console_bytes=Budget().console_bytes,
    entry_cpu_seconds=Budget().entry_cpu_seconds,
    idle_seconds=Budget().idle_seconds,
)


class DialogueError(AssertionError):
    """The guest did not do what was asked of it: the rest of the dialogue has no sense."""


class Dialogue:
    """A running guest that is talked to. Seconds are the host's: the guest runs in real time."""

    def __init__(self, run: Future[Proven], heard: _Heard, words: int, left: threading.Event):
        self._run, self._heard, self._words, self._left = run, heard, words, left

    @property
    def console(self) -> str:
        """All that the guest has said so far, as it said it: a terminal's lines end with \\r\\n."""
        return self._heard.so_far

    @property
    def before(self) -> str:
        """What the guest said between the last two matches."""
        return self._heard.before if isinstance(self._heard.before, str) else ""

    def expect(self, pattern: str, timeout: float) -> re.Match[str]:
        """Waits until the guest says what the regular expression matches, after the last match.

        Raises DialogueError when it does not, or ends; UserError for no regular expression.
        """
        try:
            compiled = re.compile(pattern, re.DOTALL)  # as pexpect does
        except (re.error, TypeError) as error:
            raise UserError(f"expect: {pattern!r} is no regular expression: {error}") from error
        if not isinstance(pattern, str):
            raise UserError(f"expect: {pattern!r} is no text, which the console is read as")
        try:
            self._heard.expect(compiled, timeout)
        except pexpect.TIMEOUT:
            earlier = compiled.search(self.console)
            hint = "; it was said before the last match" if earlier else ""
            self._fail(f"expect: {pattern!r} was not seen in {timeout:g} s{hint}")
        except pexpect.EOF:
            self._fail(f"expect: {pattern!r} was not seen before {self._end()}")
        assert isinstance(self._heard.match, re.Match)
        return self._heard.match

    def send(self, text: str, timeout: float) -> None:
        """Says `text` to the guest. Raises DialogueError when it has ended, or takes no more."""
        data = text.encode()
        deadline = time.monotonic() + timeout
        while data:
            if self._run.done():
                self._fail(f"send: {text!r} cannot be said: {self._end()}")
            try:
                data = data[os.write(self._words, data) :]
            except BlockingIOError:
                if time.monotonic() > deadline:
                    left = f"{len(data):,} of {len(text.encode()):,} bytes"
                    self._fail(f"send: the guest has not taken {left} in {timeout:g} s")
                time.sleep(_FULL_SECONDS)

    def wait(self, timeout: float) -> Proven:
        """How the guest ended, when it has. Raises DialogueError when it does not."""
        if not wait([self._run], timeout).done:
            self._fail(f"wait: the guest has not ended in {timeout:g} s")
        return self._run.result()

    def end(self) -> Proven:
        """Ends the guest, if it has not ended, and says how that was. Raises UserError."""
        self._left.set()
        return self._run.result()

    def _end(self) -> str:
        proven = self._run.result()
        return f"the guest ended: {proven.verdict.value}: {proven.reason}"

    def _fail(self, sentence: str) -> None:
        lines = [f"| {printable(line.encode())}" for line in self.console.splitlines() if line]
        said = ["; the guest said last:", *lines[-_LAST_LINES:]] if lines else ["; it said nothing"]
        raise DialogueError("\n".join([sentence + said[0], *said[1:]])) from None


@contextlib.contextmanager
def dialogue(case: Case, directory: Path, qemus: Mapping[str, str]) -> Iterator[Dialogue]:
    """A dialogue with the guest of a case, which has ended when the block is left.

    `directory` is the run directory. Raises as `prepare`; what only shows once QEMU is
    started is raised at the end.
    """
    left, heard = threading.Event(), _Heard()
    with _pipe() as (stdin, words), ThreadPoolExecutor(1, "guest") as thread:
        talker = Talker("dialogue", "dialogue", command_line.DIALOGUE, stdin, left.is_set)
        options = Options(_BUDGET, talker, heard.add, qemus=qemus)
        prepared = prepare(case, directory, options)
        run = thread.submit(run_prepared, case, prepared, directory)
        run.add_done_callback(heard.end)
        talk = Dialogue(run, heard, words, left)
        try:
            yield talk
        finally:
            talk.end()


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    """A pipe whose writer is never made to wait."""
    reads, writes = os.pipe()
    try:
        os.set_blocking(writes, False)
        yield reads, writes
    finally:
        os.close(reads)
        os.close(writes)


class _Heard(_Spawn):
    """What a guest has said, as a pexpect object: one thread adds to it, another one reads."""

    def __init__(self) -> None:
        super().__init__(timeout=None, maxread=_CHUNK, searchwindowsize=_WINDOW, encoding="utf-8")
        self._text = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._changed = threading.Condition()
        self._said = bytearray()
        self._done = 0  # bytes that were read
        self._ended = False

    def add(self, data: bytes) -> None:
        with self._changed:
            self._said += data
            self._changed.notify_all()

    def end(self, _: object) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def so_far(self) -> str:
        with self._changed:
            return self._said.decode("utf-8", "backslashreplace")

    def read_nonblocking(self, size: int = 1, timeout: float | None = None) -> str:
        """As the base class: raises pexpect.TIMEOUT when nothing came, pexpect.EOF at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._done < len(self._said), timeout)
            data = bytes(self._said[self._done : self._done + size])
            self._done += len(data)
            ended = self._ended
        if data:
            return self._text.decode(data)
        raise pexpect.EOF("the guest has ended") if ended else pexpect.TIMEOUT("it says nothing")
