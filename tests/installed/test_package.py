"""The wheel and the sdist, as somebody gets them who never saw the repository."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests import ROOT
from tests.builders import images
from tests.installed.conftest import Environment, environment

pytestmark = pytest.mark.installed

NO_CODE = {".pyc", ".egg-info"}
LOAD = """
from bootproof.loader import Elf, GuestMemory, parse_size

with GuestMemory([(0, parse_size("64M"))]) as memory:
    kernel = Elf().load(memory, "vmlinux", kernel_offset=parse_size("16M"))
print(hex(kernel.kernel_load))
"""


def test_nothing_but_bootproof_in_site_packages(built: Path) -> None:
    """`loader` or `harness` would collide with somebody's own."""
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
    assert tops == {"bootproof", "bootproof-0.1.0.dist-info"}


def test_every_file_of_the_packages_is_in_the_wheel(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        shipped = set(archive.namelist())
    wanted = {
        f"bootproof/{path.relative_to(ROOT)}"
        for package in ("loader", "harness", "kernels", "scenarios")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix not in NO_CODE and "__pycache__" not in path.parts
    }
    assert wanted - shipped == set()


def test_sdist_has_what_its_tests_and_docs_need(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        links = [member.name for member in archive if member.issym() or member.islnk()]
    assert {"bootproof", "conftest.py", "README.md", "requirements-dev.txt"} <= names
    assert {"docs/boot-image.md", "examples/write_boot_image.c", "tests/__init__.py"} <= names
    assert "src/bootproof/loader/elf.py" in names
    assert links == []


def test_the_launcher_of_an_unpacked_sdist_knows_where_it_is(built: Path, tmp_path: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (root,) = tmp_path.iterdir()
    command = [str(root / "bootproof"), "--no-setup", "fuzz"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 2
    assert f"packages of requirements.txt in {root}/.venv;" in said.stderr


def test_version_and_doctor(installed: Environment) -> None:
    assert installed.must("bootproof", "--version") == "bootproof 0.1.0\n"
    assert installed.must("python", "-m", "bootproof", "--version") == "bootproof 0.1.0\n"
    said = installed.run("bootproof", "doctor")
    assert said.returncode == 0, said.stdout
    assert "./bootproof" not in said.stdout


def test_completion(installed: Environment) -> None:
    assert "_shtab_bootproof" in installed.must("bootproof", "completion", "bash")


def test_boot_from_another_directory(installed: Environment) -> None:
    """Run directories go below the current directory, never beside the package."""
    said = installed.must("bootproof", "boot", "6.1-cloud-amd64", "--protocol", "pvh")
    assert "verdict   booted" in said
    assert (installed.cwd / "bootproof-out" / "boot").is_dir()


def test_matrix_lists_the_cases_of_the_clone(installed: Environment) -> None:
    said = installed.must("bootproof", "matrix", "--list")
    assert "x86_64-6.1-cloud-amd64-elf-pvh-none" in said
    assert "aarch64-6.1-cloud-arm64-image-arm64-ram+0" in said


def test_matrix_boots_a_case(installed: Environment) -> None:
    said = installed.must("bootproof", "matrix", "-k", "6.1-cloud-amd64-elf-linux64-none]")
    assert "1 of 1 cases and 1 of 1 other tests as expected" in said
    assert (installed.cwd / "bootproof-out" / "matrix" / "results.json").is_file()


@pytest.mark.parametrize("words", [["test"], ["fuzz"], ["fetch", "--update"]])
def test_what_needs_the_clone_says_so(words: list[str], installed: Environment) -> None:
    said = installed.run("bootproof", *words)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr == (
        f"bootproof: {' '.join(words)}: needs a clone of the repository;"
        " this bootproof is installed\n"
    )


def test_works_where_it_cannot_write(installed: Environment) -> None:
    """A system-wide installation belongs to root; nothing of ours is written beside it."""
    package = next((installed.path / "lib").glob("python3*/site-packages/bootproof"))
    newest = max(path.stat().st_mtime_ns for path in package.rglob("*"))
    installed.must("bootproof", "matrix", "-k", "6.1-cloud-arm64-image-arm64-ram+0]")
    written = [p for p in package.rglob("*") if p.stat().st_mtime_ns > newest]
    assert written == []


def test_sdist_installs_too(built: Path, tmp_path: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    made = environment(tmp_path, [str(sdist)])
    assert made.must("bootproof", "--version") == "bootproof 0.1.0\n"


def test_an_editable_installation_is_the_clone(clone: Path, tmp_path: Path) -> None:
    made = environment(tmp_path, ["-e", str(clone)])
    assert made.must("bootproof", "--version") == "bootproof 0.1.0\n"
    where = "import bootproof.loader.elf as m; print(m.__file__)"
    assert Path(made.must("python", "-c", where).strip()).samefile(clone / "loader" / "elf.py")
    assert f"free in {clone}/build" in made.run("bootproof", "doctor").stdout


def test_the_loader_alone_needs_no_other_package(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    made = environment(tmp_path, ["--no-deps", str(wheel)])
    (tmp_path / "vmlinux").write_bytes(images.elf(images.load(0x100_0000, b"code")))
    (tmp_path / "load.py").write_text(LOAD)
    assert made.must("python", "load.py") == "0x2000000\n"


def test_a_user_of_the_loader_has_its_types(installed: Environment) -> None:
    (installed.cwd / "load.py").write_text(LOAD)
    python = installed.path / "bin" / "python"
    words = ["-m", "mypy", "--strict", "--python-executable", str(python), "load.py"]
    run = subprocess.run(
        [sys.executable, *words], cwd=installed.cwd, capture_output=True, text=True, check=False
    )
    assert run.stdout.startswith("Success: no issues found"), run.stdout
