"""Kernels in a directory: which count, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootproof.harness.errors import UsageError
from bootproof.harness.inputs import row
from tests.builders import images as builder

KERNEL = builder.elf(builder.load(16 << 20, builder.LINUX))

IN_ORDER = [
    "linux-image-5.10.0-9-amd64_5.10.70-1_amd64.deb",
    "linux-image-5.10.0-28-amd64_5.10.209-2_amd64.deb",
    "linux-image-6.1.0-9-amd64_6.1.27-1_amd64.deb",
    "linux-image-6.1.0-9-amd64_6.1.27-1~rc1_amd64.deb",
    "linux-image-6.12~rc6-amd64_6.12~rc6-1_amd64.deb",
    "linux-image-6.12-amd64_6.12-1_amd64.deb",
    "linux-image-6.12.3-amd64_6.12.3-1_amd64.deb",
]


@pytest.mark.parametrize(
    "names",
    [
        IN_ORDER[:3] + IN_ORDER[4:],
        ["vmlinuz-6.9", "vmlinuz-6.10-rc2", "vmlinuz-6.10-rc10", "vmlinuz-6.10", "vmlinuz-6.10.1"],
        ["kernel-core-6.9.4-200.fc40.x86_64.rpm", "kernel-core-6.10.3-200.fc40.x86_64.rpm"],
        ["build-2", "build-10"],
    ],
)
def test_versions_make_the_order(names: list[str]) -> None:
    shuffled = names[::-1]
    assert sorted(shuffled, key=row.version_order) == names


def test_what_counts_in_a_directory(tmp_path: Path) -> None:
    build = tmp_path / "linux-10" / "arch" / "x86" / "boot"
    build.mkdir(parents=True)
    (build / "bzImage").write_bytes(b"any")
    (tmp_path / "linux-9").write_bytes(KERNEL)
    (tmp_path / "linux-image-6.1.0-9-amd64_6.1.27-1_amd64.deb").write_bytes(b"broken")
    others = ["config-6.1", "initrd.img-6.1", "notes.txt", "linux-headers-6.1_6.1_amd64.deb"]
    others += ["linux-image-6.1-amd64-dbg_6.1_amd64.deb", "kernel-devel-6.1-1.fc40.x86_64.rpm"]
    for name in others:
        (tmp_path / name).write_bytes(b"\x1f\x8b\x08" if "initrd" in name else b"text")
    (tmp_path / "empty").mkdir()
    found = [Path(image).name for image in row.expanded([str(tmp_path)])]
    assert found == ["linux-9", "linux-10", "linux-image-6.1.0-9-amd64_6.1.27-1_amd64.deb"]


def test_what_is_named_stays_as_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(KERNEL)
    names = ["6.1-cloud-amd64", str(tmp_path), "no such file"]  # a build directory is one image
    assert row.expanded(names) == names


def test_a_directory_without_kernels_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no kernel, package or build directory"):
        row.expanded([str(tmp_path)])
