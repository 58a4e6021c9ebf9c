"""Where bootproof itself lies, and where what it makes goes by default.

Two ways to have it: a clone (also one that `pip install -e` names), where run directories go below
build/ and the launcher is ./bootproof, and an installed package, which never writes beside its own
files: run directories go below bootproof-out in the current directory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bootproof.harness.errors import UserError

PACKAGES: Final = Path(__file__).resolve().parent.parent
"""The folder that holds loader, harness, kernels and scenarios."""

INSTALLED: Final = not (PACKAGES / "src" / "bootproof").is_dir()
PLUGIN: Final = "bootproof.harness.plugin"
"""Our pytest plugin, as pytest's -p takes it."""

COMMAND: Final = "bootproof" if INSTALLED else "./bootproof"
"""How the user starts bootproof, for what is printed to be copied."""

SET_UP: Final = "bootproof doctor" if INSTALLED else "./bootproof setup"
"""What gets the missing parts, or says how to get them: pip installs no QEMU."""


def need_clone(what: str) -> None:
    """Raises UserError for what an installed package does not hold."""
    if INSTALLED:
        raise UserError(f"{what}: needs a clone of the repository; this bootproof is installed")


def output() -> Path:
    """Run directories of commands without --out go below this."""
    return Path.cwd() / "bootproof-out" if INSTALLED else PACKAGES / "build"
