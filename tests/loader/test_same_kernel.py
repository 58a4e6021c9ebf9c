"""The kernel in RAM against its file: wherever it was put, and whatever was done to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from bootproof import loader
from bootproof.loader import bootimage, initramfs
from bootproof.loader.address import MIB
from bootproof.loader.assemble import Assembly, Machine, assemble
from bootproof.loader.bootimage import BootImage
from bootproof.loader.memory import GuestMemory
from bootproof.loader.protocols import BootRequest
from bootproof.loader.rules import RuleFinding
from tests.builders import images, packings

PC: Final = Machine("x86_64", 128 * MIB, 128 * MIB, lambda size: ((0, size),))
BOARD: Final = Machine("aarch64", 128 * MIB, 128 * MIB, lambda size: ((1 << 30, size),))
CODE, DATA = (bytes((7 * i + i // 251 + k) & 0xFF or 1 for i in range(0x8000)) for k in (1, 2))
VMLINUX: Final = images.elf(
    images.load(16 * MIB, CODE),
    images.load(20 * MIB, DATA),
    images.notes(images.pvh_entry(16 * MIB + 0x40), paddr=24 * MIB),
    entry=16 * MIB + 0x100,
)
BZIMAGE: Final = images.bzimage(CODE, payload_offset=0, payload_length=0, init_size=MIB)
IMAGE: Final = images.image(size=0x8000, image_size=0x9000)


def written(
    kernel: bytes, protocol: str, directory: Path, offset: int | None = None
) -> tuple[BootImage, GuestMemory]:
    """A boot image of our own loader, and its RAM to be spoilt."""
    machine = BOARD if protocol == "arm64" else PC
    archive = initramfs.archive([initramfs.file("hello", b"world")])
    request = BootRequest(b"quiet", archive, unsafe=protocol == "arm64")
    made = assemble(kernel, Assembly(machine, request, protocol, offset), directory)
    banks = made.image.banks
    return made.image, GuestMemory.open(directory / bootimage.RAM, banks, writable=True)


def of_kernel(directory: Path, kernel: bytes) -> list[str]:
    """What `check` says more with the kernel than without."""
    without: tuple[RuleFinding, ...] = loader.check(directory)
    return [f"{f.code}: {f.sentence}" for f in loader.check(directory, kernel)[len(without) :]]


@pytest.mark.parametrize(
    ("kernel", "protocol", "offset"),
    [
        (VMLINUX, "linux64", None),
        (VMLINUX, "pvh", None),
        (VMLINUX, "linux64", 32 * MIB),
        (BZIMAGE, "linux64", None),
        (BZIMAGE, "linux32", 8 * MIB),
        (IMAGE, "arm64", (1 << 30) + 2 * MIB),
    ],
)
def test_a_kernel_as_it_was_loaded(
    kernel: bytes, protocol: str, offset: int | None, tmp_path: Path
) -> None:
    written(kernel, protocol, tmp_path, offset)[1].close()
    assert of_kernel(tmp_path, kernel) == []


def test_a_packed_kernel_is_unpacked(tmp_path: Path) -> None:
    written(IMAGE, "arm64", tmp_path, (1 << 30) + 2 * MIB)[1].close()
    assert of_kernel(tmp_path, packings.gzip(IMAGE)) == []


Spoil = Callable[[GuestMemory], None]


def entry_at(address: int, image: BootImage, directory: Path) -> None:
    cpus = (image.cpus[0].entered_at(address),)
    changed = BootImage(image.arch, image.protocol, image.banks, cpus, image.regions)
    bootimage.save(changed, directory)


@pytest.mark.parametrize(
    ("protocol", "entry", "said"),
    [
        (
            "pvh",
            0x1000050,
            "the CPU starts at 0x1000050, 0x10 behind the pvh entry 0x1000040",
        ),
        (
            "pvh",
            0x1000100,
            (
                "the CPU starts at 0x1000100, 0xc0 behind the pvh entry 0x1000040: that is the"
                " entry for linux64"
            ),
        ),
        (
            "linux64",
            0x1000000,
            (
                "the CPU starts at 0x1000000, 0x100 before the linux64 entry 0x1000100: that is the"
                " start of the kernel"
            ),
        ),
    ],
)
def test_a_wrong_entry(protocol: str, entry: int, said: str, tmp_path: Path) -> None:
    image, memory = written(VMLINUX, protocol, tmp_path)
    memory.close()
    entry_at(entry, image, tmp_path)
    assert of_kernel(tmp_path, VMLINUX) == [f"kernel-entry: {said}"]


def spoilt() -> Iterator[tuple[Spoil, str]]:
    yield (
        lambda memory: memory.write(16 * MIB + 0x1234, b"\0"),
        "1 byte at 0x1001234 differs from PT_LOAD[0]",
    )
    yield (
        lambda memory: memory.fill(16 * MIB + 0x5F00, 0x100),
        "256 bytes at 0x1005f00-0x1005fff differ from PT_LOAD[0]",
    )
    yield (
        lambda memory: memory.fill(20 * MIB, 0x8000),
        "PT_LOAD[1] is missing: there is nothing at 0x1400000-0x1407fff",
    )


@pytest.mark.parametrize(("spoil", "said"), list(spoilt()))
def test_bytes_that_are_not_the_files(spoil: Spoil, said: str, tmp_path: Path) -> None:
    _, memory = written(VMLINUX, "linux64", tmp_path)
    spoil(memory)
    memory.close()
    assert of_kernel(tmp_path, VMLINUX) == [f"kernel-file: {said}"]


def test_a_kernel_where_it_cannot_run(tmp_path: Path) -> None:
    """What a VMM does that moves a vmlinux by pages, as any file."""
    image, memory = written(VMLINUX, "linux64", tmp_path)
    low, high = (memory.read(start, 0x8000) for start in (16 * MIB, 20 * MIB))
    for start, data in ((16 * MIB, low), (20 * MIB, high)):
        memory.fill(start, 0x8000)
        memory.write(start + 0x1000, data)
    memory.close()
    entry_at(image.entry + 0x1000, image, tmp_path)
    (said,) = of_kernel(tmp_path, VMLINUX)
    assert said.startswith("kernel-place: the kernel lies at 0x1001000, 0x1000 from where it is")
    assert said.endswith(": it runs only a multiple of 0x200000 away")


def test_a_pvh_kernel_that_cannot_move(tmp_path: Path) -> None:
    """It has no relocation note, and a VMM moves it all the same."""
    image, memory = written(VMLINUX, "pvh", tmp_path)
    for start in (16 * MIB, 20 * MIB):
        memory.write(start + 32 * MIB, memory.read(start, 0x8000))
        memory.fill(start, 0x8000)
    memory.close()
    entry_at(image.entry + 32 * MIB, image, tmp_path)
    (said,) = of_kernel(tmp_path, VMLINUX)
    assert said.startswith("kernel-place: the kernel lies at 0x3000000, 0x2000000 from where it is")


def test_another_setup_header(tmp_path: Path) -> None:
    image, memory = written(BZIMAGE, "linux64", tmp_path)
    page = image.region("boot_params")
    assert page is not None
    memory.write(page.start + 0x260, (2 * MIB).to_bytes(4, "little"))
    memory.close()
    assert of_kernel(tmp_path, BZIMAGE) == [
        (
            "kernel-header: the setup header that was handed over is not the file's: init_size is"
            " 0x200000, not 0x100000"
        )
    ]


def test_another_kernel(tmp_path: Path) -> None:
    written(VMLINUX, "linux64", tmp_path)[1].close()
    other = images.elf(images.load(16 * MIB, DATA), entry=16 * MIB)
    (said,) = of_kernel(tmp_path, other)
    assert said.startswith("kernel-file: the kernel in RAM is not image: where it would lie,")


def test_a_kernel_without_that_entry(tmp_path: Path) -> None:
    """A PVH state for a kernel that has no PVH note."""
    written(VMLINUX, "pvh", tmp_path)[1].close()
    other = images.elf(
        images.load(16 * MIB, CODE), images.load(20 * MIB, DATA), entry=16 * MIB + 0x100
    )
    (said,) = of_kernel(tmp_path, other)
    assert said == "kernel-entry: the kernel has no entry for pvh; it has: 0x1000100 (linux64)"


def test_a_file_that_is_no_kernel(tmp_path: Path) -> None:
    written(VMLINUX, "linux64", tmp_path)[1].close()
    with pytest.raises(loader.LoaderError):
        loader.check(tmp_path, b"no kernel" * 100)
