"""`bootproof initramfs`: the initramfs whose init proves a boot, as a file."""

from __future__ import annotations

import argparse
import re
from typing import Final

from bootproof.harness.commands import Command
from bootproof.harness.commands.parser import named
from bootproof.harness.exitcode import OK

_OURS: Final = re.compile(rb"\A070701.{,1024}bootproof/", re.DOTALL).search


def _add_options(parser: argparse.ArgumentParser) -> None:
    from bootproof.harness.arch.table import ARCHES

    parser.add_argument("file", metavar="FILE", type=named, help="a cpio archive; not compressed")
    parser.add_argument(
        "--arch", choices=tuple(ARCHES), default=next(iter(ARCHES)), help="default: %(default)s"
    )
    parser.add_argument(
        "--machine", metavar="NAME", help="whose serial port is another than the default one's"
    )


def _run(arguments: argparse.Namespace) -> int:
    """Writes our init as a cpio archive, and says what the kernel's command line needs for it."""
    from bootproof.harness import command_line, prepare
    from bootproof.harness.arch.table import ARCHES
    from bootproof.harness.host.files import refuse_foreign, write_given
    from bootproof.harness.qemu.machine import Machine
    from bootproof.loader.address import format_size
    from bootproof.printable import one_line

    Machine.check_board(ARCHES[arguments.arch], arguments.machine)
    path = arguments.file
    refuse_foreign(path, _OURS, through=True)  # before anything is fetched
    data = prepare.evidence_archive(arguments.arch, arguments.machine)
    write_given(path, data, _OURS)
    print(f"initramfs {one_line(str(path))}: {format_size(len(data))}, for {arguments.arch}")
    words = f"{command_line.RDINIT} {command_line.NONCE}TEXT"
    print(f"cmdline   {words} (TEXT: another one for each boot image)")
    return OK


COMMAND: Final = Command(
    "write the initramfs whose init proves a boot",
    "initramfs build/proof.cpio",
    _run,
    _add_options,
)
