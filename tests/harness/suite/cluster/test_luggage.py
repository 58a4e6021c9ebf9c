"""Files on their way between the matrix and its workers."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from bootproof.harness.errors import UserError
from bootproof.harness.suite.cluster import luggage
from bootproof.harness.suite.cluster.luggage import Packed, Sent

MIB = 1 << 20


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOTPROOF_CACHE", str(tmp_path / "cache"))


def test_a_directory_arrives_as_it_was_with_its_holes(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    (there / "devices").mkdir(parents=True)
    (there / "devices" / "a").write_bytes(b"small")
    (there / "empty").touch()
    with (there / "ram.img").open("wb") as file:
        file.truncate(512 * MIB)
        for offset in (0, 100 * MIB + 5, 512 * MIB - 3):
            file.seek(offset)
            file.write(b"abc")
    luggage.unpacked(luggage.packed(there), here)
    assert {str(path.relative_to(here)) for path in here.rglob("*")} == {
        *("devices", "devices/a", "empty", "ram.img")
    }
    assert (here / "devices/a").read_bytes() == b"small"
    with (here / "ram.img").open("rb") as file:
        assert os.fstat(file.fileno()).st_blocks * 512 < MIB
        assert os.fstat(file.fileno()).st_size == 512 * MIB
        for offset in (0, 100 * MIB + 5, 512 * MIB - 3):
            assert os.pread(file.fileno(), 3, offset) == b"abc"


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside"])
def test_no_file_leaves_its_directory(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="outside"):
        luggage.unpacked({name: Packed(0, {})}, tmp_path / "here")
    assert not (tmp_path / "outside").exists()


def test_what_was_sent_is_kept_once_and_whole() -> None:
    sent = Sent(hashlib.sha256(b"kernel").hexdigest(), "vmlinuz")
    luggage.keep(sent, b"kernel")
    kept = sent.path.stat().st_ino
    luggage.keep(sent, b"kernel")
    assert sent.path.read_bytes() == b"kernel"
    assert sent.path.stat().st_ino == kept
    assert [path.name for path in sent.path.parent.iterdir()] == ["vmlinuz"]


def test_what_arrives_otherwise_is_not_kept() -> None:
    sent = Sent(hashlib.sha256(b"kernel").hexdigest(), "vmlinuz")
    with pytest.raises(ValueError, match="another digest"):
        luggage.keep(sent, b"kernal")
    assert not sent.path.exists()
