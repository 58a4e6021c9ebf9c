"""`bootproof cache`: what is in the cache, and what of it may go."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from bootproof.harness.commands import Command
from bootproof.harness.exitcode import OK

# Rooms of the cache, and what they hold.
_ROOMS: Final = {
    "derived": "unpacked and changed kernels, device trees",
    "received": "what the cases of a cluster's worker read",
    "files": "out of packages",
    "parts": "downloads that broke off",
    "indexes": "package indexes",
}
_OTHER, _LOCKS = "other", "locks"


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--prune", action="store_true", help="remove the longest unused, down to the limit"
    )
    parser.add_argument("--limit", metavar="SIZE", help="the limit (default: that of each run)")
    parser.add_argument(
        "--downloads", action="store_true", help="also what the network would have to bring again"
    )


def _run(arguments: argparse.Namespace) -> int:
    from bootproof.harness.errors import UserError
    from bootproof.harness.host.files import nearest_directory
    from bootproof.harness.inputs import derived
    from bootproof.kernels.cache import default_cache_dir
    from bootproof.loader.address import format_size, parse_size

    if not arguments.prune and (arguments.limit is not None or arguments.downloads):
        raise UserError("--limit and --downloads say what --prune removes; give it, too")
    limit = derived.limit()
    try:
        wanted = limit if arguments.limit is None else parse_size(arguments.limit)
    except ValueError as error:
        raise UserError(f"--limit: {error}") from None
    cache = default_cache_dir()
    nearest_directory(cache)
    if arguments.prune:
        _prune(cache, wanted, downloads=arguments.downloads)
    _show(cache)
    each = f"the last used {format_size(limit)} of derived, and of received"
    print(f"kept are {each} ({derived.ENVIRONMENT})")
    return OK


def _prune(cache: Path, limit: int, *, downloads: bool) -> None:
    from bootproof.harness.report.picture import amount
    from bootproof.kernels import pruning

    for room in ("derived", "received", *(("files", "parts") if downloads else ())):
        gone = pruning.prune(cache / room, limit)
        size = amount(sum(entry.size for entry in gone))
        print(f"{room}: removed {len(gone)}, {size}")
        rest = sum(entry.size for entry in pruning.entries(cache / room))
        if rest > limit:
            print(f"{room}: {amount(rest)} are in use, or were within the last minute")


def _show(cache: Path) -> None:
    from rich.table import Table
    from rich.text import Text

    from bootproof.harness.report.picture import amount
    from bootproof.harness.report.rendered import rendered
    from bootproof.kernels import pruning

    there = sorted(each.name for each in cache.iterdir() if each.is_dir()) if cache.is_dir() else []
    rooms = _ROOMS | {room: _OTHER for room in there if room not in {*_ROOMS, _LOCKS}}
    table = Table(box=None, pad_edge=False)
    for heading in ("ROOM", "WHAT"):
        table.add_column(heading)
    for heading in ("ENTRIES", "SIZE"):
        table.add_column(heading, justify="right", no_wrap=True)
    total = 0
    for room, what in rooms.items():
        found = pruning.entries(cache / room)
        size = sum(entry.size for entry in found)
        total += size
        table.add_row(Text(room), what, str(len(found)), amount(size))
    table.add_row("all", "", "", amount(total))
    print(rendered(Text(str(cache)), table, terminal=sys.stdout.isatty()), end="")


COMMAND: Final = Command(
    "what is in the cache, and what of it may go", "cache --prune --limit 1G", _run, _add_options
)
