"""For every test: neither this host's wall time nor the other tests are in its way."""

import gc
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("any host", deadline=None)
settings.load_profile("any host")


def pytest_collection_finish() -> None:
    """What was collected stays to the end: who looks for garbage need not go through it, as each
    session of pytest inside of a test does five times.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of kernels with nothing in it, and not there yet."""
    monkeypatch.setenv("BOOTPROOF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
