"""`bootproof report` and `history`: results of runs that are over."""

from __future__ import annotations

import argparse
from pathlib import Path

from bootproof.harness.arguments import words


def add_report(commands: words.Commands) -> None:
    report = words.command(
        commands,
        "report",
        "what changed between two runs; reports of old runs",
        example="bootproof report old/results.json build/matrix",
    )
    report.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        type=Path,
        help="results.json or its directory: two are compared, of one all reports are written",
    )
    report.add_argument("--merge", action="store_true", help="the runs are shards of one")
    report.add_argument("--out", type=Path, metavar="DIR", help="where reports are written")
    words.add_threshold(report)
    report.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> int:
    from bootproof.harness.commands import reporting

    return reporting.report(
        arguments.runs, arguments.out, merge=arguments.merge, threshold=arguments.threshold
    )


def add_history(commands: words.Commands) -> None:
    history = words.command(
        commands,
        "history",
        "how the cases changed over many runs",
        example="bootproof history nightly-results/",
    )
    history.add_argument(
        "directory", metavar="DIR", type=Path, help="holds results.json files at any depth"
    )
    history.add_argument(
        "--out", type=Path, metavar="FILE", help="the page (default: DIR/history.html)"
    )
    history.set_defaults(run=_history)


def _history(arguments: argparse.Namespace) -> int:
    from bootproof.harness.commands import reporting

    return reporting.history(arguments.directory, arguments.out)
