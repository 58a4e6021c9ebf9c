"""`bootproof image`: the boot image that `bootproof boot` would start, written and not started."""

from __future__ import annotations

import argparse
import shlex
from typing import Final

from bootproof.harness import places
from bootproof.harness.commands import Command
from bootproof.harness.commands.parser import named
from bootproof.harness.exitcode import OK


def _add_options(parser: argparse.ArgumentParser) -> None:
    from bootproof.harness.commands import case_options

    case_options.add_kernel(parser, "image")
    parser.add_argument("--out", type=named, metavar="DIR", required=True, help="the boot image")


def _run(arguments: argparse.Namespace) -> int:
    """Writes it, and says what lies where."""
    from bootproof.harness.commands import case_options
    from bootproof.harness.host import rundir
    from bootproof.harness.prepare import Options, prepare
    from bootproof.harness.report import boot_text
    from bootproof.loader import bootimage, conformance
    from bootproof.printable import one_line

    out = arguments.out
    case, qemus = case_options.case(arguments, "image")
    with rundir.held(out):
        prepared = prepare(case, out.absolute(), Options(qemus=qemus))
    boot_text.print_request(case, prepared)
    words = ["run", one_line(str(out))]
    words += ["--machine", case.board] if case.board else []
    words += ["--cpu", case.cpu] if case.cpu else []
    words += ["--until", "TEXT"] if case.no_proof else []
    print(f"image     {one_line(str(out))}: {bootimage.DESCRIPTION}, {bootimage.RAM}")
    for finding in conformance.check(out):
        print(f"{finding.grade.value:<9} {finding.code}: {one_line(finding.sentence)}")
    print(f"run it    {places.COMMAND} {shlex.join(words)}")
    return OK


COMMAND: Final = Command(
    "write a boot image without starting anything",
    "image vmlinux --protocol linux64 --out build/image",
    _run,
    _add_options,
    "[options] --out DIR KERNEL",
)
