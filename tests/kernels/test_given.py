"""Files and directories that a user names."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootproof.kernels import given


def test_a_tree_has_a_limit(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "c").touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    found = [(where.name, len(names)) for where, _, names in given.below(tmp_path, 4, _never)]
    assert found == [(tmp_path.name, 0), ("a", 1), ("b", 0)]
    with pytest.raises(OSError, match="holds more than 3 files; name a directory with nothing"):
        list(given.below(tmp_path, 3, _never))


def test_a_file_that_has_no_size(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(OSError, match="has 1 bytes, and more than 0 bytes are not read"):
        given.read(tmp_path / "a", 0)


def _never(error: OSError) -> None:
    raise error
