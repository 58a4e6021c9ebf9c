"""`bootproof run`: starts a boot image that any program wrote, and judges it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Final

from bootproof.harness import exitcode, places
from bootproof.harness.commands import Command, bisect_options
from bootproof.harness.commands import parser as words
from bootproof.harness.commands.parser import named
from bootproof.harness.text import printable

KERNEL_HELP: Final = "hold what is in RAM, and where it is entered, against this kernel"
_HELPS: Final = {
    "memory": "checked: the banks must be as large",
    "smp": "CPUs, of an image with registers for one (default: as many as its tables tell of)",
}


def _add_options(parser: argparse.ArgumentParser) -> None:
    from bootproof.harness.commands import case_options

    parser.add_argument("directory", metavar="DIR", type=named, help="holds boot.json and ram.img")
    case_options.add_options(parser, "run", _HELPS)
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--until",
        metavar="TEXT",
        type=words.text,
        help="text the console must show, for a guest that cannot prove its boot",
    )
    what.add_argument(
        "--only-handover",
        action="store_true",
        help="stop at the first instruction: registers, RAM and the protocol's rules",
    )
    parser.add_argument("--kernel", metavar="KERNEL", help=KERNEL_HELP)
    parser.add_argument("--out", type=named, metavar="DIR", help="the run directory")
    bisect_options.add(parser)


def _run(arguments: argparse.Namespace) -> int:
    """0 when the guest booted or, if it has no proof, was handed over."""
    from bootproof.harness.boot_image import boot_image, problem, request_of
    from bootproof.harness.commands import case_options
    from bootproof.harness.host import rundir
    from bootproof.harness.judgement import came_to

    sought = bisect_options.sought(arguments)
    place = Path(os.path.realpath(arguments.directory))  # which says nothing of a loop of links
    name = place.name.encode("utf-8", "surrogateescape")
    request = request_of(
        case_options.words(arguments, "run"),
        directory=arguments.directory,
        until=arguments.until,
        only_handover=arguments.only_handover,
        kernel=arguments.kernel,
        out=arguments.out or places.output() / "run" / (printable(name) or "image"),
    )
    with rundir.held(request.out.absolute()):
        judgement = boot_image(request).judgement
    wrong = problem(request, judgement)
    if sought is not None:
        from bootproof.harness.results.bisection import failure

        return bisect_options.code(sought, [failure(judgement.verdict.value, wrong)])
    return exitcode.of_outcome(came_to(judgement.verdict.value, wrong))


COMMAND: Final = Command(
    "start a boot image that any program wrote, and judge it",
    "run build/image",
    _run,
    _add_options,
    "[options] DIR",
)
