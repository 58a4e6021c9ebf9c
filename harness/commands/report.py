"""`bootproof report`: what changed between two runs, or the reports of runs that are over."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bootproof.harness import exitcode
from bootproof.harness.commands import Command
from bootproof.harness.commands import parser as words
from bootproof.harness.commands.parser import named
from bootproof.harness.errors import UserError
from bootproof.harness.host.stdout import say
from bootproof.printable import safe

if TYPE_CHECKING:
    from bootproof.harness.results.changes import Change
    from bootproof.harness.results.results import Results


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        type=named,
        help="results.json or its directory: two are compared, of one all reports are written",
    )
    parser.add_argument("--merge", action="store_true", help="the runs are shards of one")
    parser.add_argument("--out", type=named, metavar="DIR", help="where reports are written")
    words.add_threshold(parser)
    kcidb = parser.add_argument_group("for KCIDB (docs/ci.md)")
    kcidb.add_argument(
        "--kcidb", type=named, metavar="FILE", help="write what kcidb-submit sends; - is stdout"
    )
    kcidb.add_argument(
        "--origin", type=words.name, metavar="NAME", help="of your CI system, as KCIDB knows it"
    )
    kcidb.add_argument(
        "--build", type=words.name, metavar="ID", help="a build that you have reported already"
    )


def _run(arguments: argparse.Namespace) -> int:
    """Compares two runs, or writes the reports of one or of several shards."""
    from bootproof.harness.report import changes as rendering
    from bootproof.harness.report import terminal
    from bootproof.harness.results import changes, results, shards

    out, merge = arguments.out, arguments.merge
    threshold = getattr(arguments, "threshold", None)
    if threshold is not None and (merge or len(arguments.runs) != 2):
        raise UserError("--threshold: is of a comparison: give two runs, and no --merge")
    read = [results.read(path) for path in arguments.runs]
    if _asks_for_kcidb(arguments):
        return _kcidb(shards.merged(read, [*map(str, arguments.runs)]), arguments)
    if len(read) == 2 and not merge:
        different = changes.compare(
            read[0], read[1], changes.THRESHOLD if threshold is None else threshold
        )
        print(rendering.render(different), end="")
        if not read[1].complete:
            print(f"{safe(str(arguments.runs[1]))}: the run did not come to its end")
        if out is not None:
            _write(read[1], out, read[0], different)
        codes = [changes.exit_code(different)]
        codes += [] if read[1].complete else [exitcode.CANNOT_TELL]
        return exitcode.worst(codes)
    if len(read) > 2 and not merge:
        raise UserError(f"{len(read)} runs: give two to compare, or --merge for shards of one run")
    if out is None:
        raise UserError("reports are written to a directory: name it with --out")
    whole = shards.merged(read, [*map(str, arguments.runs)]) if merge else read[0]
    _write(whole, out)
    print(terminal.failures(whole), end="")
    print(terminal.summary(whole), end="")
    return whole.exit_code


def _asks_for_kcidb(arguments: argparse.Namespace) -> bool:
    """Raises UserError for words that do not go together."""
    if arguments.kcidb is None:
        if arguments.origin or arguments.build:
            raise UserError("--origin and --build go with --kcidb")
        return False
    if arguments.origin is None:
        raise UserError("--kcidb: as whom? Name your CI system with --origin")
    if len(arguments.runs) > 1 and not arguments.merge:
        raise UserError("--kcidb: of one run, or --merge for shards of one")
    if arguments.out is not None:
        raise UserError("--out: with --kcidb no other report is written; leave one of them out")
    return True


def _kcidb(run: Results, arguments: argparse.Namespace) -> int:
    import json

    from bootproof.harness.host.files import write_given
    from bootproof.harness.report import kcidb
    from bootproof.loader.address import counted

    try:
        report = kcidb.render(run, arguments.origin, arguments.build)
    except ValueError as error:
        raise UserError(f"--kcidb: {error}") from error
    text = json.dumps(report, indent=1) + "\n"
    if str(arguments.kcidb) == "-":
        print(text, end="")
    else:
        write_given(arguments.kcidb.absolute(), text.encode(), kcidb.OURS)
    if lost := sum(check.of_case for check in run.bad_checks):
        say(f"{counted(lost, 'case')} came to no result, and KCIDB has no word for that")
    if not run.complete:
        say("the run did not come to its end: KCIDB is told of what had ended")
    return exitcode.OK


def _write(
    run: Results, out: Path, baseline: Results | None = None, compared: Sequence[Change] = ()
) -> None:
    from bootproof.harness.report import files

    for path in files.write(run, out, baseline, compared):
        print(safe(str(path)))


COMMAND: Final = Command(
    "what changed between two runs; reports of old runs",
    "report old/results.json build/matrix",
    _run,
    _add_options,
)
