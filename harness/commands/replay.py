"""`bootproof replay`: a recorded run played back and compared, or debugged."""

from __future__ import annotations

import argparse
from typing import Final

from bootproof.harness.commands import Command
from bootproof.harness.commands.parser import add_qemu, instructions, named, path_of_qemu
from bootproof.harness.errors import UserError


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="RUN", type=named, help="a run's directory, or a pack")
    parser.add_argument(
        "--gdb",
        nargs="?",
        const="",
        metavar="SOCKET|PORT",
        help="wait for a debugger where the run failed, ready to go back; on a socket of its own,"
        " the path of a socket to make, or a port on loopback",
    )
    parser.add_argument(
        "--at",
        type=instructions,
        metavar="N",
        help="with --gdb: stop after N guest instructions (default: where the kernel says that it"
        " panics, else at the end)",
    )
    parser.add_argument(
        "--symbols", type=named, metavar="VMLINUX", help="with --gdb: a kernel with symbols"
    )
    add_qemu(parser)


def _run(arguments: argparse.Namespace) -> int:
    from bootproof.harness.record import pack, replay, reverse

    wanted = (arguments.at, arguments.symbols)
    if arguments.gdb is None and wanted != (None, None):
        raise UserError("--at and --symbols go with --gdb")
    if arguments.symbols is not None and not arguments.symbols.is_file():
        raise UserError(f"--symbols: {arguments.symbols}: is no file")
    binary = path_of_qemu(arguments.qemu)
    with pack.run_directory(arguments.directory) as directory:
        if arguments.gdb is not None:
            return reverse.run(directory, arguments.gdb, *wanted, binary)
        return replay.run(directory, binary)


COMMAND: Final = Command(
    "play back a recorded run and compare, or debug it",
    "replay build/boot/x86_64-vmlinux-elf-auto-none --gdb",
    _run,
    _add_options,
)
