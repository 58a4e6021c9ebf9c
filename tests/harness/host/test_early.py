"""Ctrl-C while the programs are being imported: no traceback, and an exception afterwards."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import pytest

# What SIGINT does while a module is looked for, once the first of ours has taken it.
_WATCH: Final = """
import _signal, importlib, sys
class Watch:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if hasattr(sys.modules.get("bootproof.harness.host.early"), "over"):
            handlers.add(_signal.getsignal(_signal.SIGINT))
handlers = set()
sys.meta_path.insert(0, Watch)
importlib.import_module(sys.argv[1])
sys.meta_path.remove(Watch)
assert _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler
print(handlers)
"""


@pytest.mark.parametrize("program", ["bootproof.harness.cli", "bootproof.harness.launch"])
def test_ctrl_c_ends_a_program_that_is_being_imported(program: str) -> None:
    command = [sys.executable, "-P", "-c", _WATCH, program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "{0}\n"
