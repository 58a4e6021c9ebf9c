"""Programs of the system that only tests use. `.ci/programs` installs them all."""

from __future__ import annotations

import os
import shutil
from typing import Final

import pytest

PACKAGES: Final = {
    "busybox": "busybox",
    "cc": "gcc libc6-dev",
    "chromedriver": "chromium-driver",
    "chromium": "chromium",
    "dtc": "device-tree-compiler",
    "gdb-multiarch": "gdb-multiarch",
    "iasl": "acpica-tools",
    "openssl": "openssl",
    "rustc": "rustc",
    "shellcheck": "shellcheck",
}
"""The packages of Debian that bring them."""


def host_program(name: str) -> str:
    """The path of one of them. Without it the test is skipped, visibly; under CI it fails."""
    path = shutil.which(name)
    if path is None:
        reason = f"no {name} here: what needs it is not tested (apt: {PACKAGES[name]})"
        assert not os.environ.get("CI"), reason
        pytest.skip(reason)
    return path
