"""A kernel's code is looked for in RAM: as many words are counted as there are."""

from __future__ import annotations

import random
from pathlib import Path

from bootproof.harness.guest import text_in_ram
from bootproof.harness.observation import TextCheck
from bootproof.loader.address import MIB, PAGE, Range
from bootproof.loader.elf import Elf
from bootproof.loader.memory import GuestMemory
from tests.builders.images import elf, load

BANKS = [(0, 2 * MIB), (2 * MIB, 30 * MIB)]
SOME = random.Random(1).randbytes(3 * PAGE)
CODE = SOME[: 2 * PAGE] + bytes(PAGE) + SOME[2 * PAGE :] + b"end"


def vmlinux(directory: Path) -> Path:
    """Segments that follow one another in a page, go over two banks, and end in zeros."""
    path = directory / "vmlinux"
    path.write_bytes(
        elf(load(2 * MIB - PAGE, CODE, memsz=6 * PAGE), load(4 * MIB + 16, CODE[:8], memsz=64))
    )
    return path


def test_what_is_in_the_file_is_read_as_it_would_be_loaded(tmp_path: Path) -> None:
    path = vmlinux(tmp_path)
    for offset in (0, 2 * MIB):
        with GuestMemory(BANKS) as loaded:
            Elf().load(loaded, path, kernel_offset=offset)
            with text_in_ram.unpacked(path, offset, BANKS) as reference:
                for page in range(0, 8 * MIB, PAGE):
                    assert reference.read(page, PAGE) == loaded.read(page, PAGE), hex(page)


def test_words_that_differ_are_counted(tmp_path: Path) -> None:
    code = Range(2 * MIB - PAGE, 4 * PAGE)  # of which a page is zeros
    with text_in_ram.unpacked(vmlinux(tmp_path), 0, BANKS) as reference, GuestMemory(BANKS) as ram:
        Elf().load(ram, tmp_path / "vmlinux", kernel_offset=0)
        assert text_in_ram.check(reference, ram, code) == TextCheck(3 * 512, 0)
        ram.write(code.start + 7, b"xy")  # the last byte of a word, the first of the next
        ram.write(code.start + 3 * PAGE, bytes(8))
        assert text_in_ram.check(reference, ram, code) == TextCheck(3 * 512, 3)
        assert text_in_ram.check(ram, ram, Range(32 * MIB, 4 * PAGE)) == TextCheck(0, 0)
        with GuestMemory(BANKS) as another:
            assert text_in_ram.check(reference, another, code) == TextCheck(3 * 512, 3 * 512)
