"""What a process that was killed leaves is removed by the next, and by no other."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bootproof.kernels import scratch
from tests.builders.processes import environment

_WORKING = """
import sys, time
from pathlib import Path
from bootproof.kernels import scratch
with scratch.directory(Path(sys.argv[1])) as path:
    (path / "big").write_bytes(b"x")
    print(path, flush=True)
    time.sleep(60)
"""


def test_left_after_a_kill_and_swept_by_the_next(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _WORKING, tmp_path],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        with scratch.directory(tmp_path) as ours:
            assert left.exists() and ours != left  # it is being worked in
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert left.exists()
    (tmp_path / f"{scratch.PREFIX}file").touch()
    with scratch.directory(tmp_path) as ours:
        assert sorted(tmp_path.iterdir()) == sorted([ours, tmp_path / f"{scratch.PREFIX}file"])


def test_many_at_once_sweep_nothing_that_is_being_made(tmp_path: Path) -> None:
    def work(_number: int) -> bool:
        with scratch.directory(tmp_path) as path:
            return path.exists()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(400)))
    assert not list(tmp_path.iterdir())


def test_removed_at_the_end_whatever_ends_it(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), scratch.directory(tmp_path / "new") as path:
        (path / "file").touch()
        raise KeyboardInterrupt
    assert not list((tmp_path / "new").iterdir())
