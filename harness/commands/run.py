"""`bootproof run`: starts a boot image that any program wrote, and judges it."""

from __future__ import annotations

import argparse
from typing import Final

from bootproof.harness import places
from bootproof.harness.commands import Command, bisect_options
from bootproof.harness.commands.parser import named

KERNEL_HELP: Final = "hold what is in RAM, and where it is entered, against this kernel"
_HELPS: Final = {
    "memory": "checked: the banks must be as large",
    "smp": "CPUs, of an image with registers for one (default: as many as its tables tell of)",
}


def _add_options(parser: argparse.ArgumentParser) -> None:
    from bootproof.harness.commands import case_options

    parser.add_argument("directory", metavar="DIR", type=named, help="holds boot.json and ram.img")
    case_options.add_options(parser, "run", _HELPS)
    parser.add_argument("--kernel", metavar="KERNEL", help=KERNEL_HELP)
    parser.add_argument("--out", type=named, metavar="DIR", help="the run directory")
    bisect_options.add(parser)


def _run(arguments: argparse.Namespace) -> int:
    """0 when the guest booted or, if it has no proof, was handed over."""
    from bootproof.harness.cases import of_image, qemus
    from bootproof.harness.commands import case_options
    from bootproof.harness.host import rundir
    from bootproof.harness.prepare import Options
    from bootproof.harness.qemu import binary
    from bootproof.harness.report import boot_text

    sought = bisect_options.sought(arguments)
    words, paths = qemus.of_words(case_options.words(arguments, "run"))
    case = of_image.case_of(arguments.directory, words, arguments.kernel)
    directory = (arguments.out or places.output() / "run" / case.kernel).absolute()
    with rundir.held(directory), binary.ahead(case.arch, paths.get(case.qemu or "")):
        proven = boot_text.boot(case, directory, Options(qemus=paths))
    return bisect_options.code_of(sought, [(proven.verdict.value, proven.problem)])


COMMAND: Final = Command(
    "start a boot image that any program wrote, and judge it",
    "run build/image",
    _run,
    _add_options,
    "[options] DIR",
)
