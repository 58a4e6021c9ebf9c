"""The shards of one run put together, and what is refused: those of another run, one twice.

What is missing is no reason to show nothing, but it is an error in what is shown. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Final

from bootproof.harness.errors import UserError
from bootproof.harness.judgement import ERROR
from bootproof.harness.results.results import Check, Results, Run


def merged(parts: Sequence[Results], names: Sequence[str]) -> Results:
    """The results of the shards of one run, each with its name to the user, as one.

    Raises UserError for what cannot be of one run.
    """
    runs = [_run_of(part, name) for part, name in zip(parts, names, strict=True)]
    first = runs[0]
    if len(parts) == 1 and first.shard is None:
        return parts[0]
    for what, of in _COMMON.items():
        for run, name in zip(runs[1:], names[1:], strict=True):
            if of(run) != of(first):
                raise UserError(
                    f"{name}: is no shard of the same run as {names[0]}: {what}:"
                    f" {of(run)}, not {of(first)}"
                )
    _refuse_other_kernels(parts, names)
    missing = _missing(runs, names)
    return replace(
        parts[0],
        started=min(part.started for part in parts),
        seconds=sum(part.seconds for part in parts),
        complete=not missing and all(part.complete for part in parts),
        cases=tuple(chain.from_iterable(part.cases for part in parts)),
        checks=(*chain.from_iterable(part.checks for part in parts), *missing),
        references={case: boot for part in parts for case, boot in part.references.items()},
        run=replace(first, shard=None, planned=sum(run.planned for run in runs)),
    )


_COMMON: Final[dict[str, Callable[[Run], Hashable]]] = {
    "shards": lambda run: run.shard and run.shard.of,
    "run id": lambda run: run.shared_id,
    "selection": lambda run: run.selection,
    "cases selected (SHA-256)": lambda run: run.selected[:16],
}
"""What all shards of one run have in common."""


def _run_of(part: Results, name: str) -> Run:
    if part.run is None:
        raise UserError(f"{name}: does not say which shard it is: it is of an older bootproof")
    return part.run


def _refuse_other_kernels(parts: Sequence[Results], names: Sequence[str]) -> None:
    """Raises UserError when a case occurs twice, or a kernel is not the same everywhere."""
    owner: dict[str, str] = {}
    kernels: dict[tuple[str, str], tuple[str, str]] = {}
    for part, name in zip(parts, names, strict=True):
        if part.bootproof != parts[0].bootproof:
            raise UserError(
                f"{name}: is of bootproof {part.bootproof}, {names[0]} of {parts[0].bootproof}"
            )
        for case in part.cases:
            if case.case in owner:
                raise UserError(f"{name}: {case.case} is also in {owner[case.case]}")
            owner[case.case] = name
            if (sha256 := case.kernel.sha256) is not None:
                known = kernels.setdefault((case.arch, case.kernel.name), (sha256, name))
                if known[0] != sha256:
                    raise UserError(
                        f"{name}: {case.kernel.name} is another kernel than in {known[1]}:"
                        " they are not of one run"
                    )


def _missing(runs: Sequence[Run], names: Sequence[str]) -> list[Check]:
    """An error for each shard that is not there. Raises UserError for two that are the same."""
    there: dict[int, str] = {}
    for run, name in zip(runs, names, strict=True):
        if run.shard is None:
            raise UserError(f"{name}: is a whole run and no shard of one (matrix --shard)")
        if run.shard.number in there:
            raise UserError(f"{name}: is shard {run.shard}, as is {there[run.shard.number]}")
        there[run.shard.number] = name
    count = runs[0].shard.of if runs[0].shard else 0
    absent = [number for number in range(1, count + 1) if number not in there]
    said = "its results.json is not among those that were merged"
    return [Check(f"shard {number}/{count}", ERROR, said, 0.0, ran=False) for number in absent]
