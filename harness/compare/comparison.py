"""The result of a comparison: differences with the codes of their reasons, and costs. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from bootproof.dataclass import dataclass
from bootproof.harness.compare.differences import BootDifference
from bootproof.harness.guest.stages import Stage
from bootproof.harness.verdict import Verdict

_VERSION: Final = 2


@dataclass(frozen=True, slots=True)
class ExplainedDifference:
    """A difference and the code of its reason in docs/compare.md; None: it is unexplained."""

    difference: BootDifference
    code: str | None


@dataclass(frozen=True, slots=True)
class Cost:
    """What one boot took: guest instructions in all, and where each stage was reached."""

    verdict: str
    protocol: str
    instructions: int | None
    stages: tuple[Stage, ...]
    # Rules of the protocol that did not hold at the entry: grade and code of each.
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """All differences of one kernel's two boots, whose run directories lie below `directory`."""

    case: str
    differences: tuple[ExplainedDifference, ...]
    ours: Cost
    reference: Cost
    directory: Path

    @property
    def unexplained(self) -> tuple[BootDifference, ...]:
        return tuple(item.difference for item in self.differences if item.code is None)

    @property
    def of_host(self) -> bool:
        """Whether one of the boots says nothing of its guest, so that nothing was compared."""
        return any(Verdict(boot.verdict).of_host for boot in (self.ours, self.reference))

    def to_json(self) -> Mapping[str, Any]:
        return {
            "version": _VERSION,
            "case": self.case,
            "unexplained": len(self.unexplained),
            "differences": [
                {
                    "section": item.difference.section.value,
                    "name": item.difference.name,
                    "ours": item.difference.ours,
                    "reference": item.difference.reference,
                    "code": item.code,
                }
                for item in self.differences
            ],
            "ours": asdict(self.ours),
            "reference": asdict(self.reference),
            "directory": str(self.directory),
        }
