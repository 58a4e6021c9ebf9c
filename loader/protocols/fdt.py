"""The flattened device tree a kernel is given: the machine's own, with /chosen filled in.

Source: Devicetree Specification v0.4, section 3.6 (/chosen) and chapter 5 (flattened format);
Documentation/devicetree/bindings/chosen.txt of the kernel for linux,initrd-*.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from typing import Final

from bootproof.loader.address import Range, align_up
from bootproof.loader.errors import LoaderError
from bootproof.loader.fdtlib import fdt

DTB_MAX: Final = 2 << 20  # Documentation/arch/arm64/booting.rst section 2
LABEL: Final = "bootproof,request"
_MAGIC: Final = 0xD00DFEED
_NAME_LIMIT: Final = 32  # section 2.2.4
_BEGIN_NODE, _END_NODE, _PROPERTY, _NOP, _END = 1, 2, 3, 4, 9
_HEADER = struct.Struct(">10I")

_INITRD: Final = ("linux,initrd-start", "linux,initrd-end")
# Host entropy, which would make each boot a different one. A random pool that is not seeded at all
# costs guest instructions, so that one is given the same bytes each time.
_KASLR_SEED, _RNG_SEED = "kaslr-seed", "rng-seed"
RNG_SEED: Final = hashlib.sha256(b"bootproof").digest()  # as long as QEMU's own


class DeviceTreeError(LoaderError):
    """Bytes that are no flattened device tree, or one that a kernel would not take."""

    code = "DeviceTree::Invalid"


def chosen(dtb: bytes, *, cmdline: bytes, initrd: Range | None, label: str = "") -> bytes:
    """`dtb` with command line, initrd and label in /chosen, without another's initrd.

    There is no kaslr-seed, and rng-seed is always the same. The initrd is a guest-physical range.
    Bytes behind the header's totalsize are dropped. Raises DeviceTreeError.
    """
    tree = _parse(dtb)
    values = {"bootargs": cmdline + b"\0", _RNG_SEED: RNG_SEED}
    if initrd is not None:
        ends = (struct.pack(">Q", end) for end in (initrd.start, initrd.end))
        values |= zip(_INITRD, ends, strict=True)
    if label:
        values[LABEL] = label.encode() + b"\0"
    try:
        for name in (_KASLR_SEED, *_INITRD, *values):
            if tree.exist_property(name, "/chosen"):
                tree.remove_property(name, "/chosen")
        for name, data in values.items():
            tree.add_item(fdt.PropBytes(name, data=data), "/chosen", create=True)
        patched: bytes = tree.to_dtb(version=17)
    except Exception as error:  # as in _parse
        raise DeviceTreeError(f"the device tree cannot be written: {error}") from error
    if len(patched) > DTB_MAX:
        raise DeviceTreeError(
            "the device tree is too large", field="totalsize", value=len(patched), limit=DTB_MAX
        )
    return patched


def chosen_size(dtb: bytes, *, cmdline: bytes, initrd: bool, label: str = "") -> int:
    """The size of what `chosen` gives; it does not depend on where the initrd lies."""
    return len(chosen(dtb, cmdline=cmdline, initrd=Range(0, 1) if initrd else None, label=label))


def read_chosen(dtb: bytes) -> dict[str, bytes]:
    """The properties of /chosen in any bytes; none where they are no device tree that has it."""
    found: dict[str, bytes] = {}
    try:
        for path, name, value in _walk(dtb):
            if name is not None and path == [b"", b"chosen"]:
                found[name.decode("ascii", "replace")] = value
    except (struct.error, ValueError, IndexError):
        return {}
    return found


def count_cpus(dtb: bytes) -> int | None:
    """How many CPUs a device tree lists (section 3.8); None where the bytes are no device tree."""
    try:
        return sum(
            name is None and path[:-1] == [b"", b"cpus"] and path[-1].startswith(b"cpu@")
            for path, name, _ in _walk(dtb)
        )
    except (struct.error, ValueError, IndexError):
        return None


def _walk(dtb: bytes) -> Iterator[tuple[list[bytes], bytes | None, bytes]]:
    """Each node's path (with None for a name), and each property's path, name and value.

    One pass over the structure block: a stranger's tree may be made to be slow to build in memory.
    Raises struct.error, ValueError or IndexError for bytes that are no device tree.
    """
    _, _, structure, strings = struct.unpack_from(">4I", dtb)
    path: list[bytes] = []
    while True:
        (token,) = struct.unpack_from(">I", dtb, structure)
        structure += 4
        if token == _BEGIN_NODE:
            end = dtb.index(0, structure)
            path.append(dtb[structure:end])
            structure = align_up(end + 1, 4)
            yield path, None, b""
        elif token == _END_NODE:
            path.pop()
        elif token == _PROPERTY:
            size, name = struct.unpack_from(">2I", dtb, structure)
            start = structure + 8
            key = dtb[strings + name : strings + name + _NAME_LIMIT].partition(b"\0")[0]
            yield path, key, dtb[start : start + size]
            structure = align_up(start + size, 4)
        elif token == _END:
            return
        elif token != _NOP:
            raise ValueError(f"unknown token {token:#x}")


def _without_nops(dtb: bytes) -> bytes:
    """The tree without NOP tokens, which the library does not know; zeros follow its end instead.

    Raises struct.error or ValueError for a structure block that cannot be walked.
    """
    (start,) = struct.unpack_from(">I", dtb, 8)
    kept, at, token = [], start, _NOP
    while token != _END:
        begin = at
        (token,) = struct.unpack_from(">I", dtb, at)
        at += 4
        if token == _BEGIN_NODE:
            at = align_up(dtb.index(0, at) + 1, 4)
        elif token == _PROPERTY:
            (size,) = struct.unpack_from(">I", dtb, at)
            at = align_up(at + 8 + size, 4)
        elif token not in (_END_NODE, _NOP, _END):
            raise ValueError(f"unknown token {token:#x} at {begin:#x}")
        if token != _NOP:
            kept.append(dtb[begin:at])
    structure = b"".join(kept)
    return dtb[:start] + structure.ljust(at - start, b"\0") + dtb[at:]


def _parse(dtb: bytes) -> fdt.FDT:
    if len(dtb) < _HEADER.size:
        raise DeviceTreeError(
            "too short for a device tree", field="size", value=len(dtb), limit=_HEADER.size
        )
    magic, total_size = _HEADER.unpack_from(dtb)[:2]
    if magic != _MAGIC:
        raise DeviceTreeError("no device tree", field="magic", value=hex(magic), limit=hex(_MAGIC))
    if total_size > len(dtb):
        raise DeviceTreeError(
            "the device tree is cut short", field="totalsize", value=total_size, limit=len(dtb)
        )
    # The library keeps the memory reservations of every tree it reads in one list, a default value.
    shared: list[object] = fdt.FDT().entries
    shared.clear()
    try:
        tree = fdt.parse_dtb(_without_nops(dtb[:total_size]))
        tree.entries = list(tree.entries)
        return tree
    except Exception as error:  # the library raises bare Exception for malformed input
        raise DeviceTreeError(f"the device tree cannot be read: {error}") from error
    finally:
        shared.clear()
