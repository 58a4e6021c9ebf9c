"""What goes out of the cache, in which order, and what never does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bootproof.kernels import content, pruning
from bootproof.kernels.cache import DERIVED, Cache, CachedFile
from tests.builders.processes import environment

KIB64 = b"x" * (64 << 10)
LONG_AGO = time.time() - 10_000
_READING = """
import sys, time
from pathlib import Path
from bootproof.kernels import content
from bootproof.kernels.cache import CachedFile
content.of_cached(CachedFile(Path(sys.argv[1]), "0"))
print("reads", flush=True)
time.sleep(60)
"""


def made(room: Path, *names: str) -> list[Path]:
    """Entries of 64 KiB and a little; the first was unused the longest."""
    folders = []
    for age, name in enumerate(names):
        folder = room / name
        folder.mkdir(parents=True)
        (folder / "kernel").write_bytes(KIB64)
        (folder / "meta.json").write_text("{}")
        os.utime(folder, (LONG_AGO + age, LONG_AGO + age))
        folders.append(folder)
    return folders


def names(room: Path) -> list[str]:
    return sorted(path.name for path in room.iterdir())


def test_longest_unused_goes_first_until_the_rest_fits(tmp_path: Path) -> None:
    made(tmp_path, "b", "a", "d", "c")
    old = tmp_path / "file-of-an-older-bootproof"
    old.write_bytes(KIB64)
    os.utime(old, (LONG_AGO - 1, LONG_AGO - 1))
    gone = pruning.prune(tmp_path, 160 << 10)
    assert [entry.path.name for entry in gone] == [old.name, "b", "a"]
    assert names(tmp_path) == ["c", "d"]
    assert pruning.prune(tmp_path, 160 << 10) == []


def test_no_room_and_nothing_in_it(tmp_path: Path) -> None:
    assert pruning.entries(tmp_path / "none") == pruning.prune(tmp_path / "none", 0) == []


def test_what_is_found_was_used(tmp_path: Path) -> None:
    """In the last minute it is not removed at all: its finder may not have opened it yet."""
    cache = Cache(tmp_path)
    file = cache.file("11", "elf-1", lambda path: path.write_bytes(KIB64), room=DERIVED)
    os.utime(file.path.parent, (LONG_AGO, LONG_AGO))
    made(tmp_path / DERIVED, "other")
    assert cache.find("11", "elf-1", DERIVED) == file
    assert [entry.path.name for entry in pruning.prune(tmp_path / DERIVED, 0)] == ["other"]
    assert cache.find("11", "elf-1", DERIVED) == file


def test_what_another_process_reads_stays(tmp_path: Path) -> None:
    first, second = made(tmp_path, "first", "second")
    with subprocess.Popen(
        [sys.executable, "-c", _READING, first / "kernel"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "reads\n"
        assert [entry.path for entry in pruning.prune(tmp_path, 0)] == [second]
        process.kill()
    assert [entry.path for entry in pruning.prune(tmp_path, 0)] == [first]
    assert names(tmp_path) == []


def test_what_was_opened_before_it_went_is_still_read(tmp_path: Path) -> None:
    """Where locks are not to be had: the content is held open, whatever becomes of the name."""
    (folder,) = made(tmp_path, "one")
    held = content.of_cached(CachedFile(folder / "kernel", "0"))
    (folder / "kernel").unlink()
    assert held.path.read_bytes() == KIB64


def test_what_is_forgotten_is_in_use_until_nobody_refers_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder,) = made(tmp_path, "one")
    monkeypatch.setattr(content, "_HELD", {})
    monkeypatch.setattr(content, "_MOST_OPEN", 0)
    held = content.of_cached(CachedFile(folder / "kernel", "0"))
    assert pruning.prune(tmp_path, 0) == []
    assert held.path.read_bytes() == KIB64
    del held
    assert [entry.path for entry in pruning.prune(tmp_path, 0)] == [folder]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_cache_that_is_read_only_is_left_alone(tmp_path: Path) -> None:
    made(tmp_path, "one")
    tmp_path.chmod(0o555)
    assert pruning.prune(tmp_path, 0) == []
    tmp_path.chmod(0o755)
