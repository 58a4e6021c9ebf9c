"""The options of a bisection, for every command that has them, and the exit code that they ask for.

What is good and what is bad is bootproof.harness.results.bisection's; the codes are those of
bootproof.harness.marks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from bootproof.harness import exitcode
from bootproof.harness.commands import parser as words
from bootproof.harness.commands.parser import Brief
from bootproof.harness.errors import UsageError
from bootproof.harness.marks import BISECT

if TYPE_CHECKING:
    from bootproof.harness.results.bisection import Failure, Sought

# How a run ended: a verdict, and what is not as it had to be.
End = tuple[str, str | None]


def add(parser: argparse.ArgumentParser) -> None:
    """The three options, for a command whose run is one commit of `git bisect run`."""
    title = "for git bisect run (docs/bisect.md)"
    group = parser.add_argument_group(title, f"{BISECT}, --same-as, --other-failures")
    group.add_argument(
        BISECT,
        action="store_true",
        help=Brief("exit codes of git bisect run: 0 good, 1 bad, 125 cannot tell, 128 stop"),
    )
    add_sought(group, Brief)


def add_sought(parser: argparse._ActionsContainer, told: type[str] = str) -> None:
    """Those that say which failure is looked for."""
    parser.add_argument(
        "--same-as",
        type=words.path,
        metavar="RUN",
        help=told("only the failure of this run is bad: with the same verdict and reason"),
    )
    parser.add_argument(
        "--other-failures",
        choices=("skip", "good"),
        help=told("what a run is that fails in another way than RUN (default: skip)"),
    )


def sought(arguments: argparse.Namespace) -> Sought | None:
    """The failure that is looked for; None where nothing is bisected. Raises UsageError."""
    if not arguments.bisect:
        for option in ("same_as", "other_failures"):
            if getattr(arguments, option) is not None:
                raise UsageError(f"--{option.replace('_', '-')}: only with {BISECT}")
        return None
    from bootproof.harness.results import bisection

    return bisection.sought(arguments.same_as, arguments.other_failures)


def code_of(sought: Sought | None, ends: Iterable[End]) -> int:
    """The exit code of a command whose runs ended so; of one commit, where one is bisected."""
    if sought is None:
        from bootproof.harness.judgement import came_to

        return exitcode.worst(exitcode.of_outcome(came_to(*end)) for end in ends)
    from bootproof.harness.results.bisection import failure

    return code(sought, (failure(*end) for end in ends))


def code(sought: Sought, failures: Iterable[Failure | None]) -> int:
    """What one commit is, on stderr and as the exit code."""
    mark = sought.mark_of_all(failures)
    print(f"bisect    {mark} (exit code {mark:d})", file=sys.stderr, flush=True)
    return int(mark)
