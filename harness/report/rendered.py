"""Text and tables of the width that every command prints, as strings.

Whoever prints them knows whether there is a terminal.
"""

from __future__ import annotations

import re
from typing import Final

from rich.table import Table
from rich.text import Text

from bootproof.harness.host.screen import drawn
from bootproof.harness.host.stdout import Coloured

WIDTH: Final = 118
_BLANKS: Final = re.compile(r"(?<! ) ++(?=(?:\x1b\[[0-9;]*m| )*$)", re.MULTILINE)


def rendered(*parts: Text | Table, colour: bool = False) -> Coloured:
    """The parts below each other; text is never wrapped, and no line ends in blanks, which would
    be a line more on a narrow terminal.
    """
    return Coloured(_BLANKS.sub("", drawn(*parts, width=WIDTH, colour=colour)))


def table(title: str) -> Table:
    """A table without lines, and with its title on the left."""
    return Table(title=title, title_justify="left", box=None, pad_edge=False)
