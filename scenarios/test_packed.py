"""Kernels as builds and distributions pack them, made from real ones: unpacked, and booted."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from bootproof.harness import places
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.case import Case
from bootproof.harness.cases.kernels import default_kernels
from bootproof.harness.host.together import at_once
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


@pytest.mark.beside
@pytest.mark.parametrize("arch", PROTOCOLS)
def test_packed(arch: str, run_directory: Callable[[str], Path], tmp_path: Path) -> None:
    """As Image.gz, and as an EFI zboot image of the same bytes."""
    name = default_kernels(arch)[0]
    image_gz = gzip.compress(images.kernel_file(name).path.read_bytes(), 1, mtime=0)
    zboot = packings.zboot(image_gz, b"gzip", machine=MACHINES[arch], size_word=False)
    cases = []
    for label, packed in (("image_gz", image_gz), ("zboot", zboot)):
        file = tmp_path / label
        file.write_bytes(packed)
        case = Case(
            *(arch, name, "image", PROTOCOLS[arch], ARCHES[arch].ram_base() + 2 * MIB),
            label=label,
            profile="fast",
            kernel_path=str(file),
        )
        cases.append(case)
    for proven in at_once([partial(prove, case, run_directory(case.id)) for case in cases], 2):
        (proven.directory / "ram.img").unlink()
        assert proven.verdict is Verdict.BOOTED, f"{proven.case.id}: {proven.reason}"
