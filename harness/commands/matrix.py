"""`bootproof matrix`: which cases, and how they run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bootproof.harness import places
from bootproof.harness.commands import Command, bisect_options
from bootproof.harness.commands import parser as words
from bootproof.harness.commands.parser import named
from bootproof.harness.errors import UserError
from bootproof.harness.exitcode import INTERRUPTED
from bootproof.printable import one_line

if TYPE_CHECKING:
    from bootproof.harness.results.bisection import Failure
    from bootproof.harness.results.results import Results
    from bootproof.harness.suite.options import MatrixOptions


def _add_options(parser: argparse.ArgumentParser) -> None:
    from bootproof.harness.commands import case_options

    _add_choice(parser)
    _add_filters(parser)
    case_options.add_brief_options(parser, "for every guest, with --kernel", "matrix")
    _add_ways(parser)


def _add_choice(parser: argparse.ArgumentParser) -> None:
    which = parser.add_argument_group("which cases")
    which.add_argument(
        "--scenarios",
        action="append",
        type=named,
        default=[],
        metavar="FILE",
        help="your own claims instead (docs/scenarios.md)",
    )
    which.add_argument(
        "--kernel",
        action="append",
        default=[],
        metavar="WHAT",
        help="all that applies to your own instead: a [NAME=]file, package, build directory,"
        " URL or name; may be repeated",
    )
    which.add_argument("-k", metavar="EXPR", help="only cases whose id matches, as in pytest")
    which.add_argument("--lf", action="store_true", help="only what failed the last time")
    _add_shards(which)
    which.add_argument(
        *("--list", "--dry-run"),
        dest="list_only",
        action="store_true",
        help="only print the cases, what each must end as, and why",
    )


def _add_shards(which: argparse._ArgumentGroup) -> None:
    which.add_argument(
        "--shard",
        type=words.shard,
        metavar="N/OF",
        help="one of several equal parts: 1/4 (--run-id, --costs)",
    )
    which.add_argument(
        "--run-id",
        type=words.name,
        metavar="ID",
        help=words.Brief("the same for all shards of one run, and for no others"),
    )
    which.add_argument(
        "--costs",
        type=words.path,
        metavar="FILE",
        help=words.Brief("results.json that shards are balanced by, and the order goes by"),
    )


def _add_filters(parser: argparse.ArgumentParser) -> None:
    from bootproof.harness.cases.schema import FILTERS

    told = ", ".join(FILTERS.values())
    which = parser.add_argument_group("only cases with one VALUE of a kind", told)
    for key, option in FILTERS.items():
        which.add_argument(
            option,
            dest="only",
            action="append",
            type=f"{key}={{}}".format,
            default=[],
            metavar="VALUE",
            help=words.Brief(f"only this {key}"),
        )


def _add_ways(parser: argparse.ArgumentParser) -> None:
    how = parser.add_argument_group("how they run")
    how.add_argument(
        "-n",
        dest="jobs",
        metavar="N",
        type=words.count,
        default=2,
        help="how many guests at once (default: %(default)s)",
    )
    how.add_argument(
        "--cluster", metavar="ADDRESS", help="on a dask scheduler's workers (docs/scale.md)"
    )
    how.add_argument("-x", action="store_true", help="stop at the first case not as expected")
    how.add_argument(
        "--qemu",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="runs all cases, or those that name it (repeatable)",
    )
    _add_outputs(how)
    words.add_threshold(how)
    bisect_options.add(parser)


def _add_outputs(how: argparse._ArgumentGroup) -> None:
    how.add_argument(
        "--out",
        type=words.path,
        metavar="DIR",
        default=places.output() / "matrix",
        help="the run directories' place",
    )
    how.add_argument(
        "--keep",
        choices=("all", "failed"),
        default="all",
        help="of which cases guest RAM is kept (default: %(default)s)",
    )
    how.add_argument("--ktap", action="store_true", help="KTAP on stdout, all else on stderr")
    how.add_argument("--quiet", action="store_true", help="only failures and the last line")
    how.add_argument(
        "--baseline", type=words.path, metavar="FILE", help="compare with an earlier results.json"
    )


def _run(arguments: argparse.Namespace) -> int:
    sought = bisect_options.sought(arguments)
    if sought is None or arguments.list_only:
        return _matrix(arguments)
    from bootproof.harness.results import changes, results

    baseline = None if arguments.baseline is None else results.read(arguments.baseline)
    code = _matrix(arguments)
    if code == INTERRUPTED:
        return code
    file = arguments.out / results.RESULTS  # where there is one, it is of this run
    threshold = getattr(arguments, "threshold", changes.THRESHOLD)
    known = _failures(file, baseline, threshold) if file.exists() else ()
    return bisect_options.code(sought, known)


def _failures(file: Path, baseline: Results | None, threshold: float) -> Iterator[Failure | None]:
    """What became of each case, beside the baseline where there is one."""
    from bootproof.harness.results import bisection, changes, results

    run = results.read(file)
    if baseline is not None:
        run = changes.judged(run, changes.compare(baseline, run, threshold))
    yield from map(bisection.failure_of, run.cases)
    yield from map(bisection.failure_of, run.checks)
    if not run.complete:
        yield bisection.NOT_COMPLETE


def _matrix(arguments: argparse.Namespace) -> int:
    from bootproof.harness.cases import schema
    from bootproof.harness.commands import case_options
    from bootproof.harness.suite import matrix, own_kernel

    selection = matrix.Selection(
        _options(arguments),
        scenarios=tuple(path.absolute() for path in arguments.scenarios),
        expression=arguments.k,
        stop_at_first=arguments.x,
        last_failed=arguments.lf,
    )
    _refuse_unused(arguments)
    asked = case_options.words(arguments, "matrix")
    if not arguments.kernel:
        if asked:
            names = " and ".join(map(schema.option, asked))
            raise UserError(f"{names}: for your own kernel: give --kernel")
        return matrix.run(selection)
    if arguments.scenarios:
        raise UserError("--kernel derives its own cases: leave out --scenarios")
    return own_kernel.run(arguments.kernel, asked, selection)


def _refuse_unused(arguments: argparse.Namespace) -> None:
    """Raises UserError for what would say nothing."""
    if sys.flags.optimize:
        raise UserError(
            "Python leaves out the assertions that tests are made of (PYTHONOPTIMIZE, -O);"
            " run it without"
        )
    if hasattr(arguments, "threshold") and arguments.baseline is None:
        raise UserError("--threshold: is of a comparison: give --baseline")


def _options(arguments: argparse.Namespace) -> MatrixOptions:
    from bootproof.harness.suite.options import Keep, MatrixOptions

    names = [field.name for field in fields(MatrixOptions) if hasattr(arguments, field.name)]
    values = {name: getattr(arguments, name) for name in names}
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    own = {"keep": Keep(arguments.keep), "command": _again(arguments)}
    return MatrixOptions(**{**values, **lists, **own})


def _again(arguments: argparse.Namespace) -> str:
    """How the same matrix is started again."""
    import shlex

    from bootproof.harness.commands import case_options
    from bootproof.harness.suite.options import MATRIX_COMMAND

    options = [("--scenarios", path) for path in arguments.scenarios]
    options += [("--kernel", what) for what in arguments.kernel]
    options += [("--qemu", word) for word in arguments.qemu]
    asked = case_options.typed(case_options.words(arguments, "matrix"))
    words = "".join(f" {name} {shlex.quote(str(value))}" for name, value in options)
    return one_line(f"{MATRIX_COMMAND}{words}{asked}")  # which stands in results


COMMAND: Final = Command(
    "boot the matrix of kernels, protocols and offsets",
    "matrix --kernel arch/x86/boot/bzImage --dry-run",
    _run,
    _add_options,
    "[--scenarios FILE | --kernel WHAT] [options]",
)
