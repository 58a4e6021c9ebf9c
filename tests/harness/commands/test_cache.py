"""`bootproof cache`: what it shows, what it removes, and the bound that every run keeps."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from bootproof.harness import cli
from bootproof.harness.errors import UserError
from bootproof.harness.inputs import images
from bootproof.kernels import pruning
from bootproof.kernels.cache import DERIVED
from tests.builders import packings

LONG_AGO = time.time() - 10_000


@pytest.fixture
def cache(own_cache: Path) -> Path:
    for room in (DERIVED, "files"):
        for number in range(3):
            folder = own_cache / room / f"entry{number}"
            folder.mkdir(parents=True)
            (folder / "kernel").write_bytes(bytes(64 << 10))
            os.utime(folder, (LONG_AGO + number, LONG_AGO + number))
    return own_cache


def rooms(cache: Path) -> dict[str, list[str]]:
    return {room: sorted(p.name for p in (cache / room).iterdir()) for room in (DERIVED, "files")}


def test_shows_what_is_there(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cache / "elsewhere").mkdir()
    assert cli.main(["cache"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{cache}\n")
    assert [line.split()[0] for line in said.splitlines()[2:-2]] == [
        *("derived", "received", "files", "parts", "indexes", "elsewhere"),
    ]
    told = "kept are the last used 2 GiB of derived, and of received (BOOTPROOF_CACHE_LIMIT)"
    assert said.splitlines()[-1] == told
    assert max(map(len, said.splitlines()[1:])) <= 80
    assert sum(map(len, rooms(cache).values())) == 6


def test_shows_a_cache_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BOOTPROOF_CACHE", str(tmp_path / "none"))
    assert cli.main(["cache"]) == cli.main(["cache", "--prune"]) == 0
    assert "derived: removed 0" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


def test_prunes_what_can_be_made_again(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cache", "--prune", "--limit", "100K"]) == 0
    assert rooms(cache) == {DERIVED: ["entry2"], "files": ["entry0", "entry1", "entry2"]}
    assert "derived: removed 2" in capsys.readouterr().out
    assert cli.main(["cache", "--prune", "--limit", "0", "--downloads"]) == 0
    assert rooms(cache) == {DERIVED: [], "files": []}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--limit", "1G"], "give it, too"),
        (["--downloads"], "give it, too"),
        (["--prune", "--limit", "much"], "--limit: 'much' is neither a size nor an address"),
    ],
)
def test_mistakes(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cache", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_every_run_keeps_the_bound(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOOTPROOF_CACHE_LIMIT", "100K")
    file = tmp_path / "bzImage"
    file.write_bytes(packings.bzimage(packings.gzip(packings.elf(48 << 10))))
    kernel = images.kernel_file(str(file))
    images.in_format.cache_clear()
    made = images.in_format(kernel, "elf")
    assert rooms(cache)[DERIVED] == [made.path.parent.name]
    assert len(rooms(cache)["files"]) == 3


def test_who_makes_nothing_looks_at_the_cache_once(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Path] = []
    monkeypatch.setattr(pruning, "prune", lambda room, _limit: looked.append(room))
    (tmp_path / "vmlinux").write_bytes(packings.elf(4096))
    kernel = images.kernel_file(str(tmp_path / "vmlinux"))
    for what in ("first", "first", "first", "second", "second"):
        images.derive(kernel, what, lambda path: path.touch())
    assert looked == [cache / DERIVED] * 2


def test_bound_that_is_none(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOTPROOF_CACHE_LIMIT", "plenty")
    file = tmp_path / "bzImage"
    file.write_bytes(packings.bzimage(packings.gzip(packings.elf(4096))))
    images.in_format.cache_clear()
    with pytest.raises(UserError, match="BOOTPROOF_CACHE_LIMIT: 'plenty' is neither"):
        images.in_format(images.kernel_file(str(file)), "elf")


def test_a_cache_that_cannot_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Is no empty one."""
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("BOOTPROOF_CACHE", str(tmp_path / "file" / "cache"))
    assert cli.main(["cache"]) == 2
    said = capsys.readouterr()
    assert (said.out, f"{tmp_path}/file: is no directory; name" in said.err) == ("", True)
