"""Which kernels a word of a scenario file means: a name, a pattern, the default set, a path, a URL.

A path stays below the directory of the file that says it, links included; a URL has the hash of
what it leads to. Opens and fetches nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from bootproof.harness.cases.schema import SchemaError, unknown
from bootproof.kernels import Catalog, FetchError, Kind, load_catalog, sources

DEFAULT_SET: Final = "default"
_WILDCARDS: Final = frozenset("*?[")


def default_kernels(arch: str, catalog: Catalog | None = None) -> list[str]:
    """The names of the kernels of the default set for an architecture, in the catalogue's order."""
    entries = (catalog or load_catalog()).default(arch)
    return [entry.name for entry in entries if entry.kind is Kind.KERNEL]


def named(text: str, arch: str, catalog: Catalog, directory: Path) -> Mapping[str, str | None]:
    """The kernels by name, with the path of those that are files. Raises SchemaError."""
    default = default_kernels(arch, catalog)
    with _one_line():
        if name := sources.name_of_url(text):
            return {name: text}
    if "/" in text:
        return _at_path(text, directory.resolve())
    if text == DEFAULT_SET:
        return dict.fromkeys(default)
    if _WILDCARDS & set(text):
        names = [name for name in default if fnmatchcase(name, text)]
        if not names:
            raise SchemaError((), f"kernel: {text!r} matches none of {', '.join(default)}")
        return dict.fromkeys(names)
    kernels = [entry for entry in catalog if entry.kind is Kind.KERNEL]
    for kernel in kernels:
        if kernel.name == text and kernel.arch == arch:
            return {text: None}
        if kernel.name == text:
            raise SchemaError((), f"kernel {text!r} is of {kernel.arch}, not of {arch}")
    raise SchemaError((), unknown("kernel", text, [k.name for k in kernels if k.arch == arch]))


def _at_path(text: str, directory: Path) -> dict[str, str | None]:
    path = kernel = (directory / text).resolve()
    if path.is_relative_to(directory) and path.is_dir():
        with _one_line():
            kernel = sources.built(path).resolve()
    if not path.is_relative_to(directory) or not kernel.is_relative_to(directory):
        raise SchemaError((), f"kernel: {text!r} is not below the directory of this file")
    return {str(path.relative_to(directory)): str(kernel)}


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    try:
        yield
    except FetchError as error:
        raise SchemaError((), f"kernel: {error}") from error
