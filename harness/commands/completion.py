"""`bootproof completion`: the program by which a shell completes our words."""

from __future__ import annotations

import argparse
from typing import Final

from bootproof.harness.commands import Command
from bootproof.harness.exitcode import OK


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "shell",
        choices=("bash", "zsh", "fish"),
        help='in its start-up file: eval "$(bootproof completion bash)"',
    )


def _run(arguments: argparse.Namespace) -> int:
    import shtab

    print(shtab.complete(arguments.whole_parser(), shell=arguments.shell))
    return OK


COMMAND: Final = Command(
    "print completion for a shell",
    "completion bash",
    _run,
    _add_options,
)
