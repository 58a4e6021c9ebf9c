"""`bootproof test`: lint, types, fast tests, then a short matrix on real kernels."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bootproof.harness.suite import matrix
from bootproof.kernels import Fetcher, load_catalog


def run(root: Path) -> int:
    """Runs every step, also after a failed one; 0 when all passed."""
    steps: list[tuple[str, Sequence[str]]] = [
        ("lint", ["ruff", "check", "."]),
        ("format", ["ruff", "format", "--check", "."]),
        ("types", ["mypy"]),
        ("fast tests", ["pytest", "-n", "2", "-q", "tests"]),
    ]
    failed = [name for name, command in steps if not _step(root, name, command)]
    Fetcher().fetch(entry.name for entry in load_catalog().default())
    short = matrix.Selection(out=root / "build" / "test", markers="short", keep="failed")
    arguments = ["pytest", *matrix.arguments(short)]
    if not _step(root, "short matrix", arguments):
        failed.append("short matrix")
    print(f"bootproof test: {'failed: ' + ', '.join(failed) if failed else 'all passed'}")
    return 1 if failed else 0


def _step(root: Path, name: str, command: Sequence[str]) -> bool:
    print(f"bootproof test: {name}", flush=True)
    return subprocess.run([sys.executable, "-m", *command], cwd=root, check=False).returncode == 0
