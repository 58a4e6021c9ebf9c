"""The parser of the command line, and what some of its words mean. What is wrong is one line."""

from __future__ import annotations

import argparse
import functools
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from bootproof.harness.exitcode import USAGE
from bootproof.printable import one_line

if TYPE_CHECKING:
    from bootproof.harness.cases.shard import Shard

_MOST_GUESTS: Final = 256
_LIKELY: Final = 0.7  # how alike an option must be that may have been meant
_MOST_DIGITS: Final = 30  # more than any run has


class Brief(str):
    """Help of an option that a group's description names: completion shows it, --help does not."""


class _Help(argparse.HelpFormatter):
    def _fill_text(self, text: str, width: int, indent: str) -> str:
        text = " ".join(text.split())
        return textwrap.fill(
            text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
        )

    def add_argument(self, action: argparse.Action) -> None:
        if not isinstance(action.help, Brief):
            super().add_argument(action)
        if isinstance(action, argparse._SubParsersAction):  # whose commands stand further in
            self._action_max_length += self._indent_increment


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as all of ours are."""

    def __init__(self, **others: Any) -> None:
        # Told here, or each option would have the library ask for it: 40 times for `boot`.
        width = shutil.get_terminal_size().columns - 2
        help_of = functools.partial(_Help, width=width)
        super().__init__(formatter_class=help_of, **others)

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, one_line(f"{self.prog}: {message} (see {self.prog} --help)") + "\n")

    def refuse(self, words: Sequence[str]) -> NoReturn:
        """Ends with words that it does not know, and the nearest that it does."""
        import difflib  # for what is wrong

        known = [name for name in self._option_string_actions if name not in words]
        near = difflib.get_close_matches(words[0].partition("=")[0], known, 1, _LIKELY)
        hint = f"; did you mean {near[0]}?" if near else ""
        self.error(f"unrecognized arguments: {' '.join(words)}{hint}")


def count(text: str) -> int:
    """How many guests at once."""
    if not text.isascii() or not text.isdecimal() or not 0 < int(text) <= _MOST_GUESTS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {_MOST_GUESTS}")
    return int(text)


def seconds(text: str) -> float:
    """How long something may take."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds; write it like 60")
    return found


def instructions(text: str) -> int:
    """A number of guest instructions."""
    if not text.isascii() or not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of instructions")
    return int(text[:_MOST_DIGITS])


def name(text: str) -> str:
    """What tells one from others: a variable that is not set tells nothing."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty")
    return text


def named(text: str) -> Path:
    """A file or directory, as it is written; nothing stands for the current one, as in a shell."""
    if not text:
        raise argparse.ArgumentTypeError("an empty name is that of no file")
    return Path(text)


def path(text: str) -> Path:
    """The same wherever the command goes on."""
    return named(text).absolute()


def shard(text: str) -> Shard:
    """1/4."""
    from bootproof.harness.cases.shard import parse

    try:
        return parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def ratio(text: str) -> float:
    """0.5% or 0.5 as 0.005."""
    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is no percentage; write it like 0.5%")
    return percent / 100


def add_qemu(parser: argparse.ArgumentParser) -> None:
    """--qemu of a command that plays a recorded run back, as the run had it."""
    parser.add_argument(
        "--qemu",
        type=_qemu,
        metavar="NAME=PATH",
        help="the QEMU that the run was recorded with, as the run was given it",
    )


def _qemu(text: str) -> str:
    path_of_qemu(text)
    return text


def path_of_qemu(text: str | None) -> str | None:
    """The path in NAME=PATH; None for None."""
    from bootproof.harness.cases import qemus
    from bootproof.harness.errors import UserError

    try:
        return None if text is None else next(iter(qemus.paths([text]).values()))
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_threshold(parser: argparse._ActionsContainer) -> None:
    """--threshold, as `matrix` and `report` have it."""
    from bootproof.harness.results.changes import THRESHOLD

    parser.add_argument(
        "--threshold",
        type=ratio,
        default=argparse.SUPPRESS,
        metavar="PERCENT",
        help=f"change of counts that is still the same (default: {THRESHOLD:.1%}%)",
    )
