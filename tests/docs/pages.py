"""What our pages say: the commands in their code blocks, their links and their headings.

A command that a test cannot run has a marker before its block in the page's source, with the
reason: `<!-- not run: ./bootproof boot bzImage --console: needs a terminal -->`.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests import ROOT

PAGES: Final = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/*.md")]
)
_SHELL: Final = ("", "console", "sh")
_COMMAND: Final = re.compile(r"(?:\$ )?(?:\./)?bootproof (.+)")
_REFUSAL: Final = re.compile(r"bootproof(?: [a-z]+)?: ")
_NOT_RUN: Final = re.compile(r"<!-- not run: (?:\./)?bootproof (.+?): (.+?) -->")
_LINK: Final = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True, slots=True)
class Command:
    """`bootproof` with these words stands on a line of a page.

    `not_run` is the reason not to run it. `refusal` is the one line that the page says it prints.
    """

    page: Path
    line: int
    words: tuple[str, ...]
    not_run: str | None = None
    refusal: str | None = None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}: bootproof {shlex.join(self.words)}"


def commands(page: Path) -> list[Command]:
    """Every bootproof command line in the page's shell blocks, in order."""
    text = page.read_text("utf-8")
    reasons = {tuple(shlex.split(words)): why for words, why in _NOT_RUN.findall(text)}
    found: list[Command] = []
    language: str | None = None
    lines = [*text.splitlines(), ""]
    for number, line in enumerate(lines[:-1], start=1):
        if line.startswith("```"):
            language = line[3:].strip() if language is None else None
        elif language not in _SHELL or _REFUSAL.match(line):
            continue
        elif match := _COMMAND.fullmatch(line):
            words = tuple(shlex.split(match[1], comments=True))
            refusal = lines[number] if _REFUSAL.match(lines[number]) else None
            found.append(Command(page, number, words, reasons.pop(words, None), refusal))
    assert not reasons, f"{page}: a marker is for no command of the page: {reasons}"
    return found


def links(page: Path) -> list[str]:
    """Targets of the page's links, code left out."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text("utf-8"), flags=re.DOTALL)
    return _LINK.findall(text)


def anchors(page: Path) -> set[str]:
    """The fragments that the page's headings answer to, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
