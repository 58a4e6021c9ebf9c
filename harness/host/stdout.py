"""Standard output and standard error, whatever became of them.

A reader may go away, as in `bootproof boot … | head`; a stream may have been closed before we
began; its encoding may have no word for what is said. What is under way goes on all the same, and
the exit code says how that ended. Any other failure to write, such as a full disk, is a failure of
the command, told once at its end. No line begins as a command to a CI's log reader does: much of
what is said was said by guests, or stands in files of strangers.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from typing_extensions import Buffer

# "Workflow commands" of GitHub Actions: "::error file=…::", and the older "##[error]".
_COMMAND: Final = re.compile(r"^(\s*)(?:(:)(?=:)|(#)(?=#\[))", re.MULTILINE)


class OwnCommand(str):
    """Text that may begin as a command: we have made it, and escaped what is in it. To be given to
    `write` as it is; `print` makes other text of it.
    """

    __slots__ = ()


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
        raw = io.BufferedWriter(_Raw(fd, self))
        return _Lines(raw, encoding=encoding, errors=errors, line_buffering=line_buffering)

    def finish(self) -> None:
        """Writes out what is left."""
        for stream in self._streams[::2]:
            stream.flush()


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
    """Writes text, and no command of a CI's at the beginning of a line."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._begun = False

    def write(self, text: str, /) -> int:
        if isinstance(text, OwnCommand):
            return super().write(text)
        if text:
            shown = _COMMAND.sub(_escaped, text) if "::" in text or "##[" in text else text
            if self._begun and shown != text and _COMMAND.match(text):
                first, newline, rest = text.partition("\n")  # which goes on with a line
                shown = first + newline + _COMMAND.sub(_escaped, rest)
            super().write(shown)
            self._begun = not text.endswith("\n")
        return len(text)


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
