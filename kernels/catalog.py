"""The catalogue: which kernels have a name, and where in a Debian archive each is found.

Owns the reading and checking of catalog.toml. Must not know mirrors, caches or locks.
All architecture names, ours and Debian's, are data of the file.
"""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bootproof.dataclass import dataclass
from bootproof.kernels.errors import CatalogError, UnknownKernel

CATALOG_PATH = Path(__file__).with_name("catalog.toml")


class Kind(enum.StrEnum):
    """What the file is good for: to be booted, to be booted though it is no Linux, or to be the
    guest's userspace.
    """

    KERNEL = "kernel"
    OTHER = "other"
    BUSYBOX = "busybox"


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One name of the catalogue: a pattern for packages of one suite, and a file inside."""

    name: str
    kind: Kind
    arch: str  # our name of it
    debian_arch: str
    suite: str
    component: str
    package: re.Pattern[str]  # its group `release` is the kernel's
    file: str  # path in the package; {release} stands for the kernel's
    default: bool  # whether it is of the default set
    about: str  # for listings

    def release_of(self, package: str) -> str | None:
        """What `uname -r` says for the kernel in `package`; None for what is no kernel."""
        match = self.package.fullmatch(package)
        return match["release"] if match and "release" in self.package.groupindex else None

    def member_of(self, package: str) -> str:
        """Path of the wanted file inside `package`, without a leading slash."""
        return self.file.format(release=self.release_of(package))


@dataclass(frozen=True, slots=True)
class Catalog:
    """All entries, in the order of the file."""

    entries: Mapping[str, CatalogEntry]

    def __iter__(self) -> Iterator[CatalogEntry]:
        return iter(self.entries.values())

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __getitem__(self, name: str) -> CatalogEntry:
        """The entry called `name`. Raises `UnknownKernel`, which suggests the nearest name."""
        try:
            return self.entries[name]
        except KeyError:
            raise UnknownKernel(self._advice(name)) from None

    def default(self, arch: str | None = None) -> tuple[CatalogEntry, ...]:
        """The default set, busybox included; of one architecture (our name for it) when given."""
        return tuple(e for e in self if e.default and arch in (None, e.arch))

    def kernels(self, arch: str | None = None) -> tuple[CatalogEntry, ...]:
        """Everything that can be booted; of one architecture when given."""
        return tuple(e for e in self if e.kind is Kind.KERNEL and arch in (None, e.arch))

    def busybox(self, arch: str) -> CatalogEntry:
        """The guest's userspace for `arch`. Raises `UnknownKernel` when there is none."""
        for entry in self:
            if entry.kind is Kind.BUSYBOX and entry.arch == arch:
                return entry
        raise UnknownKernel(f'no busybox for "{arch}" in the catalogue')

    def _advice(self, name: str) -> str:
        import difflib  # for what is wrong

        lowered = name.lower()
        rolling = re.sub(r"^\d+\.\d+(\.\d+)?-", "newest-", lowered)
        near = [rolling] if rolling in self.entries else []
        near += [n for n in difflib.get_close_matches(lowered, self.entries) if n not in near]
        hint = f"; did you mean {' or '.join(near[:2])}?" if near else ""
        return (
            f'no kernel named "{name}" in the catalogue{hint} (all names: bootproof fetch --list)'
        )


def load_catalog(path: Path = CATALOG_PATH) -> Catalog:
    """Read and check a catalogue. Raises `CatalogError` naming file, entry and field."""
    return _ours() if path == CATALOG_PATH else _read(path)


@functools.cache
def _ours() -> Catalog:
    return _read(CATALOG_PATH)


def _read(path: Path) -> Catalog:
    import tomllib  # those who name a file have no need of it

    try:
        with path.open("rb") as file:
            document = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise CatalogError(f"{path.name}: cannot be read: {error}") from error
    architectures = document.get("architectures", {})
    try:
        tables = document.get("kernels", {}).items()
        return Catalog({name: _entry(name, table, architectures) for name, table in tables})
    except CatalogError as error:
        raise CatalogError(f"{path.name}: {error}") from error


_OPTIONAL: dict[str, Any] = {"kind": "kernel", "component": "main", "default": False, "about": ""}
_FIELDS = {"arch", "suite", "package", "file", *_OPTIONAL}


def _entry(name: str, table: Mapping[str, Any], architectures: Mapping[str, str]) -> CatalogEntry:
    unknown, missing = table.keys() - _FIELDS, _FIELDS - table.keys() - _OPTIONAL.keys()
    if unknown or missing:
        fields = ", ".join(sorted(unknown or missing))
        raise CatalogError(f"{name}: {'unknown' if unknown else 'missing'} field: {fields}")
    value = _OPTIONAL | dict(table)
    if value["arch"] not in architectures:
        raise CatalogError(f"{name}: arch {value['arch']!r} is not in [architectures]")
    try:
        value["package"] = re.compile(value["package"])
        value["kind"] = Kind(value["kind"])
    except (re.error, ValueError) as error:
        raise CatalogError(f"{name}: {error}") from error
    if "{release}" in value["file"] and "release" not in value["package"].groupindex:
        raise CatalogError(f"{name}: file names {{release}}, package has no such group")
    return CatalogEntry(name=name, debian_arch=architectures[value["arch"]], **value)
