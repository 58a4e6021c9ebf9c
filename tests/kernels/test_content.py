"""The content of files, where the process has too few descriptors for it."""

from __future__ import annotations

import gc
import os
import resource
import sys
from pathlib import Path

import pytest

from bootproof.kernels import content
from bootproof.kernels.errors import BadSource


def test_without_descriptors_it_is_an_error_and_nothing_more(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of its files it cannot open; what was never open is not closed either."""
    ignored: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    (tmp_path / "kernel").write_bytes(b"kernel")
    gc.collect()  # what earlier tests left would close its own meanwhile
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [os.dup(0) for _ in range(8)]  # the lowest comes first when something is opened
    for descriptor in free:
        os.close(descriptor)
    refused = []
    for most in free:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
        try:
            content.of_file(tmp_path / "kernel", "kernel")
        except (OSError, BadSource):
            refused.append(most)
        gc.collect()
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert free[:3] == refused[:3]
    assert len(refused) < len(free)
    assert not ignored
