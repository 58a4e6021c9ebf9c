"""`bootproof unpack`: a run's directory from a packed run."""

from __future__ import annotations

import argparse
import shlex
from typing import Final

from bootproof.harness import places
from bootproof.harness.commands import Command
from bootproof.harness.commands.parser import named
from bootproof.harness.exitcode import OK
from bootproof.printable import safe


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", type=named, help="what `bootproof pack` wrote")
    parser.add_argument("--out", type=named, metavar="DIR", required=True, help="must not exist")


def _run(arguments: argparse.Namespace) -> int:
    from bootproof.harness.record import pack

    pack.unpack(arguments.file, arguments.out)
    out = safe(str(arguments.out))
    print(f"unpacked  {out}; replay it with: {places.COMMAND} replay {shlex.quote(out)}")
    return OK


COMMAND: Final = Command(
    "make a run's directory from a packed run",
    "unpack failure.tar.zst --out failure",
    _run,
    _add_options,
)
