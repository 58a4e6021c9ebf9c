"""Text and tables of the width that every command prints, as strings.

Whoever prints them knows whether there is a terminal.
"""

from __future__ import annotations

import io
import re
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH: Final = 118
_BLANKS: Final = re.compile(r"(?<! ) ++(?=(?:\x1b\[[0-9;]*m| )*$)", re.MULTILINE)


def rendered(*parts: Text | Table, colour: bool = False) -> str:
    """The parts below each other; text is never wrapped, and no line ends in blanks, which would
    be a line more on a narrow terminal.
    """
    out = io.StringIO()
    console = Console(file=out, width=WIDTH, highlight=False, force_terminal=colour or None)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, Text))
    return _BLANKS.sub("", out.getvalue())


def table(title: str) -> Table:
    """A table without lines, and with its title on the left."""
    return Table(title=title, title_justify="left", box=None, pad_edge=False)
