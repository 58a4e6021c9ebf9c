"""`bootproof boot`: one kernel, one request, the console as it happens, a verdict at the end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bootproof.harness import places
from bootproof.harness.commands import Command, bisect_options
from bootproof.harness.commands.bisect_options import End
from bootproof.harness.commands.parser import named
from bootproof.harness.errors import UserError
from bootproof.harness.text import first_difference

if TYPE_CHECKING:
    from bootproof.harness.case import Case
    from bootproof.harness.course import Outcome
    from bootproof.harness.prepare import Options
    from bootproof.harness.prove import Proven


def _add_options(parser: argparse.ArgumentParser) -> None:
    from bootproof.harness.commands import case_options

    case_options.add_kernel(parser, "boot")
    parser.add_argument(
        "--twice",
        action="store_true",
        help="boot twice: both boots must be the same",
    )
    parser.add_argument(
        "--console", action="store_true", help="talk to the guest (real time, not reproducible)"
    )
    parser.add_argument("--out", type=named, metavar="DIR", help="the run directory")
    bisect_options.add(parser)


def _run(arguments: argparse.Namespace) -> int:
    """0 when the kernel booted, and with --twice did so the same way."""
    from bootproof.harness.commands import case_options

    if arguments.console and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError("--console needs a terminal for input and output")
    sought = bisect_options.sought(arguments)
    case, qemus = case_options.case(arguments, "boot")
    from bootproof.harness.qemu import binary

    with binary.ahead(case.arch, qemus.get(case.qemu or "")):
        ends = _boots(arguments, case, qemus)
    return bisect_options.code_of(sought, ends)


def _boots(arguments: argparse.Namespace, case: Case, qemus: Mapping[str, str]) -> list[End]:
    """How the boots that were asked for ended."""
    from bootproof.harness.host import rundir
    from bootproof.harness.prepare import Options
    from bootproof.harness.qemu.talker import TERMINAL
    from bootproof.harness.terms import Budget

    directory = (arguments.out or places.output() / "boot" / case.id).absolute()
    options = Options(
        talker=TERMINAL if arguments.console else None,
        budget=Budget.unlimited() if arguments.console else Budget(),
        qemus=qemus,
    )
    with rundir.held(directory):
        ends = [*(_boot_twice if arguments.twice else _boot_once)(case, directory, options)]
        if arguments.out is None and all(problem is None for _, problem in ends):
            _share(directory)
    return ends


def _share(directory: Path) -> None:
    """Has a run below our own directory share what it can with the others there."""
    from bootproof.harness.record import sharing

    store = directory.parent / sharing.STORE
    for run in (directory, directory / "first", directory / "second"):
        sharing.share(run, store)
    sharing.prune(store)


def _boot_once(case: Case, directory: Path, options: Options) -> Iterator[End]:
    from bootproof.harness.report import boot_text

    proven = boot_text.boot(case, directory, options)
    yield proven.verdict.value, proven.problem


def _boot_twice(case: Case, directory: Path, options: Options) -> Iterator[End]:
    """Two boots below `directory`, and whether they were the same."""
    from bootproof.harness.inputs import images
    from bootproof.harness.prepare import machine_for

    kernel = images.kernel_file(case.kernel_source)
    machine = machine_for(case, kernel, options)
    if machine.realtime:
        why = "leave --realtime out" if case.realtime else machine.realtime
        raise UserError(f"--twice: no two boots are the same in real time: {why}")
    runs = [_boot_held(case, directory / name, options) for name in ("first", "second")]
    yield from ((proven.verdict.value, proven.problem) for proven in runs)
    if any(proven.verdict.of_host for proven in runs):
        print("twice     not compared: not both runs say something of the guest")
        return
    first, second = (proven.outcome for proven in runs)
    assert first is not None and second is not None  # a refusal is an error here
    differs = difference(first, second, case.smp)
    print(f"twice     {differs or f'the same {_compared(first, second, case.smp)}'}")
    yield "not deterministic", differs


def _boot_held(case: Case, directory: Path, options: Options) -> Proven:
    from bootproof.harness.host import rundir
    from bootproof.harness.report import boot_text

    with rundir.held(directory):
        return boot_text.boot(case, directory, options)


def difference(first: Outcome, second: Outcome, cpus: int) -> str | None:
    """The first thing that is not the same in both runs, in one sentence; None when all is that
    can be: of a guest that did not end by itself, what both runs have of the transcript.
    """
    transcripts = [outcome.observation.transcript for outcome in (first, second)]
    if not _ended_by_themselves(first, second):
        both = min(map(len, transcripts))
        transcripts = [transcript[:both] for transcript in transcripts]
    line = first_difference(*transcripts)
    if line is not None:
        number, left, right = line
        return f"transcript line {number} is {left} the first time, {right} the second time"
    counts = first.costs.instructions, second.costs.instructions
    if uncounted(first, second, cpus) or counts[0] == counts[1]:
        return None
    return f"{counts[0]:,} guest instructions the first time, {counts[1]:,} the second time"


def uncounted(first: Outcome, second: Outcome, cpus: int) -> str | None:
    """Why the instructions of two runs are not compared, in a few words; None where they are."""
    if not _ended_by_themselves(first, second):
        return "of a guest that does not end by itself"
    if cpus > 1:  # when one of them ends the machine, the others run on until QEMU stops them
        return f"with {cpus} CPUs"
    unknown = None in (first.costs.instructions, second.costs.instructions)
    return "not known" if unknown else None


def _ended_by_themselves(*outcomes: Outcome) -> bool:
    return all(outcome.observation.end.of_guest for outcome in outcomes)


def _compared(first: Outcome, second: Outcome, cpus: int) -> str:
    """What was the same in both runs, and what of them was not looked at."""
    why = uncounted(first, second, cpus)
    if why is None:
        return "transcript and number of instructions"
    whole = _ended_by_themselves(first, second)
    return f"transcript{'' if whole else ', as far as both go'}; instructions not compared: {why}"


COMMAND: Final = Command(
    "boot one kernel, with live output",
    "boot arch/x86/boot/bzImage --protocol linux32 --offset 32M",
    _run,
    _add_options,
    "[options] KERNEL",
)
