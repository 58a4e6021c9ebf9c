"""BootImage: guest RAM, register state and entry as a directory that any loader can write.

    boot.json   what it is: banks, registers per CPU, entry, protocol, regions, provenance
    ram.img     the bytes of guest RAM, sparse; each bank says at which offset it lies

The format is public and versioned; it knows nothing of QEMU. boot.json is written last, so that a
directory with a boot.json is complete.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from loader.address import Range
from loader.errors import LoaderError
from loader.layout import Region
from loader.memory import Bank
from loader.registers import Registers, from_json, number_from_json, to_json

FORMAT_VERSION: Final = 1
DESCRIPTION: Final = "boot.json"
RAM: Final = "ram.img"


class BootImageError(LoaderError):
    """A directory that is no boot image, or a malformed one."""

    code = "BootImage::Invalid"


@dataclass(frozen=True, slots=True)
class BootImage:
    """A guest that is ready to be started.

    `cpus` holds the registers of CPU 0, 1, …; CPUs beyond are left as the machine resets them.
    `regions` names what lies where in guest-physical RAM. `provenance` is free-form text about
    where it comes from (kernel, digests, offset, command line).
    """

    arch: str
    protocol: str
    banks: tuple[Bank, ...]
    cpus: tuple[Registers, ...]
    regions: tuple[Region, ...] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)

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

    def region(self, name: str) -> Range | None:
        return next((item.range for item in self.regions if item.name == name), None)


def save(image: BootImage, directory: Path) -> None:
    """Writes boot.json into `directory`, in which ram.img already is. Atomic."""
    data = {
        "format": "bootproof boot image",
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
    part = directory / f"{DESCRIPTION}.part"
    part.write_text(json.dumps(data, indent=2) + "\n")
    part.replace(directory / DESCRIPTION)


def open_boot_image(directory: Path) -> BootImage:
    """Reads a boot image back. Raises BootImageError naming the JSON path and the reason."""
    try:
        data = json.loads((directory / DESCRIPTION).read_text())
        ram_size = (directory / RAM).stat().st_size
    except OSError as error:
        raise BootImageError(
            f"no boot image: {error.strerror}", file=str(error.filename), field="file"
        ) from error
    except ValueError as error:
        raise BootImageError(f"not JSON: {error}", file=str(directory / DESCRIPTION)) from error
    try:
        image = _parse(data)
        _check_ram(image, ram_size)
    except ValueError as error:
        raise BootImageError(str(error), file=str(directory / DESCRIPTION)) from error
    return image


def _parse(data: object) -> BootImage:
    root = _object(data, "$", ("version", "arch", "protocol", "banks", "cpus"))
    version = number_from_json(root["version"], "$.version")
    if version != FORMAT_VERSION:
        raise ValueError(f"$.version: {version} is not known; this program reads {FORMAT_VERSION}")
    arch = _text(root["arch"], "$.arch")
    cpus = tuple(
        from_json(arch, item, f"$.cpus[{i}]") for i, item in enumerate(_list(root, "cpus"))
    )
    if not cpus:
        raise ValueError("$.cpus: at least one CPU is needed")
    image = BootImage(
        arch=arch,
        protocol=_text(root["protocol"], "$.protocol"),
        banks=tuple(_bank(item, f"$.banks[{i}]") for i, item in enumerate(_list(root, "banks"))),
        cpus=cpus,
        regions=tuple(
            _region(item, f"$.regions[{i}]") for i, item in enumerate(_list(root, "regions"))
        ),
        provenance={
            key: _text(value, f"$.provenance.{key}")
            for key, value in _object(root.get("provenance", {}), "$.provenance").items()
        },
    )
    if "entry" in root and number_from_json(root["entry"], "$.entry") != image.entry:
        raise ValueError(
            f"$.entry: differs from the program counter of $.cpus[0], {image.entry:#x}"
        )
    return image


def _check_ram(image: BootImage, ram_size: int) -> None:
    if not image.banks:
        raise ValueError("$.banks: at least one bank is needed")
    expected = 0
    for i, bank in enumerate(image.banks):
        if bank.file_offset != expected:
            raise ValueError(
                f"$.banks[{i}].offset: {bank.file_offset:#x}, but the banks lie one after the other"
                f" and this one begins at {expected:#x}"
            )
        expected += bank.size
        if bank.file_offset + bank.size > ram_size:
            raise ValueError(
                f"$.banks[{i}]: ends at offset {bank.file_offset + bank.size:#x} of {RAM},"
                f" which has {ram_size:#x} bytes"
            )
    ordered = sorted(image.ram)
    for left, right in pairwise(ordered):
        if left.overlaps(right):
            raise ValueError(f"$.banks: {left} and {right} overlap")


def _bank(data: object, path: str) -> Bank:
    item = _object(data, path, ("address", "size", "offset"))
    address, size, offset = (
        number_from_json(item[key], f"{path}.{key}") for key in ("address", "size", "offset")
    )
    _check_range(address, size, path)
    return Bank(address, size, offset)


def _region(data: object, path: str) -> Region:
    item = _object(data, path, ("name", "address", "size"))
    address, size = (number_from_json(item[key], f"{path}.{key}") for key in ("address", "size"))
    _check_range(address, size, path)
    return Region(_text(item["name"], f"{path}.name"), Range(address, size))


def _check_range(address: int, size: int, path: str) -> None:
    if size == 0:
        raise ValueError(f"{path}.size: must not be 0")
    if address + size > 1 << 64:
        raise ValueError(f"{path}: {address:#x} + {size:#x} runs past the end of 64 bits")


def _object(data: object, path: str, required: Sequence[str] = ()) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ValueError(f"{path}: expected an object, found {type(data).__name__}")
    missing = [key for key in required if key not in data]
    if missing:
        raise ValueError(f"{path}.{missing[0]}: required and missing")
    return data


def _list(root: Mapping[str, Any], key: str) -> list[object]:
    value = root.get(key, [])
    if not isinstance(value, list):
        raise ValueError(f"$.{key}: expected a list, found {type(value).__name__}")
    return value


def _text(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{path}: expected a string, found {type(value).__name__}")
    return value
