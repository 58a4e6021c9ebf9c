"""What a kernel file is and what loading it would do, without loading it.

Owns gathering what identify, unpack and the loaders know into one value for people and
programs. Must not know: how it is shown (harness/report/inspection.py), nor QEMU.

Header flags are named as in Documentation/arch/x86/boot.rst, Documentation/arch/arm64/booting.rst
and Documentation/arch/riscv/boot-image-header.rst.
"""

from __future__ import annotations

from dataclasses import astuple, replace
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.loader import bzimage, imageheader, setupheader
from bootproof.loader.address import U64_MAX
from bootproof.loader.assemble import LOADERS
from bootproof.loader.banner import banner_release
from bootproof.loader.elf32 import Elf32Header, pvh_entry
from bootproof.loader.elfheader import EI_CLASS, ELFCLASS32, ElfHeader
from bootproof.loader.errors import LoaderError
from bootproof.loader.formats import Format
from bootproof.loader.identify import identify_bytes
from bootproof.loader.image import ImageLike, ImageSource, open_image
from bootproof.loader.memory import AddressSpace
from bootproof.loader.payload import locate
from bootproof.loader.provable import problem
from bootproof.loader.result import Finding, KernelLoaderResult, PvhBootCapability
from bootproof.loader.structures.setup_header import SetupHeader
from bootproof.loader.unpack import DEFAULT_LIMIT, Step, Unpacked, uki_parts, unpack_fully
from bootproof.loader.vmlinux import pvh_of_payload

HeaderValue = int | str | tuple[str, ...]

_LOADFLAGS: Final = {
    0: "LOADED_HIGH",
    1: "KASLR_FLAG",
    5: "QUIET_FLAG",
    6: "KEEP_SEGMENTS",
    7: "CAN_USE_HEAP",
}
_XLOADFLAGS: Final = {
    0: "XLF_KERNEL_64",
    1: "XLF_CAN_BE_LOADED_ABOVE_4G",
    2: "XLF_EFI_HANDOVER_32",
    3: "XLF_EFI_HANDOVER_64",
    4: "XLF_EFI_KEXEC",
    5: "XLF_5LEVEL",
    6: "XLF_5LEVEL_ENABLED",
    7: "XLF_MEM_ENCRYPTION",
}
_ELF_FIELDS: Final = ("e_type", "e_machine", "e_entry", "e_phnum")
_PLACE_ANYWHERE: Final = 1 << 3  # flags of arm64
PLACED_ANYWHERE: Final = "placed anywhere"

# The protocol version each shown field of the setup header came with.
_SETUP_FIELDS: Final = {
    "code32_start": 0x200,
    "initrd_addr_max": 0x203,
    "kernel_alignment": setupheader.PROTOCOL_2_05,
    "relocatable_kernel": setupheader.PROTOCOL_2_05,
    "min_alignment": setupheader.PROTOCOL_2_10,
    "cmdline_size": 0x206,
    "payload_offset": setupheader.PROTOCOL_2_08,
    "payload_length": setupheader.PROTOCOL_2_08,
    "pref_address": setupheader.PROTOCOL_2_10,
    "init_size": setupheader.PROTOCOL_2_10,
    "handover_offset": 0x20B,
}


@dataclass(frozen=True, slots=True)
class Layer:
    """A packing around the kernel: bytes `offset`, `packed_size` of `container` give `size`."""

    container: str
    packing: str
    offset: int
    packed_size: int
    size: int


@dataclass(frozen=True, slots=True)
class Pvh:
    """The PVH capability; `align`, `min`, `max` are the relocation range where there is one."""

    state: str
    entry: int | None = None
    align: int | None = None
    min: int | None = None
    max: int | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a loader puts the kernel, guest-physical; all ends are exclusive.

    `offset` is the kernel offset asked for; `load`, `end`, the footprint, `entry_points` and `pvh`
    are those of `KernelLoaderResult`.
    """

    offset: int | None
    load: int
    end: int
    footprint_start: int
    footprint_end: int
    entry_points: dict[str, int]
    pvh: Pvh


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a loader refuses the kernel: the error's stable code, and its sentence."""

    code: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Change:
    """What differs between two placements: the name of the value, and the value in each."""

    what: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class BzImagePayload:
    """The compressed vmlinux inside a bzImage: where, how packed, and its own PVH capability.

    `size` is what the size word behind it says. `pvh` is None when the vmlinux cannot be read.
    """

    packing: str
    offset: int
    packed_size: int
    size: int
    pvh: Pvh | None


@dataclass(frozen=True, slots=True)
class Inspection:
    """All there is to say about a kernel file; `dataclasses.asdict` of it is JSON.

    Sizes are in bytes.
    """

    # Of the file as it is.
    file: str
    size: int
    format: str
    arch: str | None
    release: str | None
    # The packings around the kernel, the loadable format in them, and the size of that.
    layers: tuple[Layer, ...]
    kernel: str
    kernel_size: int
    payload: BzImagePayload | None
    # What its loader says without an offset.
    placed: Placement | None
    refused: Refusal | None
    # The same with the offset, where one was asked for, and what differs then.
    moved: Placement | None
    moved_refused: Refusal | None
    changes: tuple[Change, ...]
    header: dict[str, HeaderValue]
    findings: tuple[Finding, ...]
    # Of a unified kernel image.
    initrd_size: int | None
    cmdline: str | None
    # Why its boot cannot be proved, as far as that is known.
    unprovable: str | None = None


def inspect(
    image: ImageLike, *, offset: int | None = None, limit: int = DEFAULT_LIMIT
) -> Inspection:
    """Looks at `image` through its packings, and asks its loader about `offset` (as the loader
    takes it: see `kernel_offset` of `Elf.load`, `BzImage.load`, `Pe.load`).

    At most `limit` bytes are unpacked. A kernel that its loader refuses is described, with the
    refusal. Raises an `UnpackError` for a file in which no kernel is found, and `Image` errors.
    """
    with open_image(image) as source:
        outer = identify_bytes(source.data).format
        unpacked = unpack_fully(source, limit=limit)
        kernel = open_image(unpacked.data, source.name)
        placed, refused, findings = _ask(kernel, unpacked.format, None)
        moved, moved_refused = None, None
        if offset is not None:
            moved, moved_refused, _ = _ask(kernel, unpacked.format, offset)
        payload, more = _look_into_payload(kernel, unpacked.format, limit)
        found = problem(kernel)
        return Inspection(
            file=source.name,
            size=source.size,
            format=str(outer),
            arch=unpacked.arch,
            release=_release(source, outer, unpacked),
            layers=tuple(_layer(step) for step in unpacked.steps),
            kernel=str(unpacked.format),
            kernel_size=kernel.size,
            payload=payload,
            placed=placed,
            refused=refused,
            moved=moved,
            moved_refused=moved_refused,
            changes=_changes(placed, moved),
            header=_header(kernel, unpacked.format),
            findings=findings + more,
            initrd_size=None if unpacked.initrd is None else len(unpacked.initrd),
            cmdline=unpacked.cmdline,
            unprovable=None if found is None else str(found),
        )


def _ask(
    kernel: ImageSource, kind: Format, offset: int | None
) -> tuple[Placement | None, Refusal | None, tuple[Finding, ...]]:
    """What the loader of `kind` says about `kernel` at `offset`."""
    try:
        result = LOADERS[kind]().load(AddressSpace([(0, U64_MAX)]), kernel, kernel_offset=offset)
    except LoaderError as error:
        return None, Refusal(error.code, str(error)), ()
    return _placement(result, offset), None, result.findings


def _placement(result: KernelLoaderResult, offset: int | None) -> Placement:
    return Placement(
        offset,
        result.kernel_load,
        result.kernel_end,
        result.footprint.start,
        result.footprint.end,
        dict(result.entry_points),
        _pvh(result.pvh_boot_cap),
    )


def _pvh(capability: PvhBootCapability) -> Pvh:
    relocation = astuple(capability.relocation) if capability.relocation else ()
    return Pvh(capability.state.value, capability.entry, *relocation)


def _changes(before: Placement | None, after: Placement | None) -> tuple[Change, ...]:
    if before is None or after is None:
        return ()
    rows = [
        ("kernel_load", f"{before.load:#x}", f"{after.load:#x}"),
        ("kernel_end", f"{before.end:#x}", f"{after.end:#x}"),
        ("footprint", _footprint(before), _footprint(after)),
        ("PVH", before.pvh.state, after.pvh.state),
    ]
    for name in before.entry_points | after.entry_points:
        rows.append((f"{name} entry", _entry(before, name), _entry(after, name)))
    return tuple(Change(*row) for row in rows if row[1] != row[2])


def _entry(placement: Placement, name: str) -> str:
    address = placement.entry_points.get(name)
    return "none" if address is None else f"{address:#x}"


def _footprint(placement: Placement) -> str:
    return f"{placement.footprint_start:#x}-{placement.footprint_end - 1:#x}"


def _layer(step: Step) -> Layer:
    sizes = step.offset, step.packed_size, step.size
    return Layer(str(step.container), str(step.packing or "stored"), *sizes)


def _look_into_payload(
    kernel: ImageSource, kind: Format, limit: int
) -> tuple[BzImagePayload | None, tuple[Finding, ...]]:
    """The payload of a bzImage, or why it cannot be read, as a finding."""
    if kind is not Format.BZIMAGE:
        return None, ()
    payload = None
    try:
        with open_image(kernel):
            found = locate(kernel.data, identify_bytes(kernel.data))
            sizes = found.offset, found.size, found.declared or 0
            payload = BzImagePayload(str(found.packing), *sizes, pvh=None)
            return replace(payload, pvh=_pvh(pvh_of_payload(kernel, found, limit=limit))), ()
    except LoaderError as error:
        return payload, (Finding("payload-unreadable", str(error)),)


def _release(source: ImageSource, outer: Format, unpacked: Unpacked) -> str | None:
    if unpacked.format is Format.BZIMAGE:
        return identify_bytes(unpacked.data).release
    named = uki_parts(source).release if outer is Format.UKI else None
    return named or banner_release(unpacked.data)


def _header(kernel: ImageSource, kind: Format) -> dict[str, HeaderValue]:
    """The kernel's own header, as far as it says something about booting."""
    try:
        if kind is Format.BZIMAGE:
            return _setup_header(bzimage.read_setup_header(kernel))
    except LoaderError:
        return {}
    if kind is Format.IMAGE:
        return _image_header(kernel.data)
    return _elf_header(kernel)


def _elf_header(kernel: ImageSource) -> dict[str, HeaderValue]:
    """The fields by the header's own class, and the PVH note of a file that is not loaded."""
    narrow = kernel.size > EI_CLASS and kernel.data[EI_CLASS] == ELFCLASS32
    layout = Elf32Header if narrow else ElfHeader
    if kernel.size < layout.SIZE:
        return {}
    header = layout.from_bytes(kernel.data)
    shown: dict[str, HeaderValue] = {name: getattr(header, name) for name in _ELF_FIELDS}
    if isinstance(header, Elf32Header):
        entry = pvh_entry(kernel, header)
        shown = {"class": "32-bit"} | shown | ({} if entry is None else {"PVH entry": entry})
    return shown


def _setup_header(header: SetupHeader) -> dict[str, HeaderValue]:
    shown: dict[str, HeaderValue] = {
        "protocol": f"{header.version >> 8}.{header.version & 0xFF:02}",
        "loadflags": _names(header.loadflags, _LOADFLAGS),
    }
    if header.version >= setupheader.PROTOCOL_2_12:
        shown["xloadflags"] = _names(header.xloadflags, _XLOADFLAGS)
    for name, since in _SETUP_FIELDS.items():
        if header.version >= since:
            shown[name] = int(getattr(header, name))
    return shown


def _image_header(data: memoryview) -> dict[str, HeaderValue]:
    header = imageheader.ImageHeader.from_bytes(data)
    flags = ["big-endian" if header.flags & imageheader.BIG_ENDIAN else "little-endian"]
    if header.magic == imageheader.ARM64_MAGIC:
        size = imageheader.page_size(data)
        flags.append(f"{size} pages" if size else "page size not said")
        flags.append(PLACED_ANYWHERE if header.flags & _PLACE_ANYWHERE else "placed near base")
    return {
        "text_offset": header.text_offset,
        "image_size": header.image_size,
        "flags": tuple(flags),
    }


def _names(value: int, bits: dict[int, str]) -> tuple[str, ...]:
    width = range(value.bit_length())
    return tuple(bits.get(bit, f"bit {bit}") for bit in width if value >> bit & 1)
