"""The lock file: what goes in comes out, and a bad one is refused with the flaw named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, cast

import pytest

from bootproof.kernels.errors import LockError
from bootproof.kernels.lock import Resolved, read_lock, write_lock

ONE = Resolved("trixie", "busybox-static", "1:1.37-1", "arm64", "pool/b.deb", 5, "ab" * 32)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "kernels.lock"
    locked = {
        "b": ONE,
        "a": Resolved("s", "p", "1", "amd64", "pool/p~1+x.deb", 1, "0" * 64, "c" * 64),
    }
    write_lock(path, locked)
    assert read_lock(path) == locked
    assert list(json.loads(path.read_text())["kernels"]) == ["a", "b"]
    assert [p.name for p in path.parent.iterdir()] == ["kernels.lock"]


def test_no_file_is_an_empty_lock(tmp_path: Path) -> None:
    assert read_lock(tmp_path / "none.lock") == {}


def table(**changes: Any) -> dict[str, Any]:
    good = {
        "suite": "s",
        "package": "p",
        "version": "1",
        "arch": "amd64",
        "path": "pool/p.deb",
        "size": 5,
        "sha256": "ab" * 32,
    }
    return {key: value for key, value in (good | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("document", "flaw"),
    [
        ("<<<<<<< ours", "Expecting value"),
        ("[]", "list indices"),
        ({"version": 2, "kernels": {}}, "its version is 2, this program knows 1"),
        ({"kernels": {}}, "'version'"),
        ({"version": 1, "kernels": []}, "'list' object"),
        ({"version": 1, "kernels": {"a": table(host="x")}}, "a: unexpected host = 'x'"),
        ({"version": 1, "kernels": {"a": table(size="5")}}, "a: unexpected size = '5'"),
        ({"version": 1, "kernels": {"a": table(size=True)}}, "a: unexpected size = True"),
        ({"version": 1, "kernels": {"a": table(size=0)}}, "a size of 0 bytes is out of bounds"),
        ({"version": 1, "kernels": {"a": table(sha256=None)}}, "a: Resolved.__init__() missing"),
        ({"version": 1, "kernels": {"a": table(sha256="../../x")}}, "'../../x' is not a SHA-256"),
        ({"version": 1, "kernels": {"a": table(path="../x")}}, "is not a path below the mirror"),
        ({"version": 1, "kernels": {"a": table(path="http://x/y")}}, "is not a path below"),
    ],
)
def test_a_bad_lock_is_refused_with_the_flaw(tmp_path: Path, document: Any, flaw: str) -> None:
    path = tmp_path / "kernels.lock"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    with pytest.raises(LockError) as caught:
        read_lock(path)
    assert flaw in str(caught.value)
    assert "kernels.lock: not a lock file" in str(caught.value)
    assert "bootproof fetch --update" in str(caught.value)


def test_a_lock_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(LockError, match="cannot be read"):
        read_lock(tmp_path)


def test_a_failed_write_leaves_the_old_lock(tmp_path: Path) -> None:
    path = tmp_path / "kernels.lock"
    write_lock(path, {"b": ONE})
    with pytest.raises(TypeError):
        write_lock(path, {"b": dataclasses.replace(ONE, size=cast(int, object()))})
    assert read_lock(path) == {"b": ONE}
    assert [p.name for p in tmp_path.iterdir()] == ["kernels.lock"]


def test_a_lock_that_cannot_be_put_in_place_leaves_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "kernels.lock"
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        write_lock(path, {"b": ONE})
    assert [p.name for p in tmp_path.iterdir()] == ["kernels.lock"]
