"""`bootproof doctor`: what is installed, what is missing, and how to get it.

Runs before the set-up too: what it looks with is bootproof.harness.setup.doctor.
"""

from __future__ import annotations

import argparse
from typing import Final

from bootproof.harness.commands import Command
from bootproof.harness.exitcode import OK, USAGE


def _run(_arguments: argparse.Namespace) -> int:
    """0 when everything needed is here, else 2."""
    from bootproof.harness.setup import doctor

    report = doctor.examine()
    doctor.render(report)
    return OK if report.complete else USAGE


COMMAND: Final = Command("what is installed, what is missing, how to get it", "doctor", _run)
