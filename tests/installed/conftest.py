"""A wheel and an sdist of this repository, each in an own virtual environment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import ROOT


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment, used from a directory that is no clone."""

    path: Path
    cwd: Path

    def run(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        hidden = ("PYTHONPATH", "PYTHONHOME")
        environment = {k: v for k, v in os.environ.items() if k not in hidden}
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        return subprocess.run(
            [str(self.path / "bin" / program), *words],
            cwd=self.cwd,
            env={**environment, "COLUMNS": "80"},
            capture_output=True,
            text=True,
            check=False,
        )

    def must(self, program: str, *words: str) -> str:
        done = self.run(program, *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def environment(directory: Path, install: Sequence[str]) -> Environment:
    made = Environment(directory / "venv", directory)
    subprocess.run([sys.executable, "-m", "venv", str(made.path)], check=True)
    made.must("pip", "install", "-q", *install)
    return made


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone, in a path with a blank in it."""
    path = tmp_path_factory.mktemp("cloned") / "a clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(path)], check=True)
    return path


@pytest.fixture(scope="session")
def built(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dist/ with the sdist, and the wheel that was built out of it; checked by twine."""
    directory = tmp_path_factory.mktemp("built")
    tools = environment(directory, ["build", "twine"])
    tools.must("python", "-m", "build", "-q", "--outdir", str(directory / "dist"), str(clone))
    files = sorted(map(str, (directory / "dist").iterdir()))
    assert [name.rpartition("-")[2] for name in files] == ["any.whl", "0.1.0.tar.gz"]
    said = tools.must("python", "-m", "twine", "check", "--strict", *files)
    assert said.count("PASSED") == 2
    return directory / "dist"


@pytest.fixture(scope="session")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel, in a virtual environment of its own."""
    (wheel,) = built.glob("*.whl")
    return environment(tmp_path_factory.mktemp("wheel"), [str(wheel)])
