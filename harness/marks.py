"""What a bisection is told of a commit or an image: the exit codes that `git bisect run` documents.

Needs the standard library only: words that are wrong have to stop a bisection before any set-up.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final

from bootproof.harness import exitcode

BISECT: Final = "--bisect"
"""The option that asks for these codes."""


class Mark(enum.IntEnum):
    """What a commit, or an image, is."""

    GOOD = exitcode.OK
    BAD = exitcode.NOT_AS_EXPECTED
    # Nothing was found out about it: git tries one near it.
    CANNOT_TELL = exitcode.CANNOT_TELL
    # Nothing can be found out about any.
    STOP = 128

    def __str__(self) -> str:
        return self.name.lower().replace("_", " ")


def code_of_mistake(words: Sequence[str], code: int) -> int:
    """The exit code of a command line that is wrong: `code` says what it is without a bisection."""
    return int(Mark.STOP) if BISECT in words else code


def code_of_environment(words: Sequence[str], code: int) -> int:
    """The same where something that is needed is missing: a kernel, a QEMU, room on a disk."""
    return int(Mark.CANNOT_TELL) if BISECT in words else code
