"""A user's own scenario file: the example of docs/scenarios.md, run as the page says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bootproof.harness import places

if places.CLONE is None:
    pytest.skip("needs a clone: the page is there", allow_module_level=True)
PAGE = places.CLONE / "docs" / "scenarios.md"


def test_example_of_the_page(tmp_path: Path, run_directory: Callable[[str], Path]) -> None:
    example = re.findall(r"^```toml\n(.*?)^```", PAGE.read_text(), re.M | re.S)[0]
    (tmp_path / "my.toml").write_text(example)
    out = run_directory("user-file")
    words = ["matrix", "--scenarios", "my.toml", "--out", str(out), "--keep", "failed", "-n", "1"]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "bootproof.harness.cli", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PAGE.parents[1] / "src"), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    cases = json.loads((out / "results.json").read_text())["cases"]
    assert sorted((case["verdict"], case["claim"]) for case in cases) == [
        ("booted", "elf-linux64-+16M"),
        ("booted", "elf-linux64-none"),
        ("load-refused", "elf-linux64-+1M"),
    ]
