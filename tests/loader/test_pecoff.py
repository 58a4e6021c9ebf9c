"""Sections of PE files: what they hold, and a file that ends before the last of them."""

from __future__ import annotations

import pytest

from bootproof.loader.image import open_image
from bootproof.loader.pecoff import PeFile, TruncatedError, check_complete
from tests.builders import images, packings

FILE = packings.uki([(".linux", b"k" * 700), (".initrd", b"i" * 100)], in_memory={".linux": 4096})
END = 0x200 + 1024 + 100  # of what the last section holds; what pads it may be missing


def test_sections_hold_no_padding() -> None:
    """And no more than is in the file, whatever the kernel needs in memory."""
    pe = PeFile.parse(memoryview(FILE))
    assert pe is not None
    sections = [(s.name, s.offset, s.size) for s in pe.sections(memoryview(FILE))]
    assert sections == [(".linux", 0x200, 1024), (".initrd", 0x600, 100)]


@pytest.mark.parametrize("file", [FILE, FILE[:END], images.elf(), b"MZ", b""])
def test_a_file_that_is_whole(file: bytes) -> None:
    """What has no sections cannot lack any."""
    with open_image(file, allow_empty=True) as source:
        check_complete(source)


def test_a_file_that_ends_in_its_last_section() -> None:
    with open_image(FILE[: END - 1]) as source, pytest.raises(TruncatedError) as refused:
        check_complete(source)
    error = refused.value
    assert (error.field, error.offset, error.value, error.limit) == (
        *(".initrd", 0x600, END, END - 1),
    )
    assert f"the file ends at {END - 1:#x}, but its section .initrd ends at {END:#x}" in str(error)
