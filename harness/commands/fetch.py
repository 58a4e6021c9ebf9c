"""`bootproof fetch`: kernels of the catalogue into the cache."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from bootproof.harness import places
from bootproof.harness.commands import Command
from bootproof.harness.errors import UserError
from bootproof.harness.exitcode import OK
from bootproof.printable import one_line

if TYPE_CHECKING:
    from bootproof.kernels.records import LockMode

_FOLDED: Final = ("VERSION", "ABOUT")
_LINE: Final = 200  # characters
_WITH_SUITES: Final = 100  # characters, at least


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="*", help="default: the default set")
    parser.add_argument("--list", action="store_true", help="only show the catalogue")
    parser.add_argument(
        "--mirror", metavar="URL", help="a Debian mirror (default: the one apt uses)"
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--locked", action="store_true", help="only what the lock file says")
    group.add_argument("--update", action="store_true", help="move the lock file to the newest")


def _run(arguments: argparse.Namespace) -> int:
    from bootproof.kernels.catalog import load_catalog
    from bootproof.kernels.fetch import Fetcher
    from bootproof.kernels.records import LockMode

    mode = LockMode.USE
    if arguments.list and (arguments.locked or arguments.update):
        raise UserError("--list: gets nothing: leave out --locked and --update")
    if arguments.locked:
        mode = LockMode.LOCKED
    elif arguments.update:
        places.need_clone("fetch --update")
        mode = LockMode.UPDATE
    if arguments.list and arguments.names:
        raise UserError("--list: shows all that there is: leave out the names")
    if arguments.list:
        return _show_catalogue(arguments.mirror, mode)
    names = arguments.names or [entry.name for entry in load_catalog().default()]
    for kernel in Fetcher(arguments.mirror, lock=mode).fetch(names):
        print(one_line(f"{kernel.name:<20} {kernel.version:<24} {kernel.path}"))
    return OK


def _show_catalogue(mirror: str | None, mode: LockMode) -> int:
    """Prints the catalogue: what it names, what it resolved to, what is cached."""
    from rich.table import Table

    from bootproof.harness.host.screen import Screen, drawn
    from bootproof.kernels.fetch import Fetcher

    screen = Screen()
    width = screen.width if screen.is_terminal else _LINE  # who reads lines needs them whole
    table = Table(box=None, pad_edge=False)
    roomy = width >= _WITH_SUITES
    for heading in ("NAME", "ARCH", *(("SUITE",) if roomy else ()), "VERSION", "", "ABOUT"):
        table.add_column(heading, no_wrap=heading not in _FOLDED, overflow="fold")
    for row in Fetcher(mirror, lock=mode).list_rows():
        version = row.resolved.version if row.resolved else "not resolved yet"
        state = "cached" if row.cached else "-"
        marks = f"{row.entry.about}{' (default set)' if row.entry.default else ''}"
        suite = (row.entry.suite,) if roomy else ()  # what the version tells of as well
        table.add_row(row.entry.name, row.entry.arch, *suite, version, state, marks)
    print(drawn(table, width=width, colour=screen.is_terminal), end="")
    return OK


COMMAND: Final = Command(
    "get kernels of the catalogue into the cache",
    "fetch 6.1-amd64 --mirror http://mirror.example/debian",
    _run,
    _add_options,
)
