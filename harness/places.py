"""Where bootproof itself lies, and where what it makes goes by default.

Two ways to have it: a clone (also one that `pip install -e` names, or an unpacked sdist), where
run directories go below build/ and the launcher is ./bootproof, and an installed package, which
never writes beside its own files: run directories go below bootproof-out in the current directory.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

from bootproof.harness.errors import UserError

PACKAGES: Final = Path(__file__).resolve().parent.parent
"""The folder that holds loader, harness, kernels and scenarios."""

CLONE: Final = next(
    (
        root
        for root in (PACKAGES, PACKAGES.parents[1])  # in an sdist they lie in src/bootproof
        if (root / "src" / "bootproof").is_dir() and (root / "bootproof").is_file()
    ),
    None,
)
"""The clone; None where bootproof is installed."""

INSTALLED: Final = CLONE is None
PLUGIN: Final = "bootproof.harness.plugin"
"""Our pytest plugin, as pytest's -p takes it."""

STARTED: Final = "BOOTPROOF_STARTED"
"""The variable in which the launcher of a clone says its process and how it was called."""


def _command() -> str:
    """How the user started bootproof; where that was another program, how one does."""
    process, _, typed = os.environ.get(STARTED, "").partition(" ")
    words = sys.orig_argv[:_WORDS_OF_PYTHON]
    module = words.index("-m") + 1 if "-m" in words else 0
    if process == str(os.getpid()):  # and of no process above
        return _shortest(typed)
    if words[module : module + 1] in (["bootproof"], ["bootproof.harness.cli"]):
        return shlex.join(words[: module + 1])
    if Path(sys.argv[0]).name == "bootproof":
        return _shortest(sys.argv[0])
    return "bootproof" if INSTALLED else "./bootproof"


def _shortest(program: str) -> str:
    """Of a program on the path nobody types the path."""
    found = shutil.which(Path(program).name)
    on_path = found is not None and Path(found).absolute() == Path(program).absolute()
    return shlex.quote(Path(program).name if on_path else program)


_WORDS_OF_PYTHON: Final = 8  # before what it is to run

COMMAND: Final = _command()
"""How the user starts bootproof, for what is printed to be copied."""

SET_UP: Final = "bootproof doctor" if INSTALLED else "./bootproof setup"
"""What gets the missing parts, or says how to get them: pip installs no QEMU."""


def need_clone(what: str) -> Path:
    """The clone. Raises UserError for what an installed package does not hold."""
    if CLONE is None:
        raise UserError(f"{what}: needs a clone of the repository; this bootproof is installed")
    return CLONE


def output() -> Path:
    """Run directories of commands without --out go below this."""
    return Path.cwd() / "bootproof-out" if CLONE is None else CLONE / "build"
