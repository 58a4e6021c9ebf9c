"""`bootproof fuzz`: damaged files for every parser."""

from __future__ import annotations

import argparse
import sys
from typing import Final

from bootproof.harness import places
from bootproof.harness.commands import Command
from bootproof.harness.commands.parser import named, seconds
from bootproof.harness.errors import UserError

_SECONDS: Final = 60.0
_SEED: Final = 1


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seconds",
        type=seconds,
        metavar="N",
        help=f"for all targets (default: {_SECONDS:g})",
    )
    parser.add_argument(
        "--target", action="append", metavar="NAME", help="only this one; may be repeated"
    )
    parser.add_argument("--replay", type=named, metavar="FILE", help="run one input of --target")
    parser.add_argument("--engine", choices=("atheris", "mutation"), help="default: what is there")
    parser.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help=f"of the random numbers (default: {_SEED})",
    )


def _run(arguments: argparse.Namespace) -> int:
    sys.path.insert(0, str(places.need_clone("fuzz")))
    from tests.fuzz import run
    from tests.fuzz.targets import TARGETS

    names = arguments.target or list(TARGETS)
    if unknown := [name for name in names if name not in TARGETS]:
        raise UserError(f"no fuzz target is called {unknown[0]}; there are: {', '.join(TARGETS)}")
    engine = arguments.engine or ("atheris" if run.has_atheris() else "mutation")
    if engine == "atheris" and not run.has_atheris():
        raise UserError(run.NO_ATHERIS)
    seconds, seed = arguments.seconds, arguments.seed
    if arguments.replay:
        if (seconds, seed, arguments.engine) != (None, None, None):
            raise UserError("--replay: runs one input: leave out --seconds, --seed and --engine")
        if len(names) != 1:
            raise UserError("--replay needs the one --target that the file is for")
        return run.replay(names[0], arguments.replay)
    out = places.output() / "fuzz"
    seconds, seed = _SECONDS if seconds is None else seconds, _SEED if seed is None else seed
    return run.run(names, seconds, out, seed=seed, engine=engine)


COMMAND: Final = Command(
    "feed damaged files to every parser",
    "fuzz --target elf --seconds 600",
    _run,
    _add_options,
)
