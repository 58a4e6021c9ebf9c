"""The result of a comparison: differences with the codes of their reasons, and costs. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from bootproof.harness.compare.differences import Contrast
from bootproof.harness.guest.stages import Stage

_VERSION: Final = 2


@dataclass(frozen=True, slots=True)
class Explained:
    """A difference and the code of its reason in docs/compare.md; None: it is unexplained."""

    contrast: Contrast
    code: str | None


@dataclass(frozen=True, slots=True)
class Cost:
    """What one boot took: guest instructions in all, and where each stage was reached."""

    verdict: str
    protocol: str
    instructions: int | None
    stages: tuple[Stage, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All differences of one kernel's two boots, whose run directories lie below `directory`."""

    case: str
    differences: tuple[Explained, ...]
    ours: Cost
    reference: Cost
    directory: Path

    @property
    def unexplained(self) -> tuple[Contrast, ...]:
        return tuple(found.contrast for found in self.differences if found.code is None)

    def to_json(self) -> Mapping[str, Any]:
        return {
            "version": _VERSION,
            "case": self.case,
            "unexplained": len(self.unexplained),
            "differences": [
                {
                    "section": found.contrast.section.value,
                    "name": found.contrast.name,
                    "ours": found.contrast.ours,
                    "reference": found.contrast.reference,
                    "code": found.code,
                }
                for found in self.differences
            ],
            "ours": asdict(self.ours),
            "reference": asdict(self.reference),
            "directory": str(self.directory),
        }
