"""Names for program counters: the right one or none, however the kernel was moved."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from bootproof.harness.cases.kernels import default_kernels
from bootproof.harness.inputs import images, symbols
from bootproof.harness.inputs.symbols import Symbols
from bootproof.loader.address import MIB
from tests.builders.images import RISCV64, image

BASE = 0xFFFFFFFF81000000
TEXT = random.Random(1).randbytes(5 * MIB)
NAMES = {0: "startup_64", 0x340: "__startup_64", 0x10000: "start_kernel", 3 * MIB: "panic"}


def elf64(names: dict[int, str], *, base: int = BASE, text: bytes = TEXT) -> bytes:
    """An ELF file with one segment, .symtab and .strtab (ELF-64 object file format)."""
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in names.values())
    table = bytes(24)
    for address, name in names.items():
        at = strings.index(b"\0" + name.encode() + b"\0") + 1
        table += struct.pack("<IBBHQQ", at, 0x12, 0, 1, base + address, 0)
    sections = b"\0.shstrtab\0.symtab\0.strtab\0.text\0"
    start = 64 + 56
    parts = [text, table, strings, sections]
    offsets = [start + sum(map(len, parts[:number])) for number in range(5)]
    header = b"\x7fELF\2\1\1".ljust(16, b"\0")
    header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base, 64, offsets[4], 0, 64, 56, 1, 64, 5, 4)
    segment = struct.pack("<IIQQQQQQ", 1, 5, start, base, 0x1000000, len(text), len(text), MIB)

    def section(name: bytes, kind: int, part: int, link: int = 0, size: int = 0) -> bytes:
        at = sections.index(b"\0" + name + b"\0") + 1
        where = (offsets[part], len(parts[part]))
        return struct.pack("<IIQQQQIIQQ", at, kind, 0, 0, *where, link, 0, 1, size)

    table_of = bytes(64) + section(b".text", 1, 0) + section(b".symtab", 2, 1, 3, 24)
    table_of += section(b".strtab", 3, 2) + section(b".shstrtab", 3, 3)
    return header + segment + b"".join(parts) + table_of


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Symbols:
    path = tmp_path_factory.mktemp("symbols") / "vmlinux"
    path.write_bytes(elf64(NAMES))
    found = symbols.read(path)
    assert found is not None
    return found


def named(kernel: Symbols, pc: int, place: int, displacement: int = 0) -> str | None:
    """The name of `pc`, when the code of image offset `place` is what is executed there."""
    return kernel.name(pc, TEXT[place - 16 : place], TEXT[place : place + 16], displacement)


@pytest.mark.parametrize(
    "moved",
    [BASE, 0x1000000, 0x1200000, 0x40000000, 0xFFFFFFFF9E000000, 0xFFFF800008000000],
    ids=["linked", "physical", "offset", "arm64", "KASLR", "arm64 virtual"],
)
def test_however_it_was_moved(moved: int, kernel: Symbols) -> None:
    assert named(kernel, moved + 0x3DF, 0x3DF) == "__startup_64+0x9f"
    assert named(kernel, moved + 3 * MIB + 1, 3 * MIB + 1) == "panic+0x1"


def test_kernel_that_was_loaded_askew(kernel: Symbols) -> None:
    assert named(kernel, 0x1001000 + 0x3DF, 0x3DF, displacement=0x1001000) == "__startup_64+0x9f"
    assert named(kernel, 0x1001000 + 0x3DF, 0x3DF) is None


def test_patched_code_still_has_its_name(kernel: Symbols) -> None:
    at = b"\x90" * 5 + TEXT[0x10045:0x10050]
    assert kernel.name(BASE + 0x10040, TEXT[0x10030:0x10040], at) == "start_kernel+0x40"


@pytest.mark.parametrize(
    ("before", "at"),
    [
        (random.Random(2).randbytes(16), random.Random(3).randbytes(16)),  # other code
        (bytes(16), bytes(16)),
        (b"\xcc" * 16, b"\xcc" * 16),
        (b"", TEXT[0x340:0x348]),  # too little of it
        (b"", b""),
    ],
)
def test_no_name_rather_than_a_wrong_one(before: bytes, at: bytes, kernel: Symbols) -> None:
    assert kernel.name(BASE + 0x340, before, at) is None


def test_code_that_is_there_twice_has_no_name(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(elf64(NAMES, text=TEXT[: 2 * MIB] * 2))
    found = symbols.read(path)
    assert found is not None
    assert named(found, BASE + 0x3DF, 0x3DF) is None


def test_code_before_the_first_symbol(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(elf64({0x1000: "late"}))
    found = symbols.read(path)
    assert found is not None
    assert named(found, BASE + 0x100, 0x100) is None


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\x7fELF", bytes(4096), elf64({})[:-256], elf64(NAMES)[:200], b"MZ" + bytes(100)),
        elf64({}),
    ],
    ids=range(7),
)
def test_file_without_symbols(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(content)
    assert symbols.read(path) is None


def test_kernel_that_the_finder_cannot_read(tmp_path: Path) -> None:
    """With and without vmlinux-to-elf: an empty file, and no complaint."""
    kernel, target = tmp_path / "kernel", tmp_path / "symbols"
    kernel.write_bytes(b"this is no kernel\n" * 100)
    symbols.find(kernel, target)
    assert target.read_bytes() == b""
    assert symbols.read(target) is None


def test_an_image_as_an_elf_file(tmp_path: Path) -> None:
    """For the finder: its architecture, and all of it in one segment."""
    path, content = tmp_path / "elf", image(RISCV64)
    path.write_bytes(symbols.as_elf(content, 243))
    with path.open("rb") as file:
        elf = ELFFile(file)
        (segment,) = elf.iter_segments()
        assert (elf.elfclass, elf["e_machine"], segment["p_type"]) == (64, "EM_RISCV", "PT_LOAD")
        assert segment.data() == content


@pytest.mark.skipif(not symbols.can_be_found(), reason="vmlinux-to-elf is not installed")
@pytest.mark.parametrize("kernel", default_kernels("riscv64"))
def test_the_symbols_of_a_riscv64_image(kernel: str, tmp_path: Path) -> None:
    """The finder knows no such file by itself; the older kernel's it finds once it is told."""
    target = tmp_path / "symbols"
    symbols.find(images.kernel_file(kernel).content.path, target)
    found = symbols.read(target)
    assert found is not None
    assert found.addresses[0] == 0
    named = dict(zip(found.names, found.addresses, strict=True))
    assert named["_start"] == 0 and "start_kernel" in named and len(named) > 30000
    assert [path.name for path in tmp_path.iterdir()] == ["symbols"]
