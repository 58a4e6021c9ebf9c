"""What `bootproof check` prints: each finding with what breaks it and where the rule is written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bootproof.loader.bootimage import NO_PROTOCOL, BootImage
from bootproof.loader.rules import RuleFinding
from bootproof.printable import one_line


def text(directory: Path, image: BootImage, found: Sequence[RuleFinding]) -> str:
    """Lines for people; the document's section stands below its finding."""
    lines = []
    for finding in found:
        lines.append(f"{finding.grade.value:<9} {finding.code}: {one_line(finding.sentence)}")
        lines.append(f"{'':<9} {finding.section}")
    if not found:
        known = image.protocol != NO_PROTOCOL
        nothing = "every rule of its protocol holds" if known else _NO_RULES
        lines.append(f"{one_line(str(directory))}: {nothing}")
    return "\n".join(lines)


_NO_RULES: Final = (
    "no protocol, no rules to check: nothing is known of it"
    " ($.protocol of boot.json, or import --protocol)"
)


def as_json(found: Sequence[RuleFinding]) -> str:
    """The findings as an array."""
    return json.dumps([finding.as_dict() for finding in found], indent=2)


def print_marks(image: BootImage) -> None:
    """Of an imported image, the registers that were not seen, and how they are known."""
    for how, names in image.marks.items():
        way, _, source = how.partition(" ")
        nothing = "; rules on them tell nothing of the VMM" if way == "assumed" else ""
        print(f"{way:<10}{', '.join(names)}: {one_line(source)}{nothing}")
