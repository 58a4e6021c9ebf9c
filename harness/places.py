"""Where bootproof itself lies, and where what it makes goes by default.

Two ways to have it: a clone (also one that `pip install -e` names, or an unpacked sdist), where
run directories go below build/ and the launcher is ./bootproof, and an installed package, which
never writes beside its own files: run directories go below bootproof-out in the current directory.
"""

from __future__ import annotations

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

COMMAND: Final = "bootproof" if INSTALLED else "./bootproof"
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
