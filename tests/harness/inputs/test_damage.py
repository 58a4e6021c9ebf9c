"""Boot images spoilt on purpose: exactly what the name says is wrong with them, nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootproof.harness.inputs import damage
from bootproof.loader import bootimage
from bootproof.loader.address import GIB, KIB, MIB, Range
from bootproof.loader.arch.aarch64 import Arm64Registers
from bootproof.loader.bootimage import BootImage
from bootproof.loader.layout import Region
from bootproof.loader.memory import GuestMemory

BASE = GIB
KERNEL, DTB, INITRD, PARAMS = (
    Region("kernel", Range(BASE + 2 * MIB, MIB)),
    Region("dtb", Range(BASE + 4 * MIB, 64)),
    Region("initrd", Range(BASE + 5 * MIB, 8 * KIB)),
    Region("boot_params", Range(BASE, 4 * KIB)),
)
CODE = b"code" * 1024
CONTENTS = {
    KERNEL: CODE + bytes(64 * KIB) + b"data",
    DTB: b"tree" * 16,
    INITRD: b"cpio" * 2048,
    PARAMS: b"\1" * 4096,
}


@pytest.fixture
def image(tmp_path: Path) -> BootImage:
    with GuestMemory([(BASE, 8 * MIB)], path=tmp_path / bootimage.RAM) as memory:
        for region, data in CONTENTS.items():
            memory.write(region.range.start, data)
        banks = memory.banks
    cpu = Arm64Registers(KERNEL.range.start + 16)
    return BootImage("aarch64", "none", banks, (cpu,), (KERNEL, DTB, INITRD, PARAMS))


def damaged(name: str, image: BootImage, directory: Path) -> tuple[BootImage, dict[str, bytes]]:
    """The image as it was saved, and what its regions hold now."""
    damage.inflict(name, image, directory)
    saved = bootimage.open_boot_image(directory)
    with bootimage.open_ram(saved, directory) as memory:
        return saved, {r.name: memory.read(r.range.start, r.range.size) for r in saved.regions}


def intact(*but: str) -> dict[str, bytes]:
    return {
        region.name: data.ljust(region.range.size, b"\0")
        for region, data in CONTENTS.items()
        if region.name not in but
    }


@pytest.mark.parametrize(("name", "region"), [("no-dtb", "dtb"), ("no-initrd", "initrd")])
def test_forgotten_piece(name: str, region: str, image: BootImage, tmp_path: Path) -> None:
    saved, found = damaged(name, image, tmp_path)
    assert not any(found.pop(region))
    assert found == intact(region)
    assert (saved.cpus, saved.regions) == (image.cpus, image.regions)


def test_memory_map_without_entries(image: BootImage, tmp_path: Path) -> None:
    _, found = damaged("empty-e820", image, tmp_path)
    page = found.pop("boot_params")
    assert [index for index in range(4096) if page[index] != 1] == [0x1E8]
    assert page[0x1E8] == 0
    assert found == intact("boot_params")


def test_initrd_in_the_bss(image: BootImage, tmp_path: Path) -> None:
    saved, found = damaged("initrd-over-bss", image, tmp_path)
    place = saved.region("initrd")
    assert place is not None
    # The longer of the two runs of zeros: the one behind the data, not the one before it.
    assert place.start == KERNEL.range.start + 72 * KIB
    assert found["initrd"] == CONTENTS[INITRD]
    assert found["boot_params"][0x218:0x21C] == place.start.to_bytes(4, "little")
    with bootimage.open_ram(saved, tmp_path) as memory:
        assert not any(memory.read(INITRD.range.start, INITRD.range.size))


@pytest.mark.parametrize(("name", "distance"), [("kernel-8-bytes-up", 8), ("kernel-4k-up", 4096)])
def test_kernel_in_the_wrong_place(
    name: str, distance: int, image: BootImage, tmp_path: Path
) -> None:
    saved, found = damaged(name, image, tmp_path)
    assert saved.entry == image.entry + distance
    assert saved.region("kernel") == Range(KERNEL.range.start + distance, MIB)
    assert found == intact()
    with bootimage.open_ram(saved, tmp_path) as memory:
        assert not any(memory.read(KERNEL.range.start, distance))


@pytest.mark.parametrize("name", damage.DAMAGES)
def test_nothing_there_to_damage(name: str, image: BootImage, tmp_path: Path) -> None:
    bare = BootImage(image.arch, image.protocol, image.banks, image.cpus)
    with pytest.raises(ValueError, match=r"^the boot image has no \w+ to damage$"):
        damage.inflict(name, bare, tmp_path)
