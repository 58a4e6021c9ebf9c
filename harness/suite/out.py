"""The directory of a matrix run: one run at a time, and from its start nothing of an earlier one.

Owns the lock, and what leaves first: whoever reads the results after a run that was killed, refused
or selected nothing must not take an old one's for its own. The run directories of cases stay.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from bootproof.harness.host.files import disk_errors, locked, make_directory, refuse_foreign
from bootproof.harness.record import sharing
from bootproof.harness.report import files
from bootproof.harness.results.results import OURS, RESULTS
from bootproof.harness.suite.options import MatrixOptions

BEFORE: Final = "results.before.json"
"""Where the results of the run before are, when they are the baseline and lay in the way."""


@contextlib.contextmanager
def begun(options: MatrixOptions) -> Iterator[MatrixOptions]:
    """`options.out` is this run's own in here; gives the options that go on from there.

    Raises UserError when nothing can be written there, or another run does.
    """
    out = options.out
    make_directory(out)
    with disk_errors(out):
        tempfile.TemporaryFile(dir=out).close()
    with locked(out):
        kept = _set_aside(options)
        remove_old(out)
        yield kept
        sharing.prune(out / sharing.STORE)


def remove_old(out: Path) -> None:
    """Removes the results and reports of an earlier run.

    Raises UserError, and has removed nothing where one of them is another program's.
    """
    files.refuse_others(out)
    with disk_errors(out):
        for name in files.NAMES:
            (out / name).unlink(missing_ok=True)


def _set_aside(options: MatrixOptions) -> MatrixOptions:
    """Gives results another name that are asked for and lie where this run's are going to be."""
    old, kept = options.out / RESULTS, options.out / BEFORE
    baseline, costs = (_is(path, old) for path in (options.baseline, options.costs))
    if baseline or costs:
        refuse_foreign(kept, OURS)
        with disk_errors(options.out):
            old.replace(kept)
    return replace(
        options,
        baseline=kept if baseline else options.baseline,
        costs=kept if costs else options.costs,
    )


def _is(asked: Path | None, results: Path) -> bool:
    """Whether a results.json, or its directory, is a certain one."""
    if asked is None:
        return False
    named = asked / RESULTS if asked.is_dir() else asked
    return os.path.realpath(named) == os.path.realpath(results)
