"""BootImage: guest RAM, register state and entry as a directory that any loader can write.

    boot.json   what it is: banks, registers per CPU, entry, protocol, regions, provenance
    ram.img     the bytes of guest RAM, sparse; each bank says at which offset it lies
    NAME.img    if there is one: a part of RAM that many boot images have in common

The format is public and versioned (docs/boot-image.md, docs/boot-image.schema.json); it knows
nothing of QEMU. boot.json is written last, so that a directory with a boot.json is complete. A
directory may come from a stranger: reading it is bounded, follows no link, and trusts nothing.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, fields
from itertools import pairwise
from pathlib import Path
from typing import Final, TypeVar

from bootproof.dataclass import dataclass
from bootproof.loader import strictjson
from bootproof.loader.address import PAGE, U64_MAX, Range, is_aligned
from bootproof.loader.arch import How, Registers, from_json, to_json
from bootproof.loader.arch.table import ARCHITECTURES
from bootproof.loader.errors import LoaderError
from bootproof.loader.layout import Region
from bootproof.loader.memory import Bank, GuestMemory
from bootproof.loader.protocols.table import PROTOCOLS

FORMAT: Final = "bootproof boot image"
FORMAT_VERSION: Final = 1
DESCRIPTION: Final = "boot.json"
RAM: Final = "ram.img"

# Registers that follow no boot protocol: there are no rules to hold them against.
NO_PROTOCOL: Final = "none"

DESCRIPTION_LIMIT: Final = 1 << 20
_MOST_BANKS, _MOST_CPUS, _MOST_REGIONS, _MOST_PROVENANCE = 64, 256, 256, 256
_MOST_UNSEEN: Final = 1024
_MOST_BACKING: Final = 16
_TEXT_LIMIT: Final = 65536
_FIELD_LIMIT: Final = 256
_WHY_NOT: Final = {errno.ELOOP: "is a symbolic link", errno.ENXIO: "not a regular file"}
_HELD_AGAINST: Final = ("kernel", "initrd", "cmdline")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,63}", re.ASCII)
_BACKING_NAME: Final = re.compile(r"(?!ram\.)[a-z][a-z0-9-]{0,31}\.img", re.ASCII)


T = TypeVar("T")


class BootImageError(LoaderError):
    """A directory that is no boot image, or a malformed one."""

    code = "BootImage::Invalid"


@dataclass(frozen=True, slots=True)
class Unseen:
    """A part of an imported boot image that whoever imported it did not see."""

    # As boot.json names it: "cpus[0].efer".
    field: str
    how: How
    # What it was derived from, or whose word it is: "cs and cr0", "linux64".
    source: str

    def __str__(self) -> str:
        return f"{self.how.value} {'from' if self.how is How.DERIVED else 'by'} {self.source}"


@dataclass(frozen=True, slots=True)
class Backing:
    """`size` bytes of RAM at guest-physical `address` that are in a file of their own.

    Of a backing file in the directory; what ram.img has there is not looked at.
    """

    file: str
    address: int
    size: int

    @property
    def range(self) -> Range:
        return Range(self.address, self.size)


@dataclass(frozen=True, slots=True)
class BootImage:
    """A guest that is ready to be started."""

    arch: str
    protocol: str
    banks: tuple[Bank, ...]
    # The registers of CPU 0, 1, …, of which the kernel starts all but the first.
    cpus: tuple[Registers, ...]
    # What lies where in guest-physical RAM.
    regions: tuple[Region, ...] = ()
    # Free-form text about where it comes from: kernel, digests, offset, command line.
    provenance: Mapping[str, str] = field(default_factory=dict)
    # Empty unless it was imported: then all else was seen.
    unseen: tuple[Unseen, ...] = ()
    # Empty where ram.img holds all of RAM.
    backing: tuple[Backing, ...] = ()

    @property
    def entry(self) -> int:
        """Guest address of the first instruction of CPU 0."""
        return self.cpus[0].pc

    @property
    def ram(self) -> tuple[Range, ...]:
        return tuple(bank.range for bank in self.banks)

    @property
    def memory_size(self) -> int:
        return sum(bank.size for bank in self.banks)

    @property
    def marks(self) -> dict[str, list[str]]:
        """The registers that were not seen, by why they are known: "assumed by linux64"."""
        found: dict[str, list[str]] = {}
        for item in self.unseen:
            found.setdefault(str(item), []).append(item.field.removeprefix("cpus[0]."))
        return found

    def region(self, name: str) -> Range | None:
        return next((item.range for item in self.regions if item.name == name), None)


def save(image: BootImage, directory: Path) -> None:
    """Writes boot.json into `directory`, in which ram.img already is. Atomic."""
    part = directory / f"{DESCRIPTION}.part"
    try:
        part.write_bytes(description(image))
        part.replace(directory / DESCRIPTION)
    except OSError as error:
        part.unlink(missing_ok=True)
        file = str(directory / DESCRIPTION)
        raise BootImageError(f"cannot be written: {error.strerror}", file=file) from error


def description(image: BootImage) -> bytes:
    """The boot.json of an image."""
    data: dict[str, object] = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "arch": image.arch,
        "protocol": image.protocol,
        "entry": hex(image.entry),
        "banks": [
            {"address": hex(b.base), "size": hex(b.size), "offset": hex(b.file_offset)}
            for b in image.banks
        ],
        "cpus": [to_json(registers) for registers in image.cpus],
        "regions": [
            {"name": r.name, "address": hex(r.range.start), "size": hex(r.range.size)}
            for r in image.regions
        ],
        "provenance": dict(image.provenance),
    }
    if image.unseen:
        data["unseen"] = [
            {"field": u.field, "how": u.how.value, "source": u.source} for u in image.unseen
        ]
    if image.backing:
        data["backing"] = [
            {"file": b.file, "address": hex(b.address), "size": hex(b.size)} for b in image.backing
        ]
    return (json.dumps(data, indent=2) + "\n").encode()


def open_boot_image(directory: Path) -> BootImage:
    """Reads a boot image. Raises BootImageError naming the JSON path and the reason."""
    path = directory / DESCRIPTION
    try:
        image = parse(_read(path))
        _check_ram_file(image, directory / RAM)
    except ValueError as error:
        raise BootImageError(str(error), file=str(path)) from error
    return image


def open_ram(
    image: BootImage, directory: Path, nonzero: Mapping[str, Sequence[Range]] = {}
) -> GuestMemory:
    """The RAM of an opened boot image, to be read. Raises GuestMemoryError.

    `nonzero` has what `GuestMemory.lend` wants to know of a backing file, where that is known.
    """
    memory = GuestMemory.open(directory / RAM, image.banks)
    try:
        for part in image.backing:
            memory.lend(part.range, directory / part.file, nonzero.get(part.file))
    except BaseException:
        memory.close()
        raise
    return memory


def parse(raw: bytes) -> BootImage:
    """The boot image that a boot.json describes. Raises ValueError naming the JSON path."""
    root = strictjson.record(
        strictjson.parse(raw),
        "$",
        ("version", "arch", "protocol", "banks", "cpus"),
        ("format", "entry", "regions", "provenance", "unseen", "backing"),
    )
    if "format" in root:
        strictjson.one_of(root["format"], "$.format", (FORMAT,))
    version = root["version"]
    if version != FORMAT_VERSION or not isinstance(version, int) or isinstance(version, bool):
        raise ValueError(
            f"$.version: {strictjson.shown(version)} is not known; this program reads"
            f" {FORMAT_VERSION}"
        )
    arch = strictjson.one_of(root["arch"], "$.arch", tuple(ARCHITECTURES))
    kind = ARCHITECTURES[arch].registers
    image = BootImage(
        arch=arch,
        protocol=_protocol(root["protocol"], arch),
        banks=_items(root, "banks", (1, _MOST_BANKS), _bank),
        cpus=_items(root, "cpus", (1, _MOST_CPUS), lambda item, path: from_json(kind, item, path)),
        regions=_items(root, "regions", (0, _MOST_REGIONS), _region),
        provenance=_provenance(root.get("provenance", {})),
        unseen=_items(root, "unseen", (0, _MOST_UNSEEN), _unseen),
        backing=_items(root, "backing", (0, _MOST_BACKING), _backing),
    )
    if "entry" in root and strictjson.number(root["entry"], "$.entry") != image.entry:
        raise ValueError(
            f"$.entry: differs from the program counter of $.cpus[0], {image.entry:#x}"
        )
    _check_disjoint("$.banks", "addresses", [bank.range for bank in image.banks])
    _check_disjoint("$.banks", f"offsets in {RAM}", [bank.file_range for bank in image.banks])
    _check_backing(image)
    _check_regions(image.regions)
    _check_unseen(image)
    return image


def _check_regions(regions: Sequence[Region]) -> None:
    names = [region.name for region in regions]
    for name in _HELD_AGAINST:
        if names.count(name) > 1:
            second = names.index(name, names.index(name) + 1)
            raise ValueError(
                f'$.regions[{second}].name: "{name}" occurs twice; it is one range, which the guest'
                " is held against"
            )


def _check_unseen(image: BootImage) -> None:
    registers = [each.name for each in fields(ARCHITECTURES[image.arch].registers)]
    known = {f"cpus[{n}].{name}" for n in range(len(image.cpus)) for name in registers}
    marked: set[str] = set()
    for number, item in enumerate(image.unseen):
        path, said = f"$.unseen[{number}].field", strictjson.shown(item.field)
        if item.field not in known:
            raise ValueError(
                f"{path}: {said} is no register in $.cpus; write cpus[0].{registers[0]}"
            )
        if item.field in marked:
            raise ValueError(f"{path}: {said} occurs twice")
        marked.add(item.field)


def _check_backing(image: BootImage) -> None:
    _check_disjoint("$.backing", "addresses", [part.range for part in image.backing])
    for number, part in enumerate(image.backing):
        if not any(bank.contains(part.range) for bank in image.ram):
            raise ValueError(f"$.backing[{number}]: {part.range} is not inside one bank")


def _read(path: Path) -> bytes:
    """All of a small regular file. Raises BootImageError; never blocks, never follows a link."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        reason = _WHY_NOT.get(error.errno or 0) or error.strerror
        missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
        advice = f"name the directory that holds {DESCRIPTION} and {RAM}" if missing else None
        raise BootImageError(f"no boot image: {reason}", file=str(path), advice=advice) from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise BootImageError("no boot image: not a regular file", file=str(path))
        raw = os.read(fd, DESCRIPTION_LIMIT + 1)
    except OSError as error:
        raise BootImageError(f"cannot be read: {error.strerror}", file=str(path)) from error
    finally:
        os.close(fd)
    if len(raw) > DESCRIPTION_LIMIT:
        raise BootImageError("is larger than 1 MiB", file=str(path))
    return raw


def _check_ram_file(image: BootImage, path: Path) -> None:
    try:
        found = path.lstat()
    except OSError as error:
        raise BootImageError(f"no boot image: {error.strerror}", file=str(path)) from error
    if not stat.S_ISREG(found.st_mode):
        what = "is a symbolic link" if stat.S_ISLNK(found.st_mode) else "not a regular file"
        raise BootImageError(f"no boot image: {what}", file=str(path))
    for number, bank in enumerate(image.banks):
        if bank.file_range.end > found.st_size:
            raise ValueError(
                f"$.banks[{number}]: ends at offset {bank.file_range.end:#x} of {RAM}, which has"
                f" {found.st_size:#x} bytes"
            )


def _protocol(value: object, arch: str) -> str:
    name = strictjson.one_of(value, "$.protocol", (*PROTOCOLS, NO_PROTOCOL))
    if name != NO_PROTOCOL and PROTOCOLS[name].arch.name != arch:
        theirs = PROTOCOLS[name].arch.name
        raise ValueError(f"$.protocol: {name} is a protocol of {theirs}, not {arch}")
    return name


def _items(
    root: Mapping[str, object], key: str, count: tuple[int, int], parse: Callable[[object, str], T]
) -> tuple[T, ...]:
    items = strictjson.array(root.get(key, []), f"$.{key}", *count)
    return tuple(parse(item, f"$.{key}[{i}]") for i, item in enumerate(items))


def _bank(data: object, path: str) -> Bank:
    item = strictjson.record(data, path, ("address", "size", "offset"))
    for key in item:
        if not is_aligned(strictjson.number(item[key], f"{path}.{key}"), PAGE):
            raise ValueError(f"{path}.{key}: {strictjson.shown(item[key])} is no multiple of 4096")
    place = _range(item, "address", path)
    return Bank(place.start, place.size, _range(item, "offset", path).start)


def _region(data: object, path: str) -> Region:
    item = strictjson.record(data, path, ("name", "address", "size"))
    name = item["name"]
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"{path}.name: {strictjson.shown(name)} is no name: 1 to 64 letters, digits, blanks"
            " and . _ + -, the first a letter or digit"
        )
    return Region(name, _range(item, "address", path))


def _backing(data: object, path: str) -> Backing:
    item = strictjson.record(data, path, ("file", "address", "size"))
    name = item["file"]
    if not isinstance(name, str) or not _BACKING_NAME.fullmatch(name):
        raise ValueError(
            f"{path}.file: {strictjson.shown(name)} is no backing file: up to 32 small letters,"
            f" digits and -, the first a letter, and then .img, but not {RAM}"
        )
    place = _range(item, "address", path)
    return Backing(name, place.start, place.size)


def _unseen(data: object, path: str) -> Unseen:
    item = strictjson.record(data, path, ("field", "how", "source"))
    how = strictjson.one_of(item["how"], f"{path}.how", tuple(how.value for how in How))
    field_, source = (
        strictjson.text(item[key], f"{path}.{key}", _FIELD_LIMIT) for key in ("field", "source")
    )
    return Unseen(field_, How(how), source)


def _range(item: Mapping[str, object], start: str, path: str) -> Range:
    first, size = (strictjson.number(item[key], f"{path}.{key}") for key in (start, "size"))
    if size == 0:
        raise ValueError(f"{path}.size: must not be 0")
    if first + size > U64_MAX:
        raise ValueError(f"{path}: {start} {first:#x} + size {size:#x} does not fit 64 bits")
    return Range(first, size)


def _provenance(data: object) -> dict[str, str]:
    items = strictjson.mapping(data, "$.provenance")
    if len(items) > _MOST_PROVENANCE:
        raise ValueError(f"$.provenance: has {len(items)} entries, at most {_MOST_PROVENANCE}")
    return {
        key: strictjson.text(value, strictjson.below("$.provenance", key), _TEXT_LIMIT)
        for key, value in items.items()
    }


def _check_disjoint(path: str, what: str, ranges: Sequence[Range]) -> None:
    for left, right in pairwise(sorted(ranges)):
        if left.overlaps(right):
            raise ValueError(f"{path}: the {what} {left} and {right} overlap")
