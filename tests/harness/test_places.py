"""How bootproof was started, as what is printed to be copied says it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests import ROOT
from tests.builders.processes import environment

ASK = "from bootproof.harness import places; print(places.COMMAND)"


def told(*words: str | Path, cwd: Path = ROOT, **variables: str) -> str:
    done = subprocess.run(
        words, cwd=cwd, env=environment(**variables), capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_what_was_typed(tmp_path: Path) -> None:
    """A launcher says what it was; what it starts has its process, and no process below has."""
    start = f'BOOTPROOF_STARTED="$$ $0"; export BOOTPROOF_STARTED; exec {sys.executable} -c "$@"'
    assert told("sh", "-c", start, "./bootproof", ASK) == "./bootproof"
    assert told("sh", "-c", start, "/a b/bootproof", ASK) == "'/a b/bootproof'"
    child = f"import os, sys; os.system(sys.executable + ' -c \"{ASK}\"')"
    assert told("sh", "-c", start, "/x/bootproof", child) == "./bootproof"
    assert told(sys.executable, "-c", ASK) == "./bootproof"

    script = tmp_path / "bin" / "bootproof"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\n{ASK}\n")
    script.chmod(0o755)
    path = f"{script.parent}{os.pathsep}{os.environ['PATH']}"
    assert told("sh", "-c", "bootproof", PATH=path) == "bootproof"
    assert told(script) == str(script)
    assert told("./bin/bootproof", cwd=tmp_path) == "./bin/bootproof"


def test_a_module(tmp_path: Path) -> None:
    module = tmp_path / "bootproof" / "__main__.py"
    module.parent.mkdir()
    for name in ("harness", "loader", "kernels", "scenarios", "__init__.py"):
        (module.parent / name).symlink_to((ROOT / "src" / "bootproof" / name).resolve())
    module.write_text(ASK)
    assert told(sys.executable, "-m", "bootproof", cwd=tmp_path) == f"{sys.executable} -m bootproof"
