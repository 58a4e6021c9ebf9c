"""Rules of the house that no other tool checks: how long a function is, and where the names of
architectures and boot protocols stand. Who imports whom is import-linter's (pyproject.toml).

Exceptions are listed one by one. A list is also wrong when it has one that is none any more, so
that it can only shrink.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

from tests import ROOT

PACKAGES: Final = ("harness", "kernels", "loader")
MOST_LINES: Final = 40

ARCHITECTURES: Final = {"x86_64", "aarch64", "arm64", "riscv64", "amd64"}
PROTOCOLS: Final = {"linux64", "linux32", "pvh"}
ROOMS: Final = ("harness/arch/", "loader/arch/", "loader/protocols/")
NAMED_ELSEWHERE: Final = {
    # What the bytes of a file say it is for.
    "loader/bzimage.py: linux32",
    "loader/bzimage.py: linux64",
    "loader/bzimage.py: x86_64",
    "loader/elf.py: aarch64",
    "loader/elf.py: linux64",
    "loader/elf.py: pvh",
    "loader/elf.py: riscv64",
    "loader/elf.py: x86_64",
    "loader/identify.py: aarch64",
    "loader/identify.py: riscv64",
    "loader/identify.py: x86_64",
    "loader/pe.py: aarch64",
    "loader/pe.py: arm64",
    "loader/pe.py: riscv64",
    # The name of linux-loader's module.
    "loader/configurators/__init__.py: pvh",
    # To be asked of the architecture's or the protocol's object.
    "harness/prove.py: pvh",
}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text("utf-8"))


def test_a_function_is_at_most_forty_lines_long() -> None:
    longer = {
        f"{name}: {node.name}"
        for name, module in modules()
        for node in ast.walk(module)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= MOST_LINES
    }
    assert longer == set()


def test_names_of_architectures_and_protocols_stand_in_their_rooms() -> None:
    elsewhere = {
        f"{name}: {node.value}"
        for name, module in modules()
        if not name.startswith(ROOMS)
        for node in ast.walk(module)
        if isinstance(node, ast.Constant) and node.value in ARCHITECTURES | PROTOCOLS
    }
    assert elsewhere - NAMED_ELSEWHERE == set()
    assert NAMED_ELSEWHERE - elsewhere == set()
