"""`bootproof image`: the boot image that `bootproof boot` would start, written and not started."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Final

from bootproof.harness.commands import OK, Command


def _add_options(parser: argparse.ArgumentParser) -> None:
    from bootproof.harness.commands import case_options

    case_options.add_kernel(parser, "image")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="the boot image")


def _run(arguments: argparse.Namespace) -> int:
    """Writes it, and says what lies where."""
    from bootproof.harness import prove
    from bootproof.harness.commands import case_options
    from bootproof.harness.report import boot_text
    from bootproof.loader import bootimage
    from bootproof.loader.errors import one_line

    out = arguments.out
    case, qemus = case_options.case(arguments, "image")
    prepared = prove.prepare(case, out.absolute(), prove.Options(qemus=qemus))
    boot_text.print_request(prepared, case)
    words = ["bootproof", "run", one_line(str(out))]
    words += ["--machine", case.board] if case.board else []
    words += ["--cpu", case.cpu] if case.cpu else []
    print(f"image     {one_line(str(out))}: {bootimage.DESCRIPTION}, {bootimage.RAM}")
    print(f"run it    {shlex.join(words)}")
    return OK


COMMAND: Final = Command(
    "write a boot image without starting anything",
    "image vmlinux --protocol linux64 --out build/image",
    _run,
    _add_options,
    "[options] --out DIR KERNEL",
)
