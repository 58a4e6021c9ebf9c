"""Text and tables of the width that every command prints, as strings.

Whoever prints them knows whether there is a terminal.
"""

from __future__ import annotations

import io
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH: Final = 118


def rendered(*parts: Text | Table, colour: bool = False) -> str:
    """The parts below each other; text is never wrapped."""
    out = io.StringIO()
    console = Console(file=out, width=WIDTH, highlight=False, force_terminal=colour or None)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, Text))
    return out.getvalue()


def table(title: str) -> Table:
    """A table without lines, and with its title on the left."""
    return Table(title=title, title_justify="left", box=None, pad_edge=False)
