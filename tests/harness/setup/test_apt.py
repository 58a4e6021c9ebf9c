"""What is asked of dpkg and apt-get, by programs of those names that write it down.

The rest is tested with the launcher: tests/test_launcher.py.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bootproof.harness.setup import apt
from bootproof.harness.setup.apt import Apt

INSTALL = (
    "apt-get install --reinstall -qq -y --no-install-recommends --no-remove"
    " -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0"
)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the calls are written down."""
    log, tools = tmp_path / "calls.log", tmp_path / "tools"
    tools.mkdir()
    for name in ("apt-get", "dpkg"):
        (tools / name).write_text(f'#!/bin/sh\necho "{name} $*" >>"{log}"\n')
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setattr(apt, "UNFINISHED", tmp_path / "updates")
    return log


def test_a_dpkg_that_was_cut_off_is_seen_to_first(
    calls: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "updates").mkdir()
    (tmp_path / "updates" / "0001").touch()
    Apt().update()
    assert calls.read_text().splitlines() == [
        "dpkg --configure -a",
        f"{INSTALL} -f --download-only",
        f"{INSTALL} -f --no-download",
        "apt-get update -qq",
    ]
    assert capsys.readouterr().err.startswith("bootproof: dpkg was cut off earlier; ")


def test_the_owner_of_a_file() -> None:
    assert apt.owner_of(Path(shutil.which("dpkg-query") or "")) == "dpkg"
    assert apt.owner_of(Path("/*/bin/dpkg-query")) == "dpkg"
    assert apt.owner_of(Path("/nosuch/file")) is None


def test_a_dpkg_in_order_is_left_alone(calls: Path, tmp_path: Path) -> None:
    Apt().update()
    (tmp_path / "updates").mkdir()
    Apt().update()
    assert calls.read_text().splitlines() == ["apt-get update -qq"] * 2
