"""`bootproof run`: starts a boot image that any program wrote, and judges it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Final

from bootproof.harness import places
from bootproof.harness.commands import NOT_AS_EXPECTED, OK, Command
from bootproof.harness.commands import parser as words


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", type=Path, help="holds boot.json and ram.img")
    parser.add_argument("--machine", help="QEMU machine type (q35, pc, microvm; virt)")
    parser.add_argument("--cpu", help="QEMU CPU model")
    parser.add_argument(
        "--memory", type=words.size, metavar="SIZE", help="checked: the banks must be as large"
    )
    parser.add_argument(
        "--smp",
        type=words.cpus,
        metavar="N",
        help="CPUs (default: as many as its ACPI tables or its device tree tell of)",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--until",
        metavar="TEXT",
        type=os.fsencode,
        help="text the console must show, for a guest that cannot prove its boot",
    )
    what.add_argument(
        "--only-handover",
        action="store_true",
        help="stop at the first instruction: registers, RAM and the protocol's rules",
    )
    parser.add_argument(
        "--budget-seconds",
        type=words.seconds,
        metavar="N",
        help="CPU seconds of QEMU (default: 300)",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run directory")


def _run(arguments: argparse.Namespace) -> int:
    """0 when the guest booted or, if it has no proof, was handed over."""
    from bootproof.harness.boot_image import Request, boot_image

    request = Request(
        directory=arguments.directory,
        board=arguments.machine,
        cpu=arguments.cpu,
        memory=arguments.memory,
        smp=arguments.smp,
        until=arguments.until or None,
        only_handover=arguments.only_handover,
        budget_seconds=arguments.budget_seconds,
        out=arguments.out,
    )
    verdict = boot_image(request, places.output() / "run").judgement.verdict
    return OK if verdict.passed else NOT_AS_EXPECTED


COMMAND: Final = Command(
    "start a boot image that any program wrote, and judge it",
    "run build/image",
    _run,
    _add_options,
    "[options] DIR",
)
