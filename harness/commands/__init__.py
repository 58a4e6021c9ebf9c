"""The sub-commands of `bootproof`, a module each: its options and what it does.

Every module exports COMMAND. Modules that do the work are imported where they are needed, so that
`--help` answers at once. Needs the standard library only: `doctor` runs before the set-up.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from bootproof.dataclass import dataclass


def no_options(_parser: argparse.ArgumentParser) -> None:
    """Of a command that has none."""


@dataclass(frozen=True, slots=True)
class Command:
    """A sub-command, as bootproof.harness.cli offers it."""

    # One line for the list of commands.
    summary: str
    # What may follow `bootproof`, for the end of its help.
    example: str
    # Carries it out; gives the exit code. Raises UserError, FetchError and LoaderError.
    run: Callable[[argparse.Namespace], int]
    add_options: Callable[[argparse.ArgumentParser], None] = no_options
    # What follows its name in `usage:`, where all options would fill half a screen.
    usage: str | None = None
