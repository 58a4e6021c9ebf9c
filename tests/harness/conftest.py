"""What tests of several rooms need."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bootproof.harness import cli, prepare
from bootproof.harness.inputs import images
from bootproof.harness.qemu import monitor, session, watch, watchdog

Matrix = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a disk of so many KiB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    mounted: list[Path] = []

    def mount(kib: int) -> Path:
        path = tmp_path / f"disk{len(mounted)}"
        path.mkdir()
        options = f"size={kib}k,mode=755"
        command = ["mount", "-t", "tmpfs", "-o", options, "bootproof-test", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
        mounted.append(path)
        return path

    yield mount
    for path in mounted:
        subprocess.run(["umount", "--lazy", path], check=True)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A QEMU that stays silent, stopped, or busy is given up after a second, as later as always."""
    for module in (session, watch):
        monkeypatch.setattr(module, "EXIT_SECONDS", 0.5)
    for module in (monitor, watchdog):
        monkeypatch.setattr(module, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(watchdog, "_ANSWER_CPU_SECONDS", 1.0)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Nothing is fetched: a placeholder for busybox, an empty cache, and nothing remembered."""
    monkeypatch.setattr(images, "busybox", lambda arch: b"no busybox")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    caches = (prepare.evidence_archive, images.in_format)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def matrix_here(
    offline: None, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Matrix:
    """Runs `bootproof matrix` in this process, since a Python of its own takes half a CPU second;
    nothing is fetched.
    """
    monkeypatch.setattr("bootproof.harness.suite.matrix.fetch_for", lambda cases: None)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        capfd.readouterr()
        code = cli.main(["matrix", *words])
        return subprocess.CompletedProcess(words, code, *capfd.readouterr())

    return run
