"""`bootproof setup`: what is left to do after the launcher: the kernels of the default set."""

from __future__ import annotations

import argparse
from typing import Final

from bootproof.harness.commands import Command
from bootproof.harness.exitcode import OK


def _run(_arguments: argparse.Namespace) -> int:
    from bootproof.kernels.catalog import load_catalog
    from bootproof.kernels.fetch import Fetcher

    names = [entry.name for entry in load_catalog().default()]
    kernels = Fetcher().fetch(names)
    print(f"bootproof: ready; {len(kernels)} files of the default set are in the cache")
    return OK


COMMAND: Final = Command("set everything up: QEMU, packages, kernels", "setup", _run)
