"""Which of the collected cases run: filters by axis, and one shard's part. Pure; no pytest here.

A filter is `KEY=VALUE` as in a scenario file; several of one key are alternatives, several keys
must all match. Texts may be patterns (6.1-*). What a case costs is known from a results.json, else
estimated from its verdict: only the proportions matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from bootproof.harness.arch.profiles import FAST_PROFILE
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.case import Case
from bootproof.harness.cases import schema
from bootproof.harness.cases.scenarios import AXES
from bootproof.harness.errors import UserError
from bootproof.harness.results.results import read
from bootproof.harness.verdict import Verdict

# Guest instructions: a boot of Debian's cloud kernel to the proof with either profile (docs: about
# 1.3e9 and 0.4e9; what does not depend on them is added), and what the harness alone takes for a
# kernel that is refused, as if QEMU had executed it.
BOOT_COST: Final = 1_500_000_000
FAST_COST: Final = 800_000_000
REFUSAL_COST: Final = 30_000_000


def filter_for(words: Sequence[str]) -> Callable[[Case], bool]:
    """Whether a case passes `KEY=VALUE` filters. Raises UserError for words that are none."""
    wanted: dict[str, list[str]] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if name not in AXES:
            raise UserError(schema.unknown("filter", name, AXES))
        if not equals:
            raise UserError(f"filter {word!r} has no value; write it like protocol=pvh")
        for arch in ARCHES:  # refuses what no case could have
            _matches(name, value, Case(arch, "", "", ""))
        wanted.setdefault(name, []).append(value)

    def passes(case: Case) -> bool:
        return all(any(_matches(name, value, case) for value in wanted[name]) for name in wanted)

    return passes


def _matches(name: str, value: str, case: Case) -> bool:
    entry = AXES[name]
    own = getattr(case, entry.field)
    if entry.type is str and entry.choices is None:
        return own is not None and fnmatchcase(own, value)
    ram = ARCHES[case.arch].ram_base(case.board)
    try:
        return bool(schema.read(entry, schema.from_text(entry, value), (), ram) == own)
    except schema.SchemaError as error:
        raise UserError(str(error)) from error


def boots(case: Case) -> bool:
    """Whether there is going to be a guest, as far as the case knows."""
    return case.expect.verdict is not Verdict.LOAD_REFUSED


def cost(case: Case, known: Mapping[str, int]) -> int:
    """What a case costs in guest instructions, measured or estimated."""
    if case.id in known:
        return known[case.id]
    if not boots(case):
        return REFUSAL_COST
    return FAST_COST if case.profile == FAST_PROFILE else BOOT_COST


def read_costs(path: Path) -> dict[str, int]:
    """Guest instructions by case id, of a results.json. Raises UserError."""
    return {result.case: result.instructions for result in read(path).cases if result.instructions}
