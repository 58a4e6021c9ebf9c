"""Files on their way between the matrix and its workers."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from bootproof.harness.errors import UserError
from bootproof.harness.suite.cluster import luggage
from bootproof.harness.suite.cluster.luggage import Packed
from bootproof.loader.address import MIB

pytestmark = pytest.mark.usefixtures("own_cache")


def test_a_directory_arrives_as_it_was_with_its_holes(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    (there / "devices").mkdir(parents=True)
    (there / "devices" / "a").write_bytes(b"small")
    (there / "empty").touch(mode=0o600)
    (there / "run.sh").touch(mode=0o755)
    with (there / "ram.img").open("wb") as file:
        file.truncate(512 * MIB)
        for offset in (0, 100 * MIB + 5, 512 * MIB - 3):
            file.seek(offset)
            file.write(b"abc")
    luggage.unpacked(luggage.packed(there), here)
    assert {str(path.relative_to(here)) for path in here.rglob("*")} == {
        *("devices", "devices/a", "empty", "ram.img", "run.sh")
    }
    modes = {name: (here / name).stat().st_mode & 0o777 for name in ("empty", "run.sh", ".")}
    assert modes == {"empty": 0o600, "run.sh": 0o755, ".": 0o700}
    assert (here / "devices/a").read_bytes() == b"small"
    with (here / "ram.img").open("rb") as file:
        assert os.fstat(file.fileno()).st_blocks * 512 < MIB
        assert os.fstat(file.fileno()).st_size == 512 * MIB
        for offset in (0, 100 * MIB + 5, 512 * MIB - 3):
            assert os.pread(file.fileno(), 3, offset) == b"abc"


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside"])
def test_no_file_leaves_its_directory(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="outside"):
        luggage.unpacked({name: Packed(0o600, 0, {})}, tmp_path / "here")
    assert not (tmp_path / "outside").exists()


KERNEL = hashlib.sha256(b"kernel").hexdigest()


def test_what_was_sent_is_kept_once_and_whole() -> None:
    assert luggage.kept(KERNEL) is None
    luggage.keep(KERNEL, b"kernel")
    kept = luggage.kept(KERNEL)
    assert kept is not None
    inode = kept.path.stat().st_ino
    luggage.keep(KERNEL, b"kernel")
    assert kept.path.read_bytes() == b"kernel"
    assert kept.path.stat().st_ino == inode


def test_what_was_changed_since_is_not_what_was_sent() -> None:
    luggage.keep(KERNEL, b"kernel")
    kept = luggage.kept(KERNEL)
    assert kept is not None
    kept.path.write_bytes(b"kernal")
    assert luggage.kept(KERNEL) is None
    luggage.keep(KERNEL, b"kernel")
    assert kept.path.read_bytes() == b"kernel"


def test_what_arrives_otherwise_is_not_kept() -> None:
    with pytest.raises(ValueError, match="another digest"):
        luggage.keep(KERNEL, b"kernal")
    assert luggage.kept(KERNEL) is None


def test_of_what_was_sent_as_much_is_kept_as_the_cache_may_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BOOTPROOF_CACHE_LIMIT", "1")
    luggage.keep(KERNEL, b"kernel")
    kept = luggage.kept(KERNEL)
    assert kept is not None
    long_ago = kept.path.stat().st_mtime - 3600
    os.utime(kept.path.parent, (long_ago, long_ago))
    luggage.keep(hashlib.sha256(b"initrd").hexdigest(), b"initrd")
    assert luggage.kept(KERNEL) is None
