"""Tables and coloured text, made by rich, as a terminal may be given them.

Whatever text is in them is a stranger's: only styles, and what moves the cursor, is rich's own.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable
from typing import Final

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from bootproof.harness.host.stdout import Coloured
from bootproof.printable import safe

_BLANKS: Final = re.compile(r"(?<! ) ++(?=(?:\x1b\[[0-9;]*m| )*$)", re.MULTILINE)


class Screen(Console):
    """A console on which text is shown, and never obeyed."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """As rich's: what it lays out, to be written."""
        for segment in super().render(renderable, options):
            plain = segment.control or segment.text.isprintable()
            yield segment if plain else segment._replace(text=safe(segment.text, "\n"))


def drawn(*parts: RenderableType, width: int, colour: bool = False) -> Coloured:
    """The parts below each other, `width` columns wide; a text alone is never wrapped, and no line
    ends in blanks, which would be a line more on a narrow terminal.
    """
    out = io.StringIO()
    colour = colour and not os.environ.get("NO_COLOR")  # else rich leaves italics
    screen = Screen(file=out, width=width, highlight=False, force_terminal=colour or None)
    for part in parts:
        screen.print(part, soft_wrap=isinstance(part, Text))
    return Coloured(_BLANKS.sub("", out.getvalue()))
