"""Rules of the house that no other tool checks: how long a function is, and where the names of
architectures and boot protocols stand. Who imports whom is import-linter's (pyproject.toml).

Exceptions are listed one by one. A list is also wrong when it has one that is none any more, so
that it can only shrink.
"""

from __future__ import annotations

import ast
import functools
import re
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
    "loader/elfheader.py: aarch64",
    "loader/elfheader.py: riscv64",
    "loader/elfheader.py: x86_64",
    "loader/identify.py: aarch64",
    "loader/identify.py: riscv64",
    "loader/identify.py: x86_64",
    "loader/imageheader.py: aarch64",
    "loader/imageheader.py: riscv64",
    "loader/pe.py: arm64",
    "loader/pe.py: riscv64",
    "loader/setupheader.py: x86_64",
    # The name of linux-loader's module.
    "loader/configurators/__init__.py: pvh",
    # To be asked of the architecture's or the protocol's object.
    "harness/prove.py: pvh",
}


@functools.cache
def modules() -> list[tuple[str, ast.Module]]:
    return [
        (str(path.relative_to(ROOT)), ast.parse(path.read_bytes()))
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
    ]


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


# The modules of one architecture and its protocol: what a recipe calls new.
ARM64: Final = {
    "loader.arch.aarch64",
    "loader.arch.aarch64_seen",
    "harness.arch.aarch64",
    "loader.protocols.arm64",
    "loader.rules.arm64",
}


def imported(module: ast.Module) -> set[str]:
    """What a module imports of ours: `bootproof.a.b` and `from bootproof.a import b` as a.b, and so
    a row of a table, "b.VALUE" of "bootproof.a" (bootproof.loader.ondemand).
    """
    nodes = [*ast.walk(module)]
    names = {
        f"{node.module}{end}"
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module
        for end in ("", *(f".{alias.name}" for alias in node.names))
    }
    texts = {str(node.value) for node in nodes if isinstance(node, ast.Constant)}
    packages = {text for text in texts if text.startswith("bootproof.")}
    modules = {text.rpartition(".")[0] for text in texts if "." in text}
    names |= {f"{package}.{module}" for package in packages for module in modules}
    return {name.removeprefix("bootproof.") for name in names}


def touched(recipe: str) -> set[str]:
    """The existing files that a recipe of docs/architecture.md lists."""
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    text = page.partition(f"### {recipe}\n")[2].partition("\n#")[0].partition("| touched |")[2]
    return set(re.findall(r"`((?:harness|loader)/[\w/]+\.py)`", text))


def test_the_recipes_name_every_file_that_knows_of_an_architecture_and_its_protocol() -> None:
    by_name = {name.removesuffix(".py").replace("/", "."): module for name, module in modules()}
    importers = {name for name, module in by_name.items() if imported(module) & ARM64}
    named = {entry.partition(":")[0] for entry in NAMED_ELSEWHERE if entry.endswith(": arm64")}
    known = {f"{name.replace('.', '/')}.py" for name in importers - ARM64} | named
    assert known == touched("Add an architecture") | touched("Add a boot protocol")
    assert len(touched("Add an architecture")) <= 3
    assert len(touched("Add a boot protocol")) <= 2


def test_the_recipe_for_an_option_is_two_files() -> None:
    assert touched("Add an option") == {"harness/case.py", "harness/prepare.py"}


# --- encodings -----------------------------------------------------------------------------------


def _without_encoding(tree: ast.AST) -> Iterator[int]:
    """The lines of calls that read or write text in whatever encoding the user's locale has."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        words = {word.arg: word.value for word in call.keywords}
        needed = {"read_text": 1, "write_text": 2}.get(name, 0)
        text = getattr(words.get("text"), "value", None) is True
        modes = [
            a.value for a in [*call.args[:2], words.get("mode")] if isinstance(a, ast.Constant)
        ]
        opens = name == "open" and any(re.fullmatch("[rwax]+[+]?", str(mode)) for mode in modes)
        if "encoding" in words or not (needed > len(call.args) or text or opens):
            continue
        yield call.lineno


def test_no_text_is_in_the_encoding_of_a_locale() -> None:
    found = [f"{name}:{line}" for name, module in modules() for line in _without_encoding(module)]
    assert found == []


def test_frozen_classes_are_made_at_the_price_of_one_method() -> None:
    theirs = {
        name
        for name, module in modules()
        for node in ast.walk(module)
        if (isinstance(node, ast.ImportFrom) and node.module == "dataclasses" and _names_it(node))
        or (isinstance(node, ast.Attribute) and ast.unparse(node) == "dataclasses.dataclass")
    }
    assert theirs == set()


def _names_it(node: ast.ImportFrom) -> bool:
    return "dataclass" in {alias.name for alias in node.names}
