"""`bootproof pack`: a recorded run in one file, to be replayed elsewhere."""

from __future__ import annotations

import argparse
import shlex
from typing import Final

from bootproof.harness import places
from bootproof.harness.commands import Command
from bootproof.harness.commands.parser import add_qemu, named, path_of_qemu
from bootproof.harness.exitcode import OK
from bootproof.printable import safe


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="RUN", type=named, help="the directory of a run")
    parser.add_argument("--out", type=named, metavar="FILE", help="default: RUN.tar.zst")
    add_qemu(parser)


def _run(arguments: argparse.Namespace) -> int:
    from bootproof.harness.record import pack

    directory = arguments.directory.absolute()
    out = arguments.out or directory.with_name(f"{directory.name}{pack.SUFFIX}")
    size = pack.pack(arguments.directory, out, path_of_qemu(arguments.qemu))
    told = safe(str(out))
    replay = f"{places.COMMAND} replay {shlex.quote(told)}"
    replay += f" --qemu {shlex.quote(safe(arguments.qemu))}" if arguments.qemu else ""
    print(f"packed    {told}: {size:,} bytes; replay it with: {replay}")
    return OK


COMMAND: Final = Command(
    "put a recorded run into one file, to be replayed elsewhere",
    "pack build/boot/RUN --out failure.tar.zst",
    _run,
    _add_options,
)
