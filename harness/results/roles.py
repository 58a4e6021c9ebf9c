"""Which case of an earlier run a case is held against: that of its id, else that of its role.

A kernel that was given a name, or is in the catalogue, is known by that. One that only has the name
of its file has another one with the next version: its role is the name with the version left out,
and it goes with the one kernel of the earlier run that has the same role. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.harness.results.results import CaseResult

_PARTS: Final = re.compile(r"([./+~-])")
_OF_VERSION: Final = re.compile(r"v?\d+[a-z]?|(?:rc|rt|git)\d+|g[0-9a-f]{7,40}|dirty")
_ANY: Final = "*"
_NAMED: Final = 3  # of the kernels that an earlier run has instead


def role_of(name: str) -> str:
    """vmlinuz-*-amd64 of vmlinuz-6.1.0-48-amd64; a name without a version is its own role."""
    words = _PARTS.split(name)  # every second one is a separator
    role = ""
    for version, group in groupby(range(0, len(words), 2), lambda at: _is_version(words[at])):
        at = list(group)
        role += words[at[0] - 1] if at[0] else ""
        role += _ANY if version else "".join(words[at[0] : at[-1] + 1])
    return role


def _is_version(word: str) -> bool:
    return _OF_VERSION.fullmatch(word) is not None


@dataclass(frozen=True, slots=True)
class Role:
    """Two kernels of the same role, of which one takes the place of the other."""

    role: str
    before: str
    now: str

    def __str__(self) -> str:
        return (
            f"{self.now} is held against {self.before}: both are {self.role}"
            " (--kernel NAME=PATH gives a kernel a name that lasts)"
        )


class Earlier:
    """The cases of an earlier run, found by id and by role."""

    def __init__(self, cases: Iterable[CaseResult]) -> None:
        self._by_id: dict[str, CaseResult] = {}
        self._by_role: dict[tuple[str, str, str], list[CaseResult]] = {}
        for case in cases:
            self._by_id[case.case] = case
            if case.kernel.role is not None:
                self._by_role.setdefault(_role(case), []).append(case)

    def of(self, case: CaseResult) -> CaseResult | None:
        """What `case` is held against; None where there is none, or more than one of its role."""
        same = self._by_id.get(case.case)
        if same is not None or case.kernel.role is None:
            return same
        candidates = self._by_role.get(_role(case), ())
        return candidates[0] if len(candidates) == 1 else None

    def why_none(self, case: CaseResult) -> str:
        """What the earlier run has instead of a case that it says nothing of."""
        others = [
            other.kernel.name for other in self._by_id.values() if _claim(other) == _claim(case)
        ]
        if not others:
            return "no kernel had this case in it"
        names = ", ".join(others[:_NAMED]) + (" and others" if len(others) > _NAMED else "")
        several = len(self._by_role.get(_role(case), ())) > 1 if case.kernel.role else False
        which = f"of the role {case.kernel.role} it has several" if several else "it has the case"
        return f"{which}: {names}; --kernel NAME=PATH gives a kernel a name that lasts"


def role_between(before: CaseResult, now: CaseResult) -> Role | None:
    """What the two have in common, where it is not the name of their kernels."""
    if before.case == now.case or now.kernel.role is None:
        return None
    return Role(now.kernel.role, before.kernel.name, now.kernel.name)


def _claim(case: CaseResult) -> tuple[str, str]:
    return case.arch, case.claim


def _role(case: CaseResult) -> tuple[str, str, str]:
    return (*_claim(case), case.kernel.role or "")
