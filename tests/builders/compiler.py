"""The system's C compiler, for the example that is written in C."""

from __future__ import annotations

import os
import shutil

import pytest


def c_compiler() -> str:
    """The path of `cc`. Without one the test is skipped, visibly; under CI it fails."""
    compiler = shutil.which("cc")
    if compiler is None:
        reason = "no C compiler called cc: the example in C is not tested (apt: gcc libc6-dev)"
        assert not os.environ.get("CI"), reason
        pytest.skip(reason)
    return compiler
