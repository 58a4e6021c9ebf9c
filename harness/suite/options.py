"""How a session runs its cases and what it shows: from `bootproof matrix` to pytest's processes.

It travels as words of pytest's one option of ours, `--bootproof KEY=VALUE`, which may be repeated:
pytest-xdist hands those on to its workers, and plain pytest can be given them as well.
"""

from __future__ import annotations

import enum
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import pytest

from bootproof.dataclass import dataclass
from bootproof.harness import places
from bootproof.harness.cases import shard
from bootproof.harness.cases.schema import unknown
from bootproof.harness.cases.shard import Shard
from bootproof.harness.errors import UserError
from bootproof.harness.results.changes import THRESHOLD

OPTION: Final = "--bootproof"
SCENARIOS_INI: Final = "bootproof_scenarios"
PROPERTY: Final = "bootproof"  # of a test report: the case's result
NO_RESULT: Final = "bootproof-no-result"  # of a test that came to none
REFERENCE_PROPERTY: Final = "bootproof-reference"  # a case's id, and its reference boot
MATRIX_COMMAND: Final = f"{places.COMMAND} matrix"


class Keep(enum.StrEnum):
    """Of which cases guest RAM is kept: what passed shares its kernel and initrd with others."""

    ALL = "all"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class MatrixOptions:
    """All that a session is told beside pytest's own options."""

    # Where run directories and reports go.
    out: Path = Path("build/matrix")
    keep: Keep = Keep.ALL
    # Filters: KEY=VALUE, as in a scenario file.
    only: tuple[str, ...] = ()
    # What the shards of one run have in common.
    run_id: str | None = None
    # Which part of the cases runs.
    shard: Shard | None = None
    # A results.json to balance shards by.
    costs: Path | None = None
    # The QEMUs that cases may name: NAME=PATH.
    qemu: tuple[str, ...] = ()
    # Only to print the cases and why.
    list_only: bool = False
    # An earlier results.json to compare with.
    baseline: Path | None = None
    # The part by which an instruction count may differ from it.
    threshold: float = THRESHOLD
    # How many cases run at once, in one process.
    jobs: int = 1
    # A scheduler of dask.distributed whose workers run them instead: tcp://HOST:PORT, tls://…
    cluster: str | None = None
    # Whether there is a line for each case as it ends.
    lines: bool = False
    # Whether there are neither lines nor the table.
    quiet: bool = False
    # Whether the process's own stdout is KTAP.
    ktap: bool = False
    # How the user starts the same matrix again.
    command: str = MATRIX_COMMAND

    def words(self) -> Iterable[str]:
        """What `read` reads."""
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                items = value if isinstance(value, tuple) else (value,)
                yield from (f"{OPTION}={field.name}={item}" for item in items)


OPTIONS: Final = pytest.StashKey[MatrixOptions]()
SELECTED: Final = pytest.StashKey[str]()  # SHA-256 over the ids of all that is selected
EXIT_CODE: Final = pytest.StashKey[int]()  # of a whole matrix


def read(words: Iterable[str]) -> MatrixOptions:
    """The options from their KEY=VALUE. Raises UserError."""
    kinds = typing.get_type_hints(MatrixOptions)
    values: dict[str, Any] = {}
    for word in words:
        name, _, text = word.partition("=")
        if name not in kinds:
            raise UserError(f"{OPTION}: {unknown('key', name, kinds)}")
        kind = next((t for t in typing.get_args(kinds[name])), kinds[name])
        try:
            value = _READ.get(kind, kind)(text)
        except ValueError as error:
            raise UserError(f"{OPTION}: {name}: {error}") from error
        values[name] = value if kinds[name] != tuple[str, ...] else (*values.get(name, ()), value)
    return MatrixOptions(**values)


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"must be true or false, not {text!r}")
    return text.lower() == "true"


_READ: Final[Mapping[type, Callable[[str], Any]]] = {bool: _truth, Shard: shard.parse}
