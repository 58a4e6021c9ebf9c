"""Text and tables of the width that every command prints, as strings.

Whoever prints them knows whether there is a terminal. A narrow one has narrower tables; a log, or
a program that reads lines, has them of one width everywhere.
"""

from __future__ import annotations

import shutil
from typing import Final

from rich.table import Table
from rich.text import Text

from bootproof.harness.host.screen import drawn
from bootproof.harness.host.stdout import Coloured

WIDTH: Final = 118
_LEAST: Final = 60  # in less no table can be read


def rendered(*parts: Text | Table, terminal: bool = False, width: int = WIDTH) -> Coloured:
    """The parts below each other, with colours and as wide as it is where there is a terminal, else
    of that width; text is never wrapped.
    """
    if terminal:
        width = max(_LEAST, min(WIDTH, shutil.get_terminal_size((WIDTH, 0)).columns))
    return drawn(*parts, width=width, colour=terminal)


def table(title: str) -> Table:
    """A table without lines, and with its title on the left."""
    return Table(title=title, title_justify="left", box=None, pad_edge=False)
