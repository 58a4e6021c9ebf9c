"""What a module says of itself, and what a kernel wants: made from scratch, and cut anywhere."""

from __future__ import annotations

import pytest

from bootproof.loader import kmodule
from bootproof.loader.kmodule import ModuleError, ModuleInfo
from tests.builders import images

MAGIC = "6.1.0-test SMP preempt mod_unload modversions "


def test_what_a_module_says() -> None:
    data = images.module("virtio_rng", MAGIC, depends="virtio,rng-core", machine=183)
    wanted = ModuleInfo("virtio_rng", "aarch64", MAGIC.strip(), ("virtio", "rng_core"))
    assert kmodule.read(data, "it") == wanted


def test_an_old_or_foreign_one() -> None:
    words = f"vermagic={MAGIC}\0depends=\0".encode()
    data = images.sections({".modinfo": words}, machine=22)
    assert kmodule.read(data, "it") == ModuleInfo(None, "unknown machine 22", MAGIC.strip(), ())


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "cut off"),
        (b"#!/bin/sh\n" * 20, "no relocatable 64-bit ELF file"),
        (images.elf(images.load(0x1000, b"x")), "no relocatable 64-bit ELF file"),
        (images.sections({".text": b"x"}), "no vermagic in .modinfo"),
        (images.sections({".modinfo": b"license=GPL\0"}), "no vermagic in .modinfo"),
    ],
)
def test_what_is_none(data: bytes, why: str) -> None:
    with pytest.raises(ModuleError, match=rf"^it: is .*{why}"):
        kmodule.read(data, "it")


def test_a_module_that_is_cut_off_anywhere_is_refused() -> None:
    data = images.module("loop", MAGIC)
    for end in range(len(data)):
        with pytest.raises(ModuleError):
            kmodule.read(data[:end], "it")


@pytest.mark.parametrize("place", [1 << 20, (1 << 63) - 1, (1 << 64) - 1])
def test_a_table_of_sections_beyond_the_file(place: int) -> None:
    data = bytearray(images.module("loop", MAGIC))
    data[0x28:0x30] = place.to_bytes(8, "little")  # e_shoff
    with pytest.raises(ModuleError, match="it: is cut off"):
        kmodule.read(bytes(data), "it")


@pytest.mark.parametrize("text", [MAGIC, "6.1.0-test SMP aarch64", "6.1.0-test "])
def test_what_a_kernel_wants(text: str) -> None:
    """Among other texts with its release: its banner, and paths."""
    others = b"Linux version 6.1.0-test (gcc) #1\n\0updates/6.1.0-test\0 6.1.0-test (x) SMP\0"
    kernel = memoryview(others + text.encode() + b"\0rest")
    assert kmodule.vermagic(kernel, ("6.2.0", "6.1.0-test")) == text.strip()
    assert kmodule.vermagic(memoryview(others), ("6.1.0-test",)) is None
