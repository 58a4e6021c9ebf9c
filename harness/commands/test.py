"""`bootproof test`: bootproof's own tests."""

from __future__ import annotations

import argparse
from typing import Final

from bootproof.harness import places
from bootproof.harness.commands import Command


def _run(_arguments: argparse.Namespace) -> int:
    from bootproof.harness.suite import selftest

    return selftest.run(places.need_clone("test"))


COMMAND: Final = Command("bootproof's own tests", "test", _run)
