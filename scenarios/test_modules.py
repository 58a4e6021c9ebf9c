"""Modules of Debian's own kernel packages, loaded in the guest before its tests."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from bootproof.harness.cases import from_kernel
from bootproof.harness.prove import prove
from bootproof.harness.verdict import Verdict
from bootproof.kernels.errors import FetchError
from bootproof.kernels.fetch import Fetcher

# With what it needs, before it; the second kernel has that built in, and its modules are packed.
_LOADED: Final = {
    "6.1-cloud-amd64": ("virtio", "virtio_ring", "virtio_rng", "loop max_loop=3"),
    "6.12-cloud-amd64": ("virtio_rng", "loop max_loop=3"),
    "6.1-cloud-arm64": ("virtio", "virtio_ring", "virtio_rng", "loop max_loop=3"),
}
_SEEN: Final = "grep -q '^loop .* Live ' /proc/modules && grep -q '^virtio_rng ' /proc/modules"


@pytest.mark.beside
@pytest.mark.parametrize("kernel", _LOADED)
def test_modules_of_the_kernels_package(kernel: str, tmp_path: Path) -> None:
    try:
        Fetcher().package(kernel)
    except FetchError as error:
        pytest.skip(f"no package of {kernel}: {error}")
    words = {"profile": "fast", "modules": "virtio_rng\nloop max_loop=3", "test": _SEEN}
    proven = prove(from_kernel.case_of(kernel, words, "boot"), tmp_path / "run")
    assert proven.verdict is Verdict.BOOTED, proven.reason
    assert proven.outcome is not None
    loaded = [_command(*each.split(maxsplit=1)) for each in _LOADED[kernel]]
    assert [test.name for test in proven.outcome.judgement.tests] == [*loaded, _SEEN]


def _command(name: str, *parameters: str) -> str:
    return " ".join((f"insmod /bootproof/modules/{name}.ko", *parameters))
