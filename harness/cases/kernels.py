"""Which kernels a word of a scenario file means: a name, a pattern, the default set, a path, a URL.

NAME=PATH and NAME=URL give a kernel a name that lasts. A path stays below the directory of the file
that says it, links included; a URL has the hash of what it leads to. Opens and fetches nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.harness.cases import schema
from bootproof.harness.cases.schema import SchemaError, unknown
from bootproof.harness.results.roles import role_of
from bootproof.kernels import sources
from bootproof.kernels.catalog import Catalog, Kind, load_catalog
from bootproof.kernels.errors import FetchError

DEFAULT_SET: Final = "default"
_WILDCARDS: Final = frozenset("*?[")
_GIVEN: Final = re.compile(rf"({schema.PLAIN.pattern})=(.+)", re.ASCII)


def default_kernels(arch: str, catalog: Catalog | None = None) -> list[str]:
    """The names of the kernels of the default set for an architecture, in the catalogue's order."""
    entries = (catalog or load_catalog()).default(arch)
    return [entry.name for entry in entries if entry.kind is Kind.KERNEL]


@dataclass(frozen=True, slots=True)
class NamedKernel:
    """What there is to a kernel's name."""

    # Of one that is a file, or a URL.
    path: str | None = None
    # What other runs are compared by, where the name is only that of the file.
    role: str | None = None


def named(text: str, arch: str, catalog: Catalog, directory: Path) -> Mapping[str, NamedKernel]:
    """The kernels by name. Raises SchemaError."""
    if match := _GIVEN.fullmatch(text):
        ((_, kernel),) = _file(match[2], directory).items() or ((text, None),)
        if kernel is None:
            raise SchemaError((), f"kernel: {text!r} gives a name to what is no path and no URL")
        return {match[1]: replace(kernel, role=None)}
    if found := _file(text, directory):
        return found
    return dict.fromkeys(_of_catalogue(text, arch, catalog), NamedKernel())


def _file(text: str, directory: Path) -> Mapping[str, NamedKernel]:
    """The kernel that a URL or a path leads to; none for what is neither."""
    with _one_line():
        if name := sources.name_of_url(text):
            return {name: NamedKernel(text, role_of(name))}
    return _at_path(text, Path(os.path.realpath(directory))) if "/" in text else {}


def _of_catalogue(text: str, arch: str, catalog: Catalog) -> list[str]:
    default = default_kernels(arch, catalog)
    if text == DEFAULT_SET:
        return default
    if _WILDCARDS & set(text):
        names = [name for name in default if fnmatchcase(name, text)]
        if not names:
            raise SchemaError((), f"kernel: {text!r} matches none of {', '.join(default)}")
        return names
    kernels = [entry for entry in catalog if entry.kind is Kind.KERNEL]
    for kernel in kernels:
        if kernel.name == text and kernel.arch == arch:
            return [text]
        if kernel.name == text:
            raise SchemaError((), f"kernel {text!r} is of {kernel.arch}, not of {arch}")
    raise SchemaError((), unknown("kernel", text, [k.name for k in kernels if k.arch == arch]))


def _at_path(text: str, directory: Path) -> dict[str, NamedKernel]:
    # Who reads a loop of links says so.
    path = kernel = Path(os.path.realpath(directory / text))
    with _one_line():
        if path.is_relative_to(directory) and path.is_dir():
            kernel = Path(os.path.realpath(sources.built(path)))
    if not path.is_relative_to(directory) or not kernel.is_relative_to(directory):
        raise SchemaError((), f"kernel: {text!r} is not below the directory of this file")
    name = str(path.relative_to(directory))
    return {name: NamedKernel(str(kernel), role_of(name))}


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    try:
        yield
    except FetchError as error:
        raise SchemaError((), f"kernel: {error}") from error
    except OSError as error:  # such as too long a name
        raise SchemaError((), f"kernel: {error.strerror}") from error
