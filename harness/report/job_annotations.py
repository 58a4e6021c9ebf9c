"""Failures of a matrix run as annotations of a GitHub job: `::error title=…::…`. Pure.

Source: docs.github.com, "Workflow commands for GitHub Actions". A step shows ten of them at most.
"""

from __future__ import annotations

from typing import Final

from bootproof.harness.report import failure
from bootproof.harness.results.results import CaseResult, Results

_MOST: Final = 10
_LONGEST: Final = 4000  # characters of a message


def render(results: Results) -> str:
    """A line for failures that are alike, the first ten; nothing when all is well."""
    lines = []
    for group in failure.alike(results.wrong)[:_MOST]:
        first = group[0]
        title = first.name if len(group) == 1 else f"{len(group)} cases: {first.name}, …"
        told = failure.text(first)[:_LONGEST]
        level = "error" if isinstance(first, CaseResult) else "warning"
        lines.append(f"::{level} title={_escaped(title, ':,')}::{_escaped(told, '')}\n")
    return "".join(lines)


def _escaped(text: str, more: str) -> str:
    """Text that can end neither its line nor its property."""
    for character in ("%", "\r", "\n", *more):
        text = text.replace(character, f"%{ord(character):02X}")
    return text
