"""The kernel modules that a user asks for, as files in the order in which a guest loads them.

Owns what the words mean, which others each module needs, and that they are this kernel's. Where a
kernel's modules lie is bootproof.kernels.modules'; what one says of itself bootproof.loader's.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.harness.errors import UserError
from bootproof.harness.host.stdout import say
from bootproof.harness.inputs import images
from bootproof.harness.inputs.images import KernelFile
from bootproof.harness.text import printable, quoted
from bootproof.kernels import modules
from bootproof.kernels.errors import FetchError
from bootproof.kernels.modules import Modules
from bootproof.kernels.sources import Source
from bootproof.loader import kmodule
from bootproof.loader.errors import LoaderError
from bootproof.loader.kmodule import ModuleInfo

_MOST: Final = 200  # from one directory
_NAME: Final = re.compile(r"[A-Za-z0-9_]{1,55}")  # MODULE_NAME_LEN
_DEEPEST: Final = 50  # modules that need one another


@dataclass(frozen=True, slots=True)
class Loaded:
    """A module that a guest loads."""

    name: str
    path: Path
    # As its user wrote them, for the guest's shell.
    parameters: str
    data: bytes
    info: ModuleInfo

    @property
    def command(self) -> str:
        """What loads it in the guest: its test there."""
        return f"insmod /bootproof/modules/{self.name}.ko {self.parameters}".strip()


def resolved(text: str, source: Source, kernel: KernelFile, arch: str, format_: str) -> str | None:
    """What `text` asks for as files with their parameters, a line each, those that others need
    before them; None where all of it is in the kernel already, which is said on stderr.

    `kernel`, in which `source` is, is of architecture `arch` and has the format `format_` in it.
    Raises UserError, FetchError and LoaderError.
    """
    releases = images.releases(kernel, format_)
    with images.running(kernel, format_).open() as image:
        wanted = kmodule.vermagic(image.data, releases)
    if wanted is None:
        raise UserError(f"{kernel.name}: loads no modules (it is without CONFIG_MODULES)")
    try:
        found = _Search(source, releases).all(text.split("\n"))
        for module in found:
            _check(module, kernel.name, arch, wanted)
    except (FetchError, UserError) as error:
        raise UserError(f"{error} (--modules)") from error
    return "\n".join(f"{m.path} {m.parameters}".strip() for m in found) or None


def read(text: str) -> list[Loaded]:
    """The modules of a case, as `resolved` names them. Raises UserError."""
    return [_loaded(*_split(line)) for line in text.split("\n")]


def _split(line: str) -> tuple[str, str]:
    """What is to be loaded, and its parameters, behind a blank."""
    with contextlib.suppress(OSError):  # with many parameters it is no name of a file
        if Path(line).exists():
            return line, ""
    name = line.partition("=")[0].rfind("/") + 1
    what, _, parameters = line[name:].strip().partition(" ")
    return line[:name] + what, parameters.strip()


def _loaded(path: str, parameters: str) -> Loaded:
    try:
        data = modules.read(Path(path))
        info = kmodule.read(data, path)
    except (FetchError, LoaderError) as error:
        raise UserError(str(error)) from error
    name = info.name or modules.name_of(path)
    if not _NAME.fullmatch(name):  # it is a part of paths in the guest, and of its tests
        raise UserError(f"{path}: {quoted(printable(name.encode()))} is no name of a module")
    return Loaded(name, Path(path), parameters, data, info)


def _check(module: Loaded, kernel: str, arch: str, wanted: str) -> None:
    """Whether the kernel would load it. Raises UserError."""
    info = module.info
    if info.arch != arch:
        raise UserError(
            f"{module.path}: is a module for {info.arch}, and {kernel} a kernel of {arch}"
        )
    if info.vermagic != wanted:
        raise UserError(
            f"{module.path}: is built for the kernel {info.vermagic!r}, and {kernel} is"
            f" {wanted!r} (vermagic); take the modules of its own build"
        )


class _Search:
    """Modules and those that they need, each once, where the user or the kernel says they are."""

    def __init__(self, source: Source, releases: tuple[str, ...]) -> None:
        self._source, self._releases = source, releases
        self._given: dict[str, str] = {}
        self._parameters: dict[str, str] = {}
        self._found: dict[str, Loaded] = {}

    def all(self, lines: list[str]) -> list[Loaded]:
        asked = [each for line in lines if line.strip() for each in self._asked(*_split(line))]
        files = (what for what, _, _ in asked if modules.is_module(what))
        self._given = {modules.name_of(file): file for file in files}
        self._parameters = {modules.name_of(what): words for what, words, _ in asked}
        for what, _, place in asked:
            self._add(what, place, ())
        return [*self._found.values()]

    def _asked(self, what: str, parameters: str) -> Iterator[tuple[str, str, Modules | None]]:
        """Names and files, with the place where they and what they need are looked for."""
        path = Path(what)
        if modules.is_module(what):
            yield what, parameters, modules.in_directory(path.absolute().parent, deep=False)
        elif path.is_dir():
            place = modules.at(path)
            if not 0 < len(place.paths) <= _MOST:
                count = f"{len(place.paths):,}" if place.paths else "no"
                raise UserError(f"{what}: has {count} modules; name those you want: {what}/NAME")
            yield from ((file, parameters, place) for _, file in sorted(place.paths.items()))
        elif "/" in what:
            yield path.name, parameters, modules.at(path.parent)
        else:
            yield from ((name, parameters, None) for name in what.split(",") if name)

    def _add(self, what: str, place: Modules | None, needed_by: tuple[str, ...]) -> None:
        name = modules.name_of(what)
        if name in self._found:
            return
        if name in needed_by or len(needed_by) > _DEEPEST:
            raise UserError(f"{' needs '.join((*needed_by, name))}: no order to load them in")
        file = what if modules.is_module(what) else self._file(name, place, needed_by)
        if file is None:
            say(f"--modules: {name} is built into the kernel")
            return
        module = _loaded(file, self._parameters.get(name, ""))
        for other in module.info.depends:
            self._add(self._given.get(other, other), place, (*needed_by, name))
        self._found[name] = module

    def _file(self, name: str, place: Modules | None, needed_by: tuple[str, ...]) -> str | None:
        """The file of a module; None when it is a part of the kernel."""
        tried: list[Modules] = []
        why = f", which {needed_by[-1]} needs," if needed_by else ""
        try:
            for where in self._places(place):
                if path := where.paths.get(name):
                    return str(where.files([path])[path])
                if name in where.built_in:
                    return None
                tried.append(where)
        except FetchError as error:
            at = f" in {place.where}" if place else ""
            raise UserError(f"no module {name}{why}{at}; {error}") from error
        near = difflib.get_close_matches(name, [n for each in tried for n in each.paths], 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        places = " or ".join(each.where for each in tried)
        raise UserError(f"no module {name}{why} in {places}{hint}")

    def _places(self, first: Modules | None) -> Iterator[Modules]:
        """Where a module may be; the kernel's own are only looked for when it comes to that."""
        if first is not None:
            yield first
        yield self._kernels

    @functools.cached_property
    def _kernels(self) -> Modules:
        return modules.of_kernel(self._source, self._releases)
