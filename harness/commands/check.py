"""`bootproof check`: a boot image against the rules of its protocol, without starting anything."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bootproof.harness.commands import Command
from bootproof.harness.commands.run import KERNEL_HELP
from bootproof.harness.exitcode import NOT_AS_EXPECTED, OK

if TYPE_CHECKING:
    from bootproof.loader.rules import RuleFinding


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", type=Path, help="holds boot.json and ram.img")
    parser.add_argument("--kernel", metavar="KERNEL", help=KERNEL_HELP)
    parser.add_argument("--json", action="store_true", help="as JSON")


def _run(arguments: argparse.Namespace) -> int:
    """0 when no rule is broken, whatever is tolerated."""
    from bootproof.harness.report import rules
    from bootproof.loader import bootimage
    from bootproof.loader.conformance import check
    from bootproof.loader.rules import Grade

    found = check(arguments.directory)
    if arguments.kernel is not None:
        found += _of_kernel(arguments.directory, arguments.kernel)
    if not arguments.json:
        rules.print_marks(bootimage.open_boot_image(arguments.directory))
    print(rules.as_json(found) if arguments.json else rules.text(arguments.directory, found))
    broken = any(finding.grade is Grade.VIOLATION for finding in found)
    return NOT_AS_EXPECTED if broken else OK


def _of_kernel(directory: Path, kernel: str) -> tuple[RuleFinding, ...]:
    from bootproof.harness.inputs import handed_kernel
    from bootproof.loader import bootimage
    from bootproof.loader.boot_parameters import reader

    image = bootimage.open_boot_image(directory)
    with bootimage.open_ram(image, directory) as memory:
        return handed_kernel.findings(image, reader(memory), kernel)


COMMAND: Final = Command(
    "hold a boot image against the rules of its boot protocol, starting nothing",
    "check build/image",
    _run,
    _add_options,
)
