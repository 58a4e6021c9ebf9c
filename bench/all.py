"""Every measurement that docs/performance.md quotes, and its place there.

    .venv/bin/python -m bench.all [NAME ...] [--write docs/performance.md] [--with WORD ...]

Owns which benches the page has, with which words, and putting what they print between the page's
marks, as it is printed, below the machine, the versions, the date and the command. Without --write
that goes to standard output. Best on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench import numbers

BENCHES: Final = {
    name: ("-m", f"bench.{name}")
    for name in ("boot", "overhead", "matrix", "growth", "disk", "memory", "load", "cluster")
}
# Needs virtme-ng and a package: only where it is named, --with what it is to be given.
PEERS: Final = "peers"


def measured(name: str, words: Sequence[str]) -> str:
    """What a bench prints, as the page has it. Raises CalledProcessError when it breaks down."""
    command = [*BENCHES.get(name, ("-m", f"bench.{name}")), *words]
    print(f"bench.{name}", file=sys.stderr, flush=True)
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    if done.stderr or done.returncode not in (0, 1):  # 1: a target was missed, which it says
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    load = f"load {os.getloadavg()[2]:.1f} in the quarter of an hour before its end"
    return (
        f"{numbers.today()}, {load}; {numbers.machine()}:\n\n"
        f"```text\n$ .venv/bin/python {' '.join(command)}\n{done.stdout}```\n"
    )


def placed(page: str, name: str, block: str) -> str:
    """The page with a bench's block in place of the one it had. Raises ValueError without marks."""
    begin, end = f"<!-- bench.{name} -->\n", f"<!-- end of bench.{name} -->\n"
    before, found, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not (found and ended):
        raise ValueError(f"has no {begin.strip()} … {end.strip()}")
    return f"{before}{begin}\n{block}\n{end}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join((*BENCHES, PEERS))}")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    parser.add_argument(
        "--with",
        dest="words",
        metavar="WORD",
        nargs=argparse.REMAINDER,
        default=[],
        help="all that follows goes to the benches",
    )
    arguments = parser.parse_args()
    for name in arguments.names or BENCHES:
        block = measured(name, arguments.words)
        if arguments.write is None:
            print(f"## bench.{name}\n\n{block}", flush=True)
        else:  # at once: what is measured is not lost with what comes after it
            page = arguments.write.read_text("utf-8")
            arguments.write.write_text(placed(page, name, block), "utf-8")


if __name__ == "__main__":
    main()
