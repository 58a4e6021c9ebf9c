"""The QEMU that is found, the one that is named, and what is no QEMU."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from bootproof.harness.errors import UserError
from bootproof.harness.host.to_end import run_to_end
from bootproof.harness.qemu import binary
from bootproof.harness.qemu.binary import find_qemu, qemu_version, version_text

SYSTEM_QEMU = "qemu-system-x86_64"


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_found_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = script(tmp_path / SYSTEM_QEMU, "echo QEMU emulator version 9.1.2 '(Debian)'")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    found = find_qemu("x86_64")
    assert (found.path, found.version) == (str(fake), (9, 1, 2))
    assert str(found) == "qemu-system-x86_64 9.1.2"


def test_the_one_named_wins_and_may_be_named_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QEMU is started in its run directory: there a relative path would lead somewhere else."""
    script(tmp_path / "mine", "echo QEMU emulator version 7.2.0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOOTPROOF_QEMU_X86_64", "./mine")
    assert find_qemu("x86_64").path == str(tmp_path / "mine")


def test_the_current_directory_is_none_of_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"{tmp_path}/{SYSTEM_QEMU}: cannot be run as QEMU"):
        find_qemu("x86_64", ".")


def test_a_bare_name_is_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "other-qemu", "echo QEMU emulator version 7.2.0")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("BOOTPROOF_QEMU_X86_64", "other-qemu")
    assert find_qemu("x86_64").path == str(tmp_path / "other-qemu")


def test_a_bare_name_that_is_not_on_the_path_is_a_file_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_text("no program")
    with pytest.raises(UserError, match=f"{tmp_path}/mine: cannot be run as QEMU: Permission den"):
        find_qemu("x86_64", "mine")


def test_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError) as refused:
        find_qemu("aarch64")
    assert str(refused.value) == (
        "qemu-system-aarch64 is not installed; run `./bootproof setup`, or name one in"
        " BOOTPROOF_QEMU_AARCH64"
    )


def test_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOTPROOF_QEMU_X86_64", "none")
    with pytest.raises(UserError) as refused:
        find_qemu("x86_64")
    assert str(refused.value) == "QEMU for x86_64 is switched off by BOOTPROOF_QEMU_X86_64=none"


def test_a_name_that_no_file_can_have() -> None:
    with pytest.raises(UserError, match=r"x: cannot be run as QEMU: File name too long$"):
        find_qemu("x86_64", "x" * 300)


def test_directory_has_one_for_each_guest(tmp_path: Path) -> None:
    """Of one build: only so can a whole matrix run on it. One of another guest is refused."""
    for name in ("qemu-system-x86_64", "qemu-system-aarch64"):
        script(tmp_path / name, "echo QEMU emulator version 9.9.9")
        assert find_qemu(name.removeprefix("qemu-system-"), str(tmp_path)).path == str(
            tmp_path / name
        )
    with pytest.raises(UserError) as refused:
        find_qemu("x86_64", str(tmp_path / "qemu-system-aarch64"))
    assert str(refused.value) == (
        f"{tmp_path}/qemu-system-aarch64: is no QEMU for x86_64; name the directory that has"
        " qemu-system-x86_64 too"
    )


@pytest.mark.parametrize("version", ["7.1.0", "7.1.94", "2.12.1"])
def test_too_old(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = script(tmp_path / "old", f"echo QEMU emulator version {version}")
    monkeypatch.setenv("BOOTPROOF_QEMU_X86_64", str(old))
    with pytest.raises(UserError) as refused:
        find_qemu("x86_64")
    sentence = f"{old}: QEMU {version} is too old; bootproof needs 7.2.0 or newer"
    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo hello", "hello"),
        ("echo complaint >&2; exit 3", "complaint"),
        ("exit 0", "nothing"),
        ("echo 'GNU bash, version 5.2.15(1)-release'", "GNU bash, version 5.2.15(1)-release"),
        ("echo 'git version 9.39.2'", "git version 9.39.2"),
        (r"printf '\377\376\n'", r"\xff\xfe"),
        (r"printf 'red \033[31m\nmore\n'", r"red \x1b[31m"),
    ],
)
def test_not_qemu(text: str, said: str, tmp_path: Path) -> None:
    path = script(tmp_path / "other", text)
    with pytest.raises(UserError) as refused:
        qemu_version(str(path))
    assert str(refused.value) == f"{path}: does not look like QEMU; `--version` said: {said}"


@pytest.mark.parametrize("kind", ["missing", "directory", "not executable", "no program", "fifo"])
def test_cannot_be_run(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "qemu"
    if kind == "directory":
        path.mkdir()
    elif kind == "not executable":
        path.write_text("#!/bin/sh\n")
    elif kind == "fifo":
        os.mkfifo(path, 0o755)
    elif kind == "no program":
        path.write_bytes(b"\x7fELF garbage")
        path.chmod(0o755)
    with pytest.raises(UserError) as refused:
        qemu_version(str(path))
    assert str(refused.value).startswith(f"{path}: cannot be run as QEMU: ")
    assert "\n" not in str(refused.value)


def test_real_version() -> None:
    asked = [SYSTEM_QEMU, "--version"]
    said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    version = ".".join(map(str, find_qemu("x86_64").version))
    assert f"QEMU emulator version {version} " in said.replace("\n", " ")


def test_a_program_is_asked_for_its_version_once(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By all processes together. What starts another program is asked by each: a script, and a name
    for what has another name itself.
    """
    program = tmp_path / "qemu"
    real = shutil.which(SYSTEM_QEMU) or ""
    (tmp_path / "name").symlink_to(program)
    script(tmp_path / "script", f'exec {real} "$@"')
    asked: list[list[str]] = []

    def noted(words: list[str], seconds: float) -> subprocess.CompletedProcess[bytes]:
        asked.append(words)
        return run_to_end(words, seconds)

    monkeypatch.setattr("bootproof.harness.qemu.binary.run_to_end", noted)
    for _ in range(2):
        shutil.copy(real, program)  # another one, in the same place
        for name, times in (("qemu", 1), ("name", 3), ("script", 3)):
            for _process in range(3):
                binary.forget()
                assert qemu_version(str(tmp_path / name)) >= binary.QEMU_MINIMUM
            assert asked == [[str(tmp_path / name), "--version"]] * times
            asked.clear()


def test_a_qemu_that_was_replaced_is_another_one(own_cache: Path, tmp_path: Path) -> None:
    """As by an upgrade of its package in the middle of a run, whose results must not name it."""
    program = tmp_path / "qemu-system-x86_64"
    shutil.copy(find_qemu("x86_64").path, program)
    before = find_qemu("x86_64", str(program)).version
    other = ".".join(map(str, (*before[:2], before[2] + 1)))
    said = program.read_bytes().replace(f"{version_text(before)} (".encode(), f"{other} (".encode())
    (tmp_path / "new").write_bytes(said)
    (tmp_path / "new").chmod(0o755)
    (tmp_path / "new").replace(program)
    assert version_text(find_qemu("x86_64", str(program)).version) == other
    assert binary.build_of(str(program)).startswith(other)
