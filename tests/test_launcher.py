"""The launcher and the set-up, run for real: every way that ends before something is installed,
and the way into an environment that is complete. What apt-get and sudo are asked for is seen by
programs of those names that write it down; nothing here installs anything (tests/installed does).
"""

from __future__ import annotations

import json
import os
import py_compile
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bootproof.harness.launch import without_no_setup
from bootproof.harness.setup import needs
from bootproof.harness.setup.environment import DEVELOPERS, Environment, pip_wheel
from tests import ROOT
from tests.builders.programs import host_program

BASE_PYTHON = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
SYSTEM_PYTHON = "/usr/bin/python3"
NOBODY = 65534
USERS_PACKAGES = Environment(ROOT / ".venv").contents()
DEVELOPERS_PACKAGES = Environment(ROOT / ".venv", DEVELOPERS).contents()
# Anything else that is used of a system must be noticed here.
ESSENTIAL = ("cksum", "env", "readlink", "sed", "true")
COMMON = "common"
# In place of the command line's own end: everything before it is what the set-up asks.
COMMAND_LINE = """
import json, os, sys, time
print(json.dumps({"argv": sys.argv[1:], "cwd": os.getcwd(), "pid": os.getpid(),
    "path": sys.path[0], "home": os.environ.get("PYTHONHOME")}), flush=True)
if sys.argv[1:] == ["wait"]:
    time.sleep(60)
sys.exit(7 if sys.argv[1:] == ["fail"] else 0)
"""


@dataclass
class Clone:
    """A copy of what the launcher touches, with a command line that tells how it was called.

    `tools` is the only directory on PATH.
    """

    root: Path
    tools: Path
    python: str
    user: Sequence[str] = ()
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    @property
    def log(self) -> Path:
        return self.root.parent / "calls.log"

    def run(
        self, *arguments: str, program: Sequence[str | Path] = (), cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = [*self.user, *(program or [self.root / "bootproof"]), *arguments]
        return subprocess.run(
            command,
            cwd=cwd or self.root.parent,
            env=self.everything_in_the_environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def everything_in_the_environment(self) -> Mapping[str, str]:
        """Of the third QEMU nothing is asked: two are enough to be here, missing or too old."""
        two = {"BOOTPROOF_QEMU_RISCV64": "none"}
        return {"PATH": str(self.tools), "LANG": "C.UTF-8", **two, **self.environment}

    def told(self, *arguments: str, cwd: Path | None = None) -> dict[str, object]:
        """What the command line saw. Fails unless the launcher got there silently."""
        result = self.run(*arguments, cwd=cwd)
        assert (result.returncode, result.stderr) == (0, "")
        told: dict[str, object] = json.loads(result.stdout)
        return told

    def set_up(self) -> None:
        """Makes what a finished set-up leaves: lock, interpreter and the stamp for it."""
        python = self.venv / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.symlink_to(self.python)
        (self.venv / "bootproof.lock").touch()
        self.stamp(f"{self.checksum('requirements.txt')}\n{self.python}\n")

    def checksum(self, name: str) -> str:
        with (self.root / name).open() as file:
            command = ["cksum"]
            run = subprocess.run(command, stdin=file, capture_output=True, text=True, check=True)
        return run.stdout.strip()

    def stamp(self, text: str) -> None:
        (self.venv / "bootproof.stamp").write_text(text)

    def link(self, name: str) -> None:
        """Puts a program of this machine on PATH."""
        found = shutil.which(name)
        assert found is not None
        (self.tools / name).symlink_to(found)

    def add_tool(self, name: str, script: str) -> Path:
        path = self.tools / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def add_qemu(self, arch: str, version: str = "7.2.0") -> Path:
        return self.add_tool(f"qemu-system-{arch}", f'echo "QEMU emulator version {version} (x)"')

    def add_recorder(self, name: str, then: str = "") -> None:
        """A program that writes its name, arguments and DEBIAN_FRONTEND down, then does `then`."""
        self.add_tool(name, f'echo "$DEBIAN_FRONTEND {name} $*" >>"{self.log}"\n{then}')

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture(scope="module")
def places() -> Iterator[Path]:
    """A directory that other users can reach, which pytest's own is not. In it is what clones have
    in common, whose files they share.
    """
    with tempfile.TemporaryDirectory(prefix="bootproof-test-", dir="/tmp") as name:
        common = Path(name) / COMMON
        common.mkdir()
        folders = [ROOT / folder for folder in ("src", "harness", "kernels", "loader")]
        subprocess.run(["cp", "-a", "--", *folders, common], check=True)
        command_line = common / "harness" / "cli.py"
        text, own_end, _ = command_line.read_text().partition("    program()\n")
        assert own_end
        command_line.write_text(text + textwrap.indent(COMMAND_LINE, "    "))
        py_compile.compile(str(command_line), doraise=True)
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def place(places: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=places) as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.fixture
def clone(place: Path) -> Clone:
    return make_clone(place)


def make_clone(place: Path, python: str = BASE_PYTHON, name: str = "a clone") -> Clone:
    root, tools = place / name, place / "tools"
    tools.mkdir()
    subprocess.run(["cp", "-al", "--", place.parent / COMMON, root], check=True)
    for file in ("bootproof", "requirements.txt", "requirements-dev.txt", "pyproject.toml"):
        shutil.copy(ROOT / file, root)
    (tools / "python3").symlink_to(python)
    clone = Clone(root, tools, python)
    for name in ESSENTIAL:
        clone.link(name)
    return clone


def set_up_clone(place: Path) -> Clone:
    clone = make_clone(place)
    clone.set_up()
    return clone


def only_line(text: str) -> str:
    (line,) = text.splitlines()
    return line


# --- once set up -------------------------------------------------------------------------------


def test_arguments_reach_the_command_line_untouched(place: Path) -> None:
    arguments = ["boot", "a b", "", "*", "$HOME", "-h", "--", "--no-setup", 'x"y', "ä\n\\n", "-n2"]
    assert set_up_clone(place).told(*arguments)["argv"] == arguments


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["--no-setup"], []),
        (["--no-setup", "matrix", "-x"], ["matrix", "-x"]),
        (["matrix", "--no-setup", "a b", ""], ["matrix", "a b", ""]),
        (["--quiet", "--no-setup", "matrix"], ["--quiet", "matrix"]),
        (["matrix", "-k", "--no-setup"], ["matrix", "-k", "--no-setup"]),
        (["boot", "vmlinux", "--no-setup"], ["boot", "vmlinux", "--no-setup"]),
        (["--no-setup", "matrix", "--no-setup"], ["matrix", "--no-setup"]),
    ],
)
def test_no_setup_is_the_launchers_only_where_it_is_its_own(
    given: list[str], kept: list[str]
) -> None:
    assert without_no_setup(given) == (kept, kept == given)


def test_no_setup_ends_at_the_launcher(place: Path) -> None:
    clone = set_up_clone(place)
    assert clone.told("matrix", "--no-setup", "a b", "")["argv"] == ["matrix", "a b", ""]
    kept = ["boot", "vmlinux", "--no-setup"]
    assert clone.told(*kept)["argv"] == kept


def test_it_starts_from_any_directory_through_links_and_keeps_the_directory(place: Path) -> None:
    clone = set_up_clone(place)
    elsewhere = place / "else where" / "deep"
    elsewhere.mkdir(parents=True)
    (elsewhere / "first").symlink_to("../second")
    (elsewhere.parent / "second").symlink_to(clone.root / "bootproof")
    for program in (elsewhere / "first", Path("first"), Path("./first")):
        clone.environment["PATH"] = f"{elsewhere}:{clone.tools}"
        result = clone.run("x", program=[program], cwd=elsewhere)
        told = json.loads(result.stdout)
        assert (told["cwd"], told["path"]) == (str(elsewhere), str(clone.root / "src"))


def test_it_starts_when_given_to_a_shell_by_bare_name(place: Path) -> None:
    clone = set_up_clone(place)
    result = clone.run("x", program=["/bin/sh", "bootproof"], cwd=clone.root)
    assert json.loads(result.stdout)["path"] == str(clone.root / "src")


def test_modules_of_the_user_never_come_before_ours(place: Path) -> None:
    clone = set_up_clone(place)
    stranger = place / "stranger"
    (stranger / "bootproof" / "harness").mkdir(parents=True)
    (stranger / "bootproof" / "harness" / "cli.py").write_text(
        "raise SystemExit('the wrong module')"
    )
    clone.environment |= {"PYTHONPATH": str(stranger), "PYTHONHOME": "/nowhere"}
    told = clone.told("x", cwd=stranger)
    assert (told["path"], told["home"]) == (str(clone.root / "src"), None)


def test_it_becomes_the_command_line_so_that_signals_and_exit_codes_are_its_own(
    place: Path,
) -> None:
    clone = set_up_clone(place)
    assert clone.run("fail").returncode == 7
    command: list[str | Path] = [clone.root / "bootproof", "wait"]
    environment = clone.everything_in_the_environment
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["pid"] == process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM


def test_once_set_up_it_runs_two_programs_and_looks_at_nothing_else(place: Path) -> None:
    clone = set_up_clone(place)
    for tool in clone.tools.iterdir():
        if tool.name != "cksum":
            tool.unlink()
    clone.told("matrix")


@pytest.mark.parametrize("variable", ["absolute", "relative"])
def test_another_virtual_environment_can_be_named(place: Path, variable: str) -> None:
    clone = set_up_clone(place)
    clone.venv.rename(place / "my venv")
    clone.environment["BOOTPROOF_VENV"] = {"absolute": f"{place}/my venv", "relative": "my venv"}[
        variable
    ]
    assert clone.told("x", cwd=place)["argv"] == ["x"]
    (place / "my venv" / "bootproof.stamp").unlink()
    assert f"{USERS_PACKAGES} in {place}/my venv;" in clone.run("--no-setup", "matrix").stderr


# --- what makes a set-up stale -----------------------------------------------------------------


def is_set_up(clone: Clone) -> bool:
    result = clone.run("--no-setup", "matrix")
    assert result.returncode in (0, 2)
    return result.returncode == 0


def test_changed_requirements_need_a_new_set_up(place: Path) -> None:
    clone = set_up_clone(place)
    assert is_set_up(clone)
    with (clone.root / "requirements.txt").open("a") as requirements:
        requirements.write("rich==15.0.0\n")
    assert not is_set_up(clone)


def test_the_projects_own_tests_need_more_packages(place: Path) -> None:
    clone = set_up_clone(place)
    assert clone.told("--no-setup", "fuzz")["argv"] == ["fuzz"]
    clone.add_qemu("x86_64")
    clone.add_qemu("aarch64")
    assert only_line(clone.run("--no-setup", "test").stderr) == (
        f"bootproof: not set up, and --no-setup forbids it; missing: {DEVELOPERS_PACKAGES} in"
        f" {clone.venv}; ./bootproof setup installs them"
    )
    stamp = (clone.venv / "bootproof.stamp").read_text()
    clone.stamp(f"{stamp}{clone.checksum('requirements-dev.txt')}\n")
    for command in ("test", "matrix"):
        assert clone.told(command)["argv"] == [command]


@pytest.mark.parametrize("text", ["", "making\n", "installing\n", "12 34", "12 34\n/bin/true\n"])
def test_a_set_up_that_was_cut_off_does_not_count(place: Path, text: str) -> None:
    clone = set_up_clone(place)
    clone.stamp(text)
    assert not is_set_up(clone)


def test_a_virtual_environment_whose_python_is_gone_or_another_does_not_count(place: Path) -> None:
    clone = set_up_clone(place)
    python = clone.venv / "bin" / "python"
    for target in ("/nowhere/python3.11", "/bin/true"):
        python.unlink()
        python.symlink_to(target)
        assert not is_set_up(clone)


def test_setup_itself_looks_again_at_what_the_system_has(place: Path) -> None:
    clone = set_up_clone(place)
    assert clone.told("matrix")["argv"] == ["matrix"]
    assert clone.told("setup", "--no-setup")["argv"] == ["setup"]
    refused = clone.run("setup")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("bootproof: missing: qemu-system-x86 (")
    clone.add_qemu("x86_64")
    assert clone.run("setup").stderr == (
        "bootproof: going on without qemu-system-arm (QEMU 7.2 or newer for aarch64 guests)\n"
    )
    clone.add_qemu("aarch64")
    assert clone.told("setup")["argv"] == ["setup"]


# --- before the set-up -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "begin"),
    [(["--help"], "usage: bootproof "), (["matrix", "-h"], "usage: bootproof matrix ")],
)
def test_help_comes_without_a_set_up_and_says_so(
    clone: Clone, arguments: list[str], begin: str
) -> None:
    result = clone.run(*arguments)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(begin)
    assert "not set up yet" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert not clone.venv.exists()


def test_help_about_the_set_up_knows_that_it_is_done(place: Path) -> None:
    result = set_up_clone(place).run("setup", "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("usage: bootproof setup ")
    assert "not set up yet" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "command"),
    [([], ""), (["matrx"], ""), (["matrix", "--kernle", "x"], " matrix")],
)
def test_a_mistake_installs_nothing(clone: Clone, arguments: list[str], command: str) -> None:
    clone.add_recorder("apt-get")
    result = clone.run(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert only_line(result.stderr).endswith(f"(see bootproof{command} --help)")
    assert (clone.calls, clone.venv.exists()) == ([], False)


def test_the_version_comes_without_a_set_up(clone: Clone) -> None:
    assert clone.run("--version").stdout == "bootproof 0.1.0\n"


@pytest.mark.parametrize("arguments", [["--no-setup", "matrix"], ["matrix", "--no-setup", "-x"]])
def test_no_setup_says_in_one_line_what_is_missing(clone: Clone, arguments: list[str]) -> None:
    clone.add_recorder("apt-get")
    clone.add_qemu("x86_64")
    result = clone.run(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert only_line(result.stderr) == (
        "bootproof: not set up, and --no-setup forbids it; missing: qemu-system-arm (QEMU 7.2 or"
        f" newer for aarch64 guests), {USERS_PACKAGES} in {clone.venv};"
        " ./bootproof setup installs them"
    )
    assert (clone.calls, clone.venv.exists()) == ([], False)


@pytest.mark.parametrize(
    ("version", "fits"),
    [
        ("7.2.0", True),
        ("7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)", True),
        ("7.10.0", True),
        ("8.0.0", True),
        ("10.0.2", True),
        ("11.1.3", True),
        ("7.1.9", False),
        ("5.2.0", False),
        ("2.11.1", False),
        ("unknown", False),
    ],
)
def test_qemu_is_taken_from_7_2_on(
    place: Path, monkeypatch: pytest.MonkeyPatch, version: str, fits: bool
) -> None:
    clone = Clone(place, place, BASE_PYTHON)
    clone.add_qemu("x86_64", version)
    monkeypatch.setenv("PATH", str(clone.tools))
    monkeypatch.delenv("BOOTPROOF_QEMU_X86_64", raising=False)
    needs.look_again()
    found = next(needs.emulators())
    needs.look_again()
    assert (found.name, not found.state.is_trouble) == ("QEMU for x86_64", fits)


def test_a_qemu_that_is_too_old_is_missing(clone: Clone) -> None:
    clone.add_qemu("x86_64", "7.1.9")
    assert "missing: qemu-system-x86 (" in clone.run("--no-setup", "matrix").stderr


def test_a_qemu_of_the_users_own_counts_and_none_does_without(clone: Clone) -> None:
    clone.environment["BOOTPROOF_QEMU_X86_64"] = str(
        clone.add_qemu("mine", "9.0.0").rename(clone.root.parent / "my qemu")
    )
    clone.environment["BOOTPROOF_QEMU_AARCH64"] = "none"
    assert only_line(clone.run("--no-setup", "matrix").stderr) == (
        f"bootproof: not set up, and --no-setup forbids it; missing: {USERS_PACKAGES} in"
        f" {clone.venv}; ./bootproof setup installs them"
    )


@pytest.mark.parametrize(
    ("version", "problem"),
    [(None, "cannot be run as QEMU: "), ("5.2.0", "QEMU 5.2.0 is too old; ")],
)
def test_a_qemu_of_the_users_own_that_cannot_be_used_is_named(
    clone: Clone, version: str | None, problem: str
) -> None:
    clone.add_recorder("apt-get")
    qemu = clone.tools / "my-qemu"
    if version:
        clone.add_qemu("mine", version).rename(qemu)
    clone.environment["BOOTPROOF_QEMU_AARCH64"] = str(qemu)
    result = clone.run("matrix")
    assert result.returncode == 2
    assert only_line(result.stderr).startswith(f"bootproof: {qemu}: {problem}")
    assert only_line(result.stderr).endswith("; correct BOOTPROOF_QEMU_AARCH64")
    assert clone.calls == []


def test_without_apt_it_names_the_packages_of_three_package_managers(clone: Clone) -> None:
    result = clone.run("matrix")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        (
            "bootproof: missing: qemu-system-x86 (QEMU 7.2 or newer for x86_64 guests),"
            " qemu-system-arm (QEMU 7.2 or newer for aarch64 guests)."
            " There is no apt-get here; install it by hand and run again:"
        ),
        "bootproof:   sudo apt-get install qemu-system-x86 qemu-system-arm",
        "bootproof:   sudo dnf install qemu-system-x86 qemu-system-aarch64",
        "bootproof:   sudo pacman -S qemu-system-x86 qemu-system-aarch64",
    ]
    assert not clone.venv.exists()


def test_without_apt_one_qemu_is_enough_to_go_on(clone: Clone) -> None:
    clone.add_qemu("x86_64")
    clone.environment["BOOTPROOF_VENV"] = str(clone.tools)  # which ends the set-up there
    lines = clone.run("matrix").stderr.splitlines()
    assert lines == [
        "bootproof: going on without qemu-system-arm (QEMU 7.2 or newer for aarch64 guests)",
        (
            f"bootproof: {clone.tools} is not a virtual environment;"
            " let BOOTPROOF_VENV name a new directory"
        ),
    ]


def test_a_directory_of_the_users_is_never_taken_for_a_virtual_environment(clone: Clone) -> None:
    clone.add_qemu("x86_64")
    clone.add_qemu("aarch64")
    mine = clone.root.parent / "mine"
    (mine / "bin").mkdir(parents=True)
    clone.environment["BOOTPROOF_VENV"] = str(mine)
    result = clone.run("setup")
    assert result.returncode == 2
    assert "is not a virtual environment" in only_line(result.stderr)
    assert [path.name for path in mine.iterdir()] == ["bin"]


@pytest.mark.parametrize("found", [None, "3.9.18", "3.10.13"])
def test_an_older_python_is_refused(clone: Clone, found: str | None) -> None:
    (clone.tools / "python3").unlink()
    if found:
        pretend = f"import sys; sys.version_info = {tuple(map(int, found.split('.')))}"
        clone.add_tool("python3", f'exec "{BASE_PYTHON}" -c "{pretend}\n$3"')
    result = clone.run("matrix")
    assert result.returncode == 2
    note = f" (python3 is {found})" if found else ""
    assert result.stderr.splitlines() == [
        f"bootproof: Python 3.11 or newer is needed{note}; install it and run again:",
        "bootproof:   sudo apt-get install python3",
        "bootproof:   sudo dnf install python3",
        "bootproof:   sudo pacman -S python",
    ]


def test_a_newer_python_under_another_name_is_found(clone: Clone) -> None:
    (clone.tools / "python3").rename(clone.tools / "python3.12")
    clone.add_tool("python3", "echo 3.9.18; exit 1")
    assert USERS_PACKAGES in only_line(clone.run("--no-setup", "matrix").stderr)


def test_a_python_that_only_the_virtual_environment_has_is_found(clone: Clone) -> None:
    """A user made it with a Python that is not on the PATH."""
    (clone.tools / "python3").rename(clone.tools.parent / "elsewhere")
    (clone.venv / "bin").mkdir(parents=True)
    (clone.venv / "bin" / "python").symlink_to(clone.tools.parent / "elsewhere")
    assert USERS_PACKAGES in only_line(clone.run("--no-setup", "matrix").stderr)


def test_a_virtual_environment_of_an_older_python_is_refused(clone: Clone) -> None:
    clone.add_qemu("x86_64")
    clone.add_qemu("aarch64")
    python = clone.venv / "bin" / "python"
    python.parent.mkdir(parents=True)
    (clone.venv / "pyvenv.cfg").touch()
    pretend = "import platform; platform.python_version = lambda: '3.10.13'"
    python.write_text(f'#!/bin/sh\nexec "{BASE_PYTHON}" -I -c "{pretend}\n$3"')
    python.chmod(0o755)
    result = clone.run("setup")
    assert result.returncode == 2
    assert only_line(result.stderr) == (
        f"bootproof: {clone.venv} is of Python 3.10.13, and 3.11 or newer is needed; remove it, or"
        " let BOOTPROOF_VENV name another"
    )
    assert sorted(path.name for path in clone.venv.iterdir()) == ["bin", "pyvenv.cfg"]


def test_a_clone_with_a_colon_in_its_path_is_refused(place: Path) -> None:
    clone = make_clone(place, name="a:b")
    result = clone.run("matrix")
    assert result.returncode == 2
    assert "a path with a colon in it" in only_line(result.stderr)


def test_doctor_needs_no_set_up_and_makes_none(place: Path) -> None:
    environment = {**os.environ, "BOOTPROOF_VENV": f"{place}/venv", "PYTHONDONTWRITEBYTECODE": "1"}
    command: list[str | Path] = [ROOT / "bootproof", "doctor"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (2, "")
    assert "missing   virtual environment" in result.stdout
    assert not (place / "venv").exists()


# --- what is asked of apt-get and sudo -----------------------------------------------------------

SIGNATURES_CAN_BE_CHECKED = shutil.which("gpgv") is not None and any(
    Path(f"/usr/share/keyrings/debian-archive-keyring.{end}").exists() for end in ("gpg", "pgp")
)
needs_signatures = pytest.mark.skipif(
    not SIGNATURES_CAN_BE_CHECKED, reason="else more is asked for: gpgv or the keyring is missing"
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="asks apt-get directly only under root")
INSTALL = (
    "noninteractive apt-get install --reinstall -qq -y --no-install-recommends --no-remove"
    " -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0"
)


@needs_root
@needs_signatures
def test_only_what_is_missing_is_asked_of_apt_and_looked_for_afterwards(clone: Clone) -> None:
    clone.link("gpgv")
    clone.add_qemu("aarch64")
    clone.add_recorder("apt-get")
    result = clone.run("matrix")
    assert clone.calls == [
        "noninteractive apt-get update -qq",
        f"{INSTALL} qemu-system-x86 --download-only",
        f"{INSTALL} qemu-system-x86 --no-download",
    ]
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        "bootproof: setting up; this gets installed now:",
        "bootproof:   qemu-system-x86: QEMU 7.2 or newer for x86_64 guests",
        f"bootproof:   {clone.venv}: a virtual environment with {USERS_PACKAGES}",
        "bootproof: installing with apt",
        (
            "bootproof: still missing after apt-get: qemu-system-x86 (QEMU 7.2 or newer for x86_64"
            " guests)"
        ),
    ]


@needs_root
@needs_signatures
def test_a_firmware_that_is_not_there_is_asked_of_apt(clone: Clone) -> None:
    """The QEMU is Debian's and real, in a place with none of its data; its package is installed."""
    for tool in ("gpgv", "dpkg-query"):
        clone.link(tool)
    for arch in ("x86_64", "aarch64"):
        clone.add_qemu(arch)
    shutil.copy(shutil.which("qemu-system-riscv64") or "", clone.tools)
    clone.environment["BOOTPROOF_QEMU_RISCV64"] = ""
    clone.add_recorder("apt-get")
    result = clone.run("matrix")
    update, *install = clone.calls
    assert update == "noninteractive apt-get update -qq"
    (package,) = {call.removeprefix(f"{INSTALL} ").partition(" ")[0] for call in install}
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == (
        f"bootproof: still missing after apt-get: {package} (OpenSBI, which riscv64 guests start"
        " in)"
    )


@needs_root
@needs_signatures
def test_a_refusal_of_apt_ends_the_set_up_with_its_reason(clone: Clone) -> None:
    clone.link("gpgv")
    clone.add_qemu("aarch64")
    clone.add_recorder("apt-get", 'echo "E: no such package" >&2; exit 100')
    result = clone.run("matrix")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-4:] == [
        "E: no such package",
        "bootproof: apt-get update failed; going on with the package lists that are here",
        "E: no such package",
        "bootproof: apt-get could not install qemu-system-x86 (its reason is above)",
    ]


SLOW = """case "$*" in *--no-download*)
    tries=500
    while [ ! -e "%s/go" ] && [ $tries -gt 0 ]; do sleep 0.02; tries=$((tries - 1)); done
    echo "end of installation" >>"%s/calls.log"
esac"""


@pytest.fixture
def slow(clone: Clone) -> Clone:
    """A clone whose apt-get is at its installation until the file `go` is there (at most 10 s)."""
    clone.add_qemu("aarch64")
    clone.link("sleep")
    place = clone.root.parent
    clone.add_recorder("apt-get", SLOW % (place, place))
    return clone


def let_go(clone: Clone) -> None:
    (clone.root.parent / "go").touch()


def start(clone: Clone) -> subprocess.Popen[str]:
    command: list[str | Path] = [clone.root / "bootproof", "matrix"]
    environment = clone.everything_in_the_environment
    return subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for_installation(clone: Clone) -> None:
    deadline = time.monotonic() + 30
    while not any("--no-download" in call for call in clone.calls):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_for_line(process: subprocess.Popen[str], wanted: str) -> None:
    assert process.stderr is not None
    assert any(line == wanted for line in process.stderr), wanted


@needs_root
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_all_is_obeyed_when_the_installation_has_ended(
    slow: Clone, number: signal.Signals
) -> None:
    with start(slow) as process:
        wait_for_installation(slow)
        os.killpg(process.pid, number)  # as a terminal does
        wait_for_line(process, "bootproof: ending as soon as dpkg is done\n")
        let_go(slow)
        wait_for_line(process, "bootproof: interrupted; the same command goes on from here\n")
    assert process.returncode == -number
    assert slow.calls[-1] == "end of installation"


@needs_root
@needs_signatures
def test_a_second_set_up_waits_for_the_first(slow: Clone) -> None:
    slow.link("gpgv")
    with start(slow) as first, start_after_installation(slow) as second:
        wait_for_line(second, "bootproof: another set-up is at work; waiting for it\n")
        let_go(slow)
        first.communicate(timeout=30)
        second.communicate(timeout=30)
    ends = [number for number, call in enumerate(slow.calls) if call == "end of installation"]
    assert (ends, len(slow.calls)) == ([3, 7], 8)


def start_after_installation(clone: Clone) -> subprocess.Popen[str]:
    wait_for_installation(clone)
    return start(clone)


@pytest.fixture
def silent_index() -> Iterator[str]:
    """A package index that takes requests and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"


@pytest.mark.skipif(pip_wheel() is None, reason="this Python has no pip for virtual environments")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_pip_at_once_and_leaves_nothing_behind(
    clone: Clone, silent_index: str, number: signal.Signals
) -> None:
    clone.add_qemu("x86_64")
    clone.add_qemu("aarch64")
    clone.environment |= {"PIP_INDEX_URL": silent_index, "PIP_CONFIG_FILE": "/dev/null"}
    with start(clone) as process:
        wait_for_line(process, "bootproof: installing the Python packages\n")
        while not (clone.venv / "tmp").exists():
            time.sleep(0.01)
        process.send_signal(number)
        wait_for_line(process, "bootproof: interrupted; the same command goes on from here\n")
        assert process.stderr is not None
        assert process.stderr.read() == ""  # closed: pip, which has it too, is gone
    assert process.returncode == -number
    assert not (clone.venv / "tmp").exists()
    assert not is_set_up(clone)


@pytest.fixture
def ordinary_user(place: Path) -> Clone:
    """A clone that a user who is not root runs, with a Python that this user can reach."""
    if os.geteuid() != 0:
        return make_clone(place)
    setpriv = shutil.which("setpriv")
    if setpriv is None or not Path(SYSTEM_PYTHON).exists():
        pytest.skip("needs setpriv and a Python of the system to become another user")
    clone = make_clone(place, SYSTEM_PYTHON)
    clone.user = [setpriv, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
    return clone


def test_without_root_and_sudo_it_asks_for_nothing_and_names_the_packages(
    ordinary_user: Clone,
) -> None:
    clone = ordinary_user
    clone.add_recorder("apt-get")
    clone.add_qemu("x86_64")
    for refusal in ("", "exit 1"):
        if refusal:
            clone.add_tool("sudo", refusal)
        result = clone.run("matrix")
        assert result.returncode == 2
        assert [line for line in result.stderr.splitlines() if "venv" not in line] == [
            (
                "bootproof: missing: qemu-system-arm (QEMU 7.2 or newer for aarch64 guests)."
                " Not root, and `sudo -n` was refused; install it by hand and run again:"
            ),
            "bootproof:   sudo apt-get install qemu-system-arm",
            "bootproof:   sudo dnf install qemu-system-aarch64",
            "bootproof:   sudo pacman -S qemu-system-aarch64",
        ]
    assert clone.calls == []


@needs_signatures
def test_without_root_it_goes_through_sudo_that_asks_no_password(ordinary_user: Clone) -> None:
    clone = ordinary_user
    clone.link("gpgv")
    clone.root.chmod(0o777)
    clone.add_qemu("x86_64")
    clone.add_recorder("apt-get")
    clone.add_tool("sudo", f'echo "sudo $*" >>"{clone.log}"; [ "$1" = -n ] && shift; exec "$@"')
    result = clone.run("matrix")
    assert result.returncode == 2, result.stderr
    assert clone.calls[:3] == [
        "sudo -n true",
        "sudo -n env DEBIAN_FRONTEND=noninteractive apt-get update -qq",
        "noninteractive apt-get update -qq",
    ]
    assert clone.calls[-1] == f"{INSTALL} qemu-system-arm --no-download"


def test_a_clone_that_cannot_be_written_is_said_to_be_so(ordinary_user: Clone) -> None:
    clone = ordinary_user
    clone.root.chmod(0o555)
    clone.add_qemu("x86_64")
    clone.add_qemu("aarch64")
    if "python3" in clone.run("--no-setup", "matrix").stderr:
        pytest.skip("this system's Python cannot make virtual environments")
    result = clone.run("matrix")
    refusal = (
        f"bootproof: {clone.venv} cannot be written; let BOOTPROOF_VENV name a directory that can"
    )
    assert (result.returncode, only_line(result.stderr)) == (2, refusal)
    if os.geteuid() == 0:  # a virtual environment that another user has made
        clone.set_up()
        assert clone.told("setup")["argv"] == ["setup"]
        clone.stamp("stale\n")
        assert only_line(clone.run("matrix").stderr) == refusal


# --- the script itself -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shell", ["dash", "bash --posix", "busybox sh", "ksh", "mksh", "zsh --emulate sh"]
)
def test_every_posix_shell_will_do(place: Path, shell: str) -> None:
    program, *options = shell.split()
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    clone = make_clone(place)
    command: list[str | Path] = [found, *options, clone.root / "bootproof"]
    refused = clone.run("matrix", program=command)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 4)
    clone.set_up()
    told = json.loads(clone.run("--no-setup", "a b", program=command).stdout)
    assert told["argv"] == ["a b"]


def test_shellcheck_has_nothing_to_say() -> None:
    scripts = (ROOT / "bootproof", *(ROOT / ".ci").iterdir())
    command: list[str | Path] = [host_program("shellcheck"), *scripts]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")
