"""Names for program counters: the right one or none, however the kernel was moved."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bootproof.harness.cases.kernels import default_kernels
from bootproof.harness.inputs import images, symbols
from bootproof.harness.inputs.symbols import Symbols
from bootproof.loader.address import MIB
from bootproof.loader.vmlinux import pvh_capability
from tests.builders.images import elf, load, with_symbols
from tests.builders.kallsyms import LAYOUTS, Symbol, many, tables

BASE = 0xFFFFFFFF81000000
TEXT = random.Random(1).randbytes(5 * MIB)
NAMES = {0: "startup_64", 0x340: "__startup_64", 0x10000: "start_kernel", 3 * MIB: "panic"}


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Symbols:
    path = tmp_path_factory.mktemp("symbols") / "vmlinux"
    path.write_bytes(with_symbols(NAMES, TEXT))
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
    path.write_bytes(with_symbols(NAMES, TEXT[: 2 * MIB] * 2))
    found = symbols.read(path)
    assert found is not None
    assert named(found, BASE + 0x3DF, 0x3DF) is None


def test_code_before_the_first_symbol(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(with_symbols({0x1000: "late"}, TEXT))
    found = symbols.read(path)
    assert found is not None
    assert named(found, BASE + 0x100, 0x100) is None


@pytest.mark.parametrize(
    "content",
    [
        *(
            b"",
            b"\x7fELF",
            bytes(4096),
            with_symbols({})[:-256],
            with_symbols(NAMES, TEXT)[:200],
            b"MZ" + bytes(100),
        ),
        with_symbols({}),
    ],
    ids=range(7),
)
def test_file_without_symbols(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(content)
    assert symbols.read(path) is None


def test_a_stripped_kernel_names_itself(tmp_path: Path) -> None:
    """Of several names at one place: a weak one, then a global, then a local."""
    path, place = tmp_path / "vmlinux", 0x1_0000
    several: list[Symbol] = [("t", place, "z"), ("W", place, "a"), ("T", place, "b")]
    content = TEXT + tables([("T", 0, "_text"), *many(300, base=0x20), *several], LAYOUTS["6.4"])
    path.write_bytes(elf(load(BASE, content), machine=62))
    found = symbols.read(path)
    assert found is not None and found.segments == ((0, content),)
    named = dict(zip(found.addresses, found.names, strict=True))
    assert (named[0], named[0x40], named[place]) == ("_text", "sys_2_init", "a")
    assert (len(named), found.addresses) == (241, tuple(sorted(named)))


def test_an_unknown_architecture_has_no_landmark(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    content = TEXT + tables([("T", 0, "_text"), *many(300, base=0)], LAYOUTS["6.4"])
    path.write_bytes(elf(load(BASE, content), machine=8))
    assert symbols.read(path) is None


FIRST = {"x86_64": "_text", "aarch64": "_text", "riscv64": "_start"}


@pytest.mark.parametrize(
    ("arch", "name"), [(arch, name) for arch in FIRST for name in default_kernels(arch)]
)
def test_the_names_of_real_kernels(arch: str, name: str) -> None:
    """At places that other parts of the file tell as well."""
    kernel = images.running(images.kernel_file(name), "file")
    found = symbols.read(kernel.content.path)
    assert found is not None and len(found.names) > 40_000
    named = dict(zip(found.names, found.addresses, strict=True))
    assert {"start_kernel", "panic", "schedule"} <= named.keys()
    assert all(0 <= place < 1 << 28 for place in found.addresses)
    place, code = named["panic"], found.segments[0][1]
    before, at = code[place : place + 16], code[place + 16 : place + 32]
    assert found.name(0x4000_0000 + place + 16, before, at) == "panic+0x10"
    if arch == "x86_64":
        with kernel.open() as image:
            entry = pvh_capability(image).entry
        assert entry is not None and found.function(entry - 0x100_0000) == "pvh_start_xen"
    elif FIRST[arch] in named:  # and not hidden by another name, nor left out of the kernel's list
        assert named[FIRST[arch]] == 0
