"""Standard output whose reader may go away, as in `bootproof boot … | head`.

What is under way goes on without it, and the exit code says how that ended. Any other failure to
write, such as a full disk, is a failure of the command, told once at its end.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer


class StandardOutput:
    """`error` is what kept output from being written, if anything but the reader's end."""

    def __init__(self) -> None:
        self.error: OSError | None = None
        self._stream: io.TextIOWrapper | None = None

    def install(self) -> None:
        """Takes the place of the interpreter's own stream; not of one that others put there."""
        stream = sys.stdout
        if not isinstance(stream, io.TextIOWrapper) or stream is not sys.__stdout__:
            return
        stream.flush()
        self._stream = self.over(
            stream.fileno(), stream.encoding, stream.errors, line_buffering=stream.line_buffering
        )
        sys.stdout = self._stream

    def over(
        self, fd: int, encoding: str, errors: str | None, *, line_buffering: bool = False
    ) -> io.TextIOWrapper:
        """Another such stream, over a descriptor that stays the caller's."""
        raw = io.BufferedWriter(_Raw(fd, self))
        return io.TextIOWrapper(
            raw, encoding=encoding, errors=errors, line_buffering=line_buffering
        )

    def finish(self) -> None:
        """Writes out what is left."""
        if self._stream is not None:
            self._stream.flush()


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
