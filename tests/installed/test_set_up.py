"""The set-up of a clone, for real: what a user gets, and that it goes on where it was cut off."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bootproof.harness.setup.environment import USERS
from tests import ROOT

pytestmark = pytest.mark.installed

MOST_BYTES = 90 << 20
SECONDS = 300


def bootproof(clone: Path, *words: str) -> subprocess.CompletedProcess[str]:
    hidden = ("PYTHONPATH", "BOOTPROOF_VENV")
    return subprocess.run(
        [str(clone / "bootproof"), *words],
        env={name: value for name, value in os.environ.items() if name not in hidden},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )


def python(clone: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(clone / ".venv" / "bin" / "python"), "-I", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def packages(clone: Path) -> Path:
    return next((clone / ".venv" / "lib").glob("python3*/site-packages"))


def distributions(clone: Path) -> set[str]:
    return {info.name.partition("-")[0].lower() for info in packages(clone).glob("*.dist-info")}


@pytest.fixture(scope="module")
def set_up(clone: Path) -> Path:
    """A clone whose first command has been given."""
    said = bootproof(clone, "inspect", str(ROOT / "README.md"))
    assert said.returncode == 2
    *lines, last = said.stderr.splitlines()
    assert lines[0] == "bootproof: setting up; this gets installed now:"
    assert lines[-1] == "bootproof: set up"
    assert "neither a kernel nor a packed kernel" in last
    return clone


def test_a_user_gets_little(set_up: Path) -> None:
    assert len(distributions(set_up)) == 1 + len(pins(USERS[-1]))  # and pip
    files = (path for path in (set_up / ".venv").rglob("*") if path.is_file())
    assert sum(path.stat().st_blocks * 512 for path in files) < MOST_BYTES
    assert bootproof(set_up, "inspect", str(ROOT / "README.md")).stderr.count("\n") == 1


def pins(name: str) -> list[str]:
    return [line for line in (ROOT / name).read_text("utf-8").splitlines() if "==" in line]


def test_it_is_enough_for_every_command_but_one(set_up: Path) -> None:
    said = bootproof(set_up, "fuzz", "--target", "elf", "--seconds", "1", "--engine", "mutation")
    assert said.returncode == 0, said.stdout + said.stderr
    said = bootproof(set_up, "boot", "6.1-cloud-amd64", "--protocol", "pvh")
    assert (said.returncode, said.stderr) == (0, ""), said.stdout
    said = bootproof(set_up, "matrix", "-n", "2", "-k", "6.1-cloud-arm64-image-arm64-ram+0]")
    assert (said.returncode, said.stderr) == (0, ""), said.stdout


def test_its_python_imports_bootproof_also_when_the_clone_is_moved(
    set_up: Path, tmp_path: Path
) -> None:
    where = "import bootproof.loader.elf as m; print(m.__file__)"
    moved = tmp_path / "moved"
    set_up.rename(moved)
    try:
        found = python(moved, "-c", where).stdout.strip()
        assert Path(found).samefile(moved / "loader" / "elf.py")
    finally:
        moved.rename(set_up)


@pytest.mark.parametrize("stamp", ["making\n", "installing\n"])
def test_it_goes_on_wherever_it_was_cut_off(set_up: Path, stamp: str) -> None:
    """Of one package there is no record yet and of another no code, as pip leaves them."""
    (set_up / ".venv" / "bootproof.stamp").write_text(stamp)
    (set_up / ".venv" / "tmp").mkdir()
    (record,) = packages(set_up).glob("rich-*.dist-info/RECORD")
    record.unlink()
    shutil.rmtree(packages(set_up) / "rich")
    for path in packages(set_up).glob("pip-*.dist-info"):
        (path / "RECORD").unlink()
    said = bootproof(set_up, "doctor")
    assert (said.returncode, said.stderr) == (2, "")  # it sets nothing up
    assert bootproof(set_up, "--no-setup", "fetch", "--list").returncode == 2
    said = bootproof(set_up, "fetch", "--list")
    assert said.returncode == 0, said.stderr
    assert "6.1-cloud-amd64" in said.stdout  # a table drawn by rich
    assert not (set_up / ".venv" / "tmp").exists()


def test_the_projects_own_tests_get_more(set_up: Path) -> None:
    """As `./bootproof test` does before it starts, which would take minutes."""
    code = (
        "import pathlib, sys; from bootproof.harness.setup import environment as e\n"
        "venv = e.Environment(pathlib.Path(sys.argv[1]), e.DEVELOPERS)\n"
        "assert not venv.is_complete()\n"
        "with venv.locked() as lock: venv.fill(lock)\n"
        "assert venv.is_complete() and e.Environment(venv.path).is_complete()"
    )
    command = [sys.executable, "-P", "-S", "-c", code, str(set_up / ".venv")]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(set_up / "src")}, check=True)
    for tool in ("mypy", "ruff", "pytest"):
        assert python(set_up, "-m", tool, "--version").returncode == 0
    assert bootproof(set_up, "--version").stderr == ""
