"""Directories of the user's in a guest: what goes in, and what is refused."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bootproof.harness.errors import UserError
from bootproof.harness.inputs import images, overlay
from bootproof.loader import cpio, initramfs
from tests.builders.programs import host_program


def unpacked(data: bytes, directory: Path) -> Path:
    """What busybox makes of an archive, a second opinion."""
    directory.mkdir()
    command = [host_program("busybox"), "cpio", "-id"]
    subprocess.run(command, cwd=directory, input=data, check=True, capture_output=True)
    return directory


def test_files_links_and_permissions(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    (first / "opt" / "empty").mkdir(parents=True)
    (first / "opt" / "run").write_bytes(b"one")
    (first / "opt" / "run").chmod(0o755)
    (first / "link").symlink_to("opt/run")
    (first / "dir-link").symlink_to("opt")
    (first / "ünï").write_bytes(b"name")
    (second / "opt").mkdir(parents=True)
    (second / "opt" / "run").write_bytes(b"two")
    (second / "opt" / "run").chmod(0o750)
    data = overlay.archive([str(first), str(second)], ["echo hello"])
    cpio.check(data.replace(b"bootproof/", b"elsewhere/"), "it", initramfs.OURS)
    found = unpacked(data, tmp_path / "found")
    assert (found / "opt" / "run").read_bytes() == b"two"  # the later one wins
    assert (found / "opt" / "run").stat().st_mode & 0o7777 == 0o750
    assert (found / "opt" / "empty").is_dir()
    assert [str((found / name).readlink()) for name in ("link", "dir-link")] == ["opt/run", "opt"]
    assert (found / "ünï").read_bytes() == b"name"
    assert (found / "bootproof" / "tests" / "000001").read_text() == "echo hello\n"
    assert os.access(found / "bootproof" / "run-tests", os.X_OK)


def test_the_same_files_are_the_same_bytes(tmp_path: Path) -> None:
    archives = set()
    for name, order in (("a", (1, 2, 3)), ("b", (3, 1, 2))):
        for number in order:
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"f{number}").write_bytes(b"%d" % number)
        archives.add(overlay.archive([str(tmp_path / name)], []))
    assert len(archives) == 1


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("missing", "is no directory"),
        ("file", "is no directory"),
        ("fifo", "is no file, directory or link"),
        ("ours", "is where the proof's own files are"),
        ("bytes", "has a name that is not in UTF-8"),
    ],
)
def test_what_is_refused(what: str, words: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    if what == "file":
        root.write_bytes(b"")
    elif what != "missing":
        root.mkdir()
    if what == "fifo":
        os.mkfifo(root / "fifo")
    elif what == "ours":
        (root / "bootproof").mkdir()
    elif what == "bytes":
        (root / "caf\udce9").write_bytes(b"")
    with pytest.raises(UserError, match=f"{words}.*--overlay"):
        overlay.archive([str(root)], [])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"", "no device tree|too short"),
        (b"\xd0\x0d\xfe\xed" + bytes(60), "device tree"),
        (bytes(3 << 20), "more than 2 MiB are not read"),
    ],
)
def test_device_trees_that_are_none(content: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.dtb"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"a.dtb: .*(?:{words}).*--dtb"):
        images.read_dtb(path)


def test_device_tree_in_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.dtb")
    with pytest.raises(UserError, match=r"a.dtb: is not a regular file; .*\(--dtb\)"):
        images.read_dtb(tmp_path / "a.dtb")


@pytest.mark.parametrize("size", [2 << 30, 1 << 42])
def test_nothing_is_read_of_what_is_too_large(size: int, tmp_path: Path) -> None:
    """As /proc/kcore is, where the directory is / by mistake."""
    (tmp_path / "file").touch()
    os.truncate(tmp_path / "file", size)
    with pytest.raises(UserError) as refused:
        overlay.archive([str(tmp_path)], [])
    assert str(refused.value) == f"{tmp_path}: holds more than 1 GiB of files (--overlay)"


def test_a_file_that_has_more_than_its_size_says() -> None:
    """To read some of them to their end would never end."""
    with pytest.raises(UserError, match=r"^/proc/self/net/.*--overlay"):
        overlay.archive(["/proc/self/net"], [])
