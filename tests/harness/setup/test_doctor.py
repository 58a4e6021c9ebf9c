"""Doctor, looking at real systems that lack something: a PATH without it, an empty cache, a Python
without packages. Plus what launcher and doctor must agree on.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tomllib
from pathlib import Path

import pexpect
import pytest
from packaging.requirements import Requirement

from bootproof.harness import cli
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.qemu.binary import data_directories, find_qemu
from bootproof.harness.setup import apt, doctor
from bootproof.harness.setup.doctor import Report
from bootproof.harness.setup.needs import Component, State
from tests import ROOT
from tests.builders.processes import CLI, python

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
DEPENDENCIES: list[str] = PROJECT["dependencies"]


@pytest.fixture(autouse=True)
def own_environment(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the user's settings, and a cache that is empty."""
    for name in (*(f"BOOTPROOF_QEMU_{arch.upper()}" for arch in ARCHES), "BOOTPROOF_KEYRING"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BOOTPROOF_MIRROR", "http://mirror.example/debian")


def component(name: str) -> Component:
    (found,) = (c for c in doctor.examine().components if c.name == name)
    return found


def state(name: str) -> State:
    return component(name).state


def add_program(directory: Path, name: str, says: str) -> Path:
    directory.mkdir(exist_ok=True)
    program = directory / name
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    return program


# --- the report --------------------------------------------------------------------------------


def test_it_looks_at_everything_and_every_package_of_the_project() -> None:
    names = [c.name for c in doctor.examine().components]
    packages = [Requirement(text).name for text in DEPENDENCIES]
    for name in (
        *("system", "Python", "virtual environment", *packages, "developers' packages"),
        *("QEMU for x86_64", "QEMU for aarch64", "QEMU for riscv64", "OpenSBI for riscv64"),
        *("QEMU runs as", "Landlock", "gpgv"),
        *("Debian keyring", "mirror", "cache", "run directories", "shared memory"),
    ):
        assert names.count(name) == 1, name


def test_a_report_is_complete_unless_something_is_missing_or_too_old() -> None:
    by_state = {s: Report((Component("x", s),)).complete for s in State}
    assert by_state == {
        State.OK: True,
        State.OPTIONAL: True,
        State.UNKNOWN: True,
        State.TOO_OLD: False,
        State.MISSING: False,
    }


def test_packages_of_this_environment_are_found_with_their_versions() -> None:
    from importlib.metadata import version

    import rich  # noqa: F401

    assert component("rich") == Component("rich", State.OK, version("rich"))


def test_the_developers_packages_are_a_matter_of_the_tests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    developers = PROJECT["optional-dependencies"]["dev"]
    assert component("developers' packages").state is State.OK
    nowhere = [*developers, "no-such-package"]
    monkeypatch.setattr(doctor, "_requirements", lambda: (DEPENDENCIES, nowhere))
    found = component("developers' packages")
    assert (found.state, found.detail) == (
        State.OPTIONAL,
        f"{len(developers)} of {len(nowhere)} packages; ./bootproof test adds them",
    )


def test_a_package_older_than_the_project_needs_is_too_old(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    metadata = tmp_path / "rich-12.9.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: rich\nVersion: 12.9\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = component("rich")
    assert (found.state, found.version) == (State.TOO_OLD, "12.9")
    assert found.detail == ">=13 is needed"


def test_without_its_packages_it_still_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("BOOTPROOF_MIRROR", raising=False)  # then apt's is asked for, with a package
    run = python("-S", *CLI, "doctor", env={"PYTHONDONTWRITEBYTECODE": "1"})
    assert (run.returncode, run.stderr) == (2, "")
    lines = run.stdout.splitlines()
    assert any(re.match(r"missing +virtual environment$", line) for line in lines)
    packages = rf"missing +Python packages +{len(DEPENDENCIES)} packages"
    assert any(re.match(packages, line) for line in lines)
    assert any(re.match(r"unknown +kernels +cannot be looked at without", line) for line in lines)
    assert lines[-1] == (
        "Not everything that bootproof needs is here: virtual environment, Python packages."
    )


# --- what the system lacks ---------------------------------------------------------------------


def test_programs_that_are_not_there_come_with_the_way_to_get_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert component("gpgv").state is State.OPTIONAL
    assert component("gpgv").advice == (
        "apt-get install gpgv | dnf install gnupg2 | pacman -S gnupg"
    )
    assert component("QEMU for aarch64").state is State.MISSING
    assert component("QEMU for aarch64").advice == (
        "apt-get install qemu-system-arm | dnf install qemu-system-aarch64"
        " | pacman -S qemu-system-aarch64"
    )


def test_the_qemu_that_path_names_is_shown_with_its_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = add_program(tmp_path / "bin", "qemu-system-x86_64", "QEMU emulator version 9.1.3 (x)")
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    assert component("QEMU for x86_64") == Component(
        "QEMU for x86_64", State.OK, "9.1.3", str(program)
    )


def test_a_qemu_before_7_2_is_too_old(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = add_program(tmp_path / "bin", "my-qemu", "QEMU emulator version 7.1.0")
    monkeypatch.setenv("BOOTPROOF_QEMU_AARCH64", str(program))
    found = component("QEMU for aarch64")
    assert (found.state, found.remedy) == (State.TOO_OLD, "correct BOOTPROOF_QEMU_AARCH64")
    assert str(program) in found.detail


def test_a_qemu_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOTPROOF_QEMU_X86_64", "none")
    assert state("QEMU for x86_64") is State.OPTIONAL


def test_a_qemu_without_the_firmware_of_its_guests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real one, which looks for its data beside itself; with a link to the file it is found."""
    name, firmware = "OpenSBI for riscv64", ARCHES["riscv64"].bios
    assert firmware is not None
    installed = find_qemu("riscv64").path
    (here,) = (p for d in data_directories(installed) if (p := Path(d) / firmware.file).is_file())
    (tmp_path / "bin").mkdir()
    shutil.copy(installed, tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    found = component(name)
    assert (found.state, component("QEMU for riscv64").state) == (State.MISSING, State.OK)
    assert f"has no {firmware.file} in {tmp_path}/bin/../share/qemu" in found.detail
    owner = apt.owner_of(here) or ""
    assert found.package is not None and found.package.apt == owner
    assert found.advice == f"apt-get install --reinstall {owner}"

    monkeypatch.setenv("BOOTPROOF_QEMU_RISCV64", str(tmp_path / "bin"))
    found = component(name)
    assert (found.state, found.package) == (State.MISSING, None)
    assert found.advice.endswith("that file, or correct BOOTPROOF_QEMU_RISCV64")

    data = tmp_path / "share" / "qemu"
    data.mkdir(parents=True)
    (data / firmware.file).symlink_to(here)
    assert component(name).state is State.OK


def test_a_keyring_that_is_not_there_is_said_and_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOTPROOF_KEYRING", "/nowhere/keys.gpg")
    assert component("Debian keyring").state is State.OPTIONAL
    assert component("Debian keyring").detail == "/nowhere/keys.gpg does not exist"


def test_the_default_kernels_are_optional_until_they_are_fetched() -> None:
    from bootproof.kernels.catalog import load_catalog

    default = {entry.name for entry in load_catalog().default()}
    shown = {c.name: c for c in doctor.examine().components if c.name in default}
    assert set(shown) == default
    assert {c.state for c in shown.values()} == {State.OPTIONAL}
    assert shown["6.1-cloud-amd64"].remedy == "./bootproof fetch 6.1-cloud-amd64"


def test_the_mirror_is_shown_without_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOTPROOF_MIRROR", "http://me:secret@mirror.example:8080/debian")
    assert component("mirror").detail == "http://mirror.example:8080/debian"


def test_without_a_mirror_the_kernels_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOTPROOF_MIRROR", "nonsense")
    assert state("mirror") is State.MISSING


def test_a_place_that_is_no_directory_is_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("none")
    for name in ("file", "file/below", "link"):
        monkeypatch.setenv("BOOTPROOF_CACHE", str(tmp_path / name))
        (cache,) = (item for item in doctor._disk_space() if item.name == "cache")
        assert cache.state is State.MISSING
        assert cache.detail.startswith(str(tmp_path / name.partition("/")[0]))


def test_room_is_looked_at_where_the_directory_will_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BOOTPROOF_CACHE", str(tmp_path / "not" / "yet"))
    free = shutil.disk_usage(tmp_path).free
    assert component("cache").detail == f"free in {tmp_path}/not/yet"
    monkeypatch.setattr(doctor, "_CACHE_ROOM", free * 2)
    assert state("cache") is State.MISSING
    assert component("cache").remedy.endswith("or choose another place with BOOTPROOF_CACHE")


# --- showing it --------------------------------------------------------------------------------


def test_the_plain_report_names_state_and_remedy_in_words() -> None:
    report = Report(
        (
            Component("Python", State.OK, "3.11.2", "/usr/bin/python3"),
            Component("OpenSBI", State.MISSING, remedy="install it"),
        )
    )
    assert doctor.plain(report) == (
        "ok        Python               3.11.2            /usr/bin/python3\n"
        "missing   OpenSBI\n"
        "          -> install it\n"
        "\n"
        "Not everything that bootproof needs is here: OpenSBI.\n"
    )


def test_a_terminal_gets_colours_and_the_same_words() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "TERM": "xterm", "COLUMNS": "80"}
    environment["BOOTPROOF_QEMU_X86_64"] = "/nowhere/qemu"
    child: pexpect.spawn[str] = pexpect.spawn(
        sys.executable,
        ["-P", "-m", "bootproof.harness.cli", "doctor"],
        env=environment,
        encoding="utf-8",
        dimensions=(60, 80),
        timeout=30,
    )
    output = child.read()
    child.close()
    assert child.exitstatus == 2
    assert "\x1b[1;31m" in output
    words = re.sub(r"\x1b\[[0-9;]*m", "", output)
    assert re.search(r"^missing +QEMU for x86_64", words, re.MULTILINE)
    assert re.search(r"^ok +Python ", words, re.MULTILINE)
    assert "Not everything that bootproof needs is here: QEMU for x86_64." in words


def test_a_wrong_limit_of_the_cache_is_no_missing_qemu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was to be done about it was to install one."""
    monkeypatch.setenv("BOOTPROOF_CACHE_LIMIT", "lots")
    assert cli.main(["doctor"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("bootproof: BOOTPROOF_CACHE_LIMIT: 'lots' is neither a size nor")
