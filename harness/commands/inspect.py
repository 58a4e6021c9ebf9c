"""`bootproof inspect`: what a kernel file is and how it would load."""

from __future__ import annotations

import argparse
from typing import Final

from bootproof.harness.commands import Command
from bootproof.harness.exitcode import OK


def _add_options(parser: argparse.ArgumentParser) -> None:
    from bootproof.harness.commands import case_options

    case_options.add_kernel(parser, "inspect", {"offset": "show what would change"})
    parser.add_argument("--json", action="store_true", help="as JSON")


def _run(arguments: argparse.Namespace) -> int:
    import json
    from dataclasses import asdict, replace

    from bootproof.harness.cases import schema
    from bootproof.harness.commands import case_options
    from bootproof.harness.inputs import images, kernel_check
    from bootproof.harness.report import inspection
    from bootproof.loader.inspect import inspect

    _, file = images.find(arguments.kernel)
    problem = kernel_check.check(file).problem
    with file.open() as image:
        seen = inspect(image)
    if words := case_options.words(arguments, "inspect"):
        ram = schema.ram_base({"arch": seen.arch})
        asked = schema.read_table(schema.options("inspect"), words, (), ram)
        with file.open() as image:
            seen = inspect(image, offset=asked["offset"])
    seen = replace(seen, unprovable=None if problem is None else str(problem))
    if arguments.json:
        print(json.dumps(asdict(seen), indent=2, default=str))
    else:
        print(inspection.render(seen), end="")
    return OK


COMMAND: Final = Command(
    "what a kernel file is and how it would load",
    "inspect vmlinux --offset 16M",
    _run,
    _add_options,
)
