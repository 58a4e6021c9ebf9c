"""`bootproof test`: lint, types, layers, fast tests, then a short matrix on real kernels."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bootproof.harness.suite import matrix
from bootproof.harness.suite.matrix import PYTESTS
from bootproof.harness.suite.options import Keep, MatrixOptions

# import-linter has a script, but no module to run.
_LAYERS: Final = "import importlinter.cli; importlinter.cli.lint_imports_command()"


def run(root: Path) -> int:
    """Runs every step, also after a failed one; 0 when all passed."""
    steps: list[tuple[str, Sequence[str]]] = [
        ("lint", ["-m", "ruff", "check", "."]),
        ("format", ["-m", "ruff", "format", "--check", "."]),
        ("types", ["-m", "mypy"]),
        ("layers", ["-c", _LAYERS, "--no-cache"]),
        # Each worker keeps to its own files, and what they share, until the others have none left;
        # on two CPUs a third one works while the others wait for guests and processes.
        ("fast tests", ["-m", "pytest", "-n", "3", "--dist", "worksteal", "-q", "tests"]),
    ]
    failed = [name for name, command in steps if not _step(root, name, command)]
    print("bootproof test: short matrix", flush=True)
    options = MatrixOptions(root / "build" / "test", Keep.FAILED, jobs=2)
    if matrix.run(matrix.Selection(options, markers="short")):
        failed.append("short matrix")
    print(f"bootproof test: {'failed: ' + ', '.join(failed) if failed else 'all passed'}")
    return 1 if failed else 0


def _step(root: Path, name: str, command: Sequence[str]) -> bool:
    print(f"bootproof test: {name}", flush=True)
    ours = {name: value for name, value in os.environ.items() if not name.startswith(PYTESTS)}
    words = [sys.executable, *command]
    return subprocess.run(words, cwd=root, env=ours, check=False).returncode == 0
