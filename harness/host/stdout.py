"""Standard output and standard error, whatever became of them.

A reader may go away, as in `bootproof boot … | head`; a stream may have been closed before we
began; its encoding may have no word for what is said. What is under way goes on all the same, and
the exit code says how that ended. Any other failure to write, such as a full disk, is a failure of
the command, told once at its end. No terminal is told to do something, and no line begins as a
command to a CI's log reader does: much of what is said was said by guests, or stands in files of
strangers, or is the name of one.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from typing import TYPE_CHECKING, Any, Final, Self

from bootproof.printable import one_line, safe

if TYPE_CHECKING:
    from typing_extensions import Buffer

# "Workflow commands" of GitHub Actions: "::error file=…::", and the older "##[error]".
_COMMAND: Final = re.compile(r"^(\s*)(?:(:)(?=:)|(#)(?=#\[))", re.MULTILINE)

_UNUSUAL: Final = re.compile(r"[^\n\t -~]")
_COLOUR: Final = re.compile(r"(\x1b\[[0-9;]*m)")  # ECMA-48, 8.3.117: select graphic rendition


class OwnCommand(str):
    """Text that may begin as a command: we have made it, and escaped what is in it. To be given to
    `write` as it is; `print` makes other text of it.
    """

    __slots__ = ()


class Coloured(str):
    """Text in which colours are ours. `print` and `write` pass them on; what is made of it, or of a
    part of it, is other text.
    """

    __slots__ = ()

    def __str__(self) -> Self:
        return self


class StandardOutput:
    """`error` is what kept output from being written, if anything but the reader's end."""

    def __init__(self) -> None:
        self.error: OSError | None = None
        self._streams: list[io.TextIOWrapper] = []

    def install(self) -> None:
        """Takes the place of the interpreter's own streams; not of those that others put there."""
        _open_the_closed()
        for name, owner in (("stdout", self), ("stderr", StandardOutput())):
            stream = getattr(sys, name)
            if not isinstance(stream, io.TextIOWrapper) or stream is not getattr(
                sys, f"__{name}__"
            ):
                continue
            with contextlib.suppress(OSError):
                stream.flush()
            errors = "backslashreplace" if stream.errors == "strict" else stream.errors
            buffered = stream.line_buffering
            ours = owner.over(stream.fileno(), stream.encoding, errors, line_buffering=buffered)
            self._streams += [ours, stream]  # the second, so that nobody closes its descriptor
            setattr(sys, name, ours)
            setattr(sys, f"__{name}__", ours)  # for who writes past what stands in for the first

    def over(
        self, fd: int, encoding: str, errors: str | None, *, line_buffering: bool = False
    ) -> io.TextIOWrapper:
        """Another such stream, over a descriptor that stays the caller's."""
        lines = _Lines(
            self._raw(fd), encoding=encoding, errors=errors, line_buffering=line_buffering
        )
        lines.drawn = self.drawing(fd, encoding, errors)
        return lines

    def drawing(self, fd: int, encoding: str, errors: str | None) -> io.TextIOWrapper:
        """The same for a library that moves the cursor, and knows that its text is printable."""
        return io.TextIOWrapper(self._raw(fd), encoding=encoding, errors=errors)

    def _raw(self, fd: int) -> io.BufferedWriter:
        return io.BufferedWriter(_Raw(fd, self))

    def finish(self) -> None:
        """Writes out what is left."""
        for stream in self._streams[::2]:
            stream.flush()


def say(*lines: str) -> None:
    """Lines for the user on stderr, each one line whatever is in it."""
    with contextlib.suppress(OSError):  # nobody reads them
        sys.stdout.flush()  # in one file, the streams stand in the order of what happened
        for line in lines:
            print(f"bootproof: {one_line(line)}", file=sys.stderr, flush=True)


def _open_the_closed() -> None:
    """Opens what was closed (`>&-`): else the next file that we open would be standard output."""
    for descriptor, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest that is free: this one
            os.set_inheritable(null, True)
        if getattr(sys, name) is None:
            mode = "r" if descriptor == 0 else "w"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123


class _Lines(io.TextIOWrapper):
    """Writes text that is printable, and no command of a CI's at the beginning of a line.

    `drawn` is the way past that, for who draws on a terminal.
    """

    drawn: io.TextIOWrapper

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._begun = False

    def write(self, text: str, /) -> int:
        if text:
            shown = _printable(text) if _UNUSUAL.search(text) else text
            if not isinstance(text, OwnCommand) and ("::" in text or "##[" in text):
                shown = self._without_commands(shown)
            super().write(shown)
            self._begun = not text.endswith("\n")
        return len(text)

    def _without_commands(self, text: str) -> str:
        if self._begun and _COMMAND.match(text):
            first, newline, rest = text.partition("\n")  # which goes on with a line
            return first + newline + _COMMAND.sub(_escaped, rest)
        return _COMMAND.sub(_escaped, text)


def _printable(text: str) -> str:
    if not isinstance(text, Coloured):
        return safe(text, "\n\t")
    return "".join(
        part if at % 2 else safe(part, "\n\t") for at, part in enumerate(_COLOUR.split(text))
    )


def _escaped(match: re.Match[str]) -> str:
    return f"{match[1]}\\x{ord(match[2] or match[3]):02x}"


class _Raw(io.FileIO):
    def __init__(self, fd: int, owner: StandardOutput) -> None:
        super().__init__(fd, "w", closefd=False)
        self._owner = owner

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if not isinstance(error, BrokenPipeError):
                self._owner.error = error
            null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            os.dup2(null, self.fileno())
            os.close(null)
            return memoryview(data).nbytes
