"""`bootproof inspect`: what a kernel file is and how it would load."""

from __future__ import annotations

import argparse
from typing import Final

from bootproof.harness.commands import OK, Command
from bootproof.harness.commands import parser as words


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kernel", metavar="KERNEL", help="a file, or a name of the catalogue")
    parser.add_argument(
        "--offset", type=words.offset, metavar="SIZE", help="show what would change"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")


def _run(arguments: argparse.Namespace) -> int:
    import json
    from dataclasses import asdict

    from bootproof.harness.inputs import images
    from bootproof.harness.report import inspection
    from bootproof.loader.inspect import inspect

    found = inspect(images.kernel_path(arguments.kernel), offset=arguments.offset)
    if arguments.json:
        print(json.dumps(asdict(found), indent=2, default=str))
    else:
        print(inspection.render(found), end="")
    return OK


COMMAND: Final = Command(
    "what a kernel file is and how it would load",
    "inspect vmlinux --offset 16M",
    _run,
    _add_options,
)
