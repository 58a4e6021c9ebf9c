"""Kernels as builds and distributions pack them, made from real ones: unpacked, and booted."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from bootproof.harness import places
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.case import Case
from bootproof.harness.cases.kernels import default_kernels
from bootproof.harness.inputs import images
from bootproof.harness.prove import prove
from bootproof.harness.verdict import Verdict
from bootproof.loader.address import MIB

if places.INSTALLED:
    pytest.skip("needs a clone: the packer is a part of its tests", allow_module_level=True)

from tests.builders import packings

# Names of machines in PE headers (Microsoft's PE format, "Machine Types").
MACHINES: Final = {"aarch64": 0xAA64, "riscv64": 0x5064}
PROTOCOLS: Final = {"aarch64": "arm64", "riscv64": "riscv64"}


def image_gz(image: bytes, _arch: str) -> bytes:
    return gzip.compress(image, 1, mtime=0)


def zboot(image: bytes, arch: str) -> bytes:
    payload = gzip.compress(image, 1, mtime=0)
    return packings.zboot(payload, b"gzip", machine=MACHINES[arch], size_word=False)


@pytest.mark.beside
@pytest.mark.parametrize("arch", PROTOCOLS)
@pytest.mark.parametrize("pack", [image_gz, zboot])
def test_packed(
    pack: Callable[[bytes, str], bytes],
    arch: str,
    run_directory: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    name = default_kernels(arch)[0]
    file = tmp_path / "kernel"
    file.write_bytes(pack(images.kernel_file(name).path.read_bytes(), arch))
    offset = ARCHES[arch].ram_base() + 2 * MIB
    case = Case(
        *(arch, name, "image", PROTOCOLS[arch], offset),
        label=pack.__name__,
        profile="fast",
        kernel_path=str(file),
    )
    proven = prove(case, run_directory(case.id))
    (proven.directory / "ram.img").unlink()
    assert proven.verdict is Verdict.BOOTED, proven.reason
