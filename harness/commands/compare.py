"""`bootproof compare`: one kernel booted our way and by QEMU's own -kernel, and what differs."""

from __future__ import annotations

import argparse
from typing import Final

from bootproof.harness import places
from bootproof.harness.commands import Command
from bootproof.harness.commands.parser import named
from bootproof.harness.exitcode import CANNOT_TELL, NOT_AS_EXPECTED, OK


def _add_options(parser: argparse.ArgumentParser) -> None:
    from bootproof.harness.commands import case_options

    case_options.add_kernel(parser, "compare")
    parser.add_argument("--json", action="store_true", help="every difference, as JSON")
    parser.add_argument("--out", type=named, metavar="DIR", help="the run directories' place")


def _run(arguments: argparse.Namespace) -> int:
    """0 when every difference is explained, 1 when one is not, unless a boot came to no end."""
    import json

    from bootproof.harness.commands import case_options
    from bootproof.harness.compare import both_ways
    from bootproof.harness.host import rundir
    from bootproof.harness.prepare import Options
    from bootproof.harness.report import boot_text
    from bootproof.harness.report.comparison import render

    case, qemus = case_options.case(arguments, "compare")
    case = both_ways.at_references_place(case)
    directory = (arguments.out or places.output() / "compare" / case.id).absolute()
    with rundir.held(directory):
        comparison = both_ways.compare(case, directory, Options(qemus=qemus))
    if arguments.json:
        print(json.dumps(comparison.to_json(), indent=2))
    else:
        boot_text.print_left_out(case)
        print(render(comparison), end="")
    if comparison.of_host:
        return CANNOT_TELL
    return NOT_AS_EXPECTED if comparison.unexplained else OK


COMMAND: Final = Command(
    "boot a kernel our way and by QEMU's own -kernel",
    "compare vmlinux --protocol pvh --json",
    _run,
    _add_options,
    "[options] KERNEL",
)
