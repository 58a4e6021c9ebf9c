"""What a command brings in before it does anything: all of it is waited for, every time.

Which modules, not how long: bench/overhead.py measures that.
"""

from __future__ import annotations

import pytest

from tests.builders.processes import python

_ALL_AT_THE_END = """
import atexit, sys
atexit.register(lambda: print("MODULES", *sys.modules, file=sys.stderr))
from bootproof.harness import cli
sys.exit(cli.main(sys.argv[1:]))
"""
CASES = {"bootproof.harness.case", "bootproof.loader.address", "bootproof.kernels.catalog"}
LOOKING = {"ctypes", "hashlib", "platform", "subprocess", "tomllib"}


def imported(*words: str, code: int) -> set[str]:
    """The modules that a command with this exit code has imported when it ends."""
    done = python("-P", "-c", _ALL_AT_THE_END, *words)
    assert done.returncode == code, done.stderr
    return set(done.stderr.rpartition("MODULES ")[2].split())


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("doctor", "--help")])
def test_who_asks_for_help_waits_for_nothing_else(words: tuple[str, ...]) -> None:
    modules = imported(*words, code=0)
    assert "bootproof.harness.commands.doctor" in modules
    assert not modules & (CASES | LOOKING)
