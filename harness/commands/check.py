"""`bootproof check`: a boot image against the rules of its protocol, without starting anything."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from bootproof.harness.commands import Command
from bootproof.harness.commands.parser import named
from bootproof.harness.commands.run import KERNEL_HELP
from bootproof.harness.exitcode import CANNOT_TELL, NOT_AS_EXPECTED, OK


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", type=named, help="holds boot.json and ram.img")
    parser.add_argument("--kernel", metavar="KERNEL", help=KERNEL_HELP)
    parser.add_argument("--json", action="store_true", help="as JSON")


def _run(arguments: argparse.Namespace) -> int:
    """0 when no rule is broken, whatever is tolerated; with no rule to hold it against nobody can
    tell.
    """
    from bootproof.harness.report import rules
    from bootproof.loader import bootimage, conformance
    from bootproof.loader.boot_parameters import reader

    directory: Path = arguments.directory
    image = bootimage.open_boot_image(directory)
    with bootimage.open_ram(image, directory) as memory:
        found = conformance.findings(image, reader(memory))
        if arguments.kernel is not None:
            from bootproof.harness.inputs import claimed_kernel  # which is far more to import

            found += claimed_kernel.findings(image, reader(memory), arguments.kernel)
        conformance.check_startable(image, reader(memory), found, directory)
    if arguments.json:
        print(rules.as_json(found))
    else:
        rules.print_marks(image)
        print(rules.text(directory, image, found))
    broken = any(finding.forbidden for finding in found)
    if broken:
        return NOT_AS_EXPECTED
    compared = arguments.kernel is not None or image.protocol != bootimage.NO_PROTOCOL
    return OK if compared else CANNOT_TELL


COMMAND: Final = Command(
    "hold a boot image against the rules of its boot protocol, starting nothing",
    "check build/image",
    _run,
    _add_options,
)
