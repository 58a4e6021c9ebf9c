"""Is the kernel in RAM the one of a file: its bytes, its setup header, where it is entered?

For the hand-over of any loader: where it put the kernel is found out, not asked. Knows no boot
protocol but by the name of its entry. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.loader import elfheader, setupheader
from bootproof.loader.address import PAGE, Range, counted
from bootproof.loader.assemble import LOADERS
from bootproof.loader.boot_parameters import Read
from bootproof.loader.bootimage import BootImage
from bootproof.loader.formats import Format
from bootproof.loader.identify import identify_bytes
from bootproof.loader.image import ImageLike, ImageSource, open_image
from bootproof.loader.memory import GuestMemory
from bootproof.loader.protocols.table import PROTOCOLS
from bootproof.loader.protocols.x86 import VMLINUX_ALIGNMENT
from bootproof.loader.result import PvhBootCapability
from bootproof.loader.rules import RuleFinding, violation
from bootproof.loader.segments import PT_LOAD, ProgramHeader
from bootproof.loader.structures.setup_header import SetupHeader
from bootproof.loader.unpack import unpack, unpack_fully

CODE: Final = "kernel-file"
ENTRY: Final = "kernel-entry"
HEADER: Final = "kernel-header"
PLACE: Final = "kernel-place"

_HDR: Final = "boot_params.hdr."
# What a loader may only read (boot.rst, "type" of each field), as far as kernels read it again.
_READ: Final = (
    *("setup_sects", "syssize", "boot_flag", "header", "version", "kernel_version"),
    *("initrd_addr_max", "relocatable_kernel", "min_alignment", "xloadflags", "cmdline_size"),
    *("payload_offset", "payload_length", "pref_address", "init_size"),
)

_CHUNK: Final = 1 << 20
_SAMPLES: Final = 32
_SAME: Final = 0.2  # of them are alike in a kernel that was spoilt, and not in another one
_ROOM: Final = 1 << 40  # what a kernel is laid out in to see where it wants to be
_COUNTED: Final = 64  # pages in which bytes are counted one by one


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes of a kernel file that lie in guest-physical memory in one piece."""

    name: str
    address: int
    data: memoryview


@dataclass(frozen=True, slots=True)
class Layout:
    """A kernel file as it wants to lie in memory."""

    parts: tuple[Part, ...]
    footprint: Range
    entries: Mapping[str, int]
    header: SetupHeader | None
    # Of an ELF file for x86: it is linked to one place, and may be told to move.
    linked: bool
    pvh: PvhBootCapability

    @property
    def pvh_entry(self) -> int:
        return -1 if self.pvh.entry is None else self.pvh.entry

    @property
    def pvh_moves(self) -> bool:
        return self.pvh.relocation is not None


def check(image: BootImage, read: Read, kernel: ImageLike) -> tuple[RuleFinding, ...]:
    """What of a kernel file is not in memory as it should be; `kernel` may be packed.

    Raises LoaderError for a file that is no kernel.
    """
    with open_image(kernel) as source:
        for data in _candidates(source):
            with open_image(data, source.name) as inner:
                layout = _layout(inner)
                moved = _moved(image, read, layout)
                if _share(read, layout.parts, moved) > _SAME:
                    return tuple(_findings(image, read, layout, moved, source.name))
        what = (
            f"the kernel in RAM is not {source.name}: where it would lie, there is something else"
        )
        return (violation(CODE, what, source.name, address=image.entry),)


def _candidates(source: ImageSource) -> Iterator[ImageLike]:
    """The kernel, and what is packed in a bzImage: a loader may have unpacked it."""
    kernel: ImageLike = source
    if identify_bytes(source.data).format not in LOADERS:
        kernel = unpack_fully(source).data
    yield kernel
    with open_image(kernel) as inner:
        packed = identify_bytes(inner.data).format is Format.BZIMAGE
    if packed:
        yield unpack(kernel).data


def _layout(source: ImageSource) -> Layout:
    identity = identify_bytes(source.data)
    with GuestMemory([(0, _ROOM)]) as memory:
        loaded = LOADERS[identity.format]().load(memory, source)
    if identity.format is Format.ELF:
        parts = tuple(_segments(source))
    else:
        start = setupheader.setup_size(loaded.setup_header) if loaded.setup_header else 0
        name = "the protected-mode code" if loaded.setup_header else "the Image"
        parts = (Part(name, loaded.kernel_load, source.data[start:]),)
    return Layout(
        parts,
        loaded.footprint,
        loaded.entry_points,
        loaded.setup_header,
        linked=identity.format is Format.ELF,
        pvh=loaded.pvh_boot_cap,
    )


def _segments(source: ImageSource) -> Iterator[Part]:
    header = elfheader.ElfHeader.from_bytes(source.data)
    for index in range(header.e_phnum):
        row = ProgramHeader.from_bytes(source.data, header.e_phoff + index * ProgramHeader.SIZE)
        if row.p_type == PT_LOAD and row.p_filesz:
            data = source.data[row.p_offset : row.p_offset + row.p_filesz]
            yield Part(f"PT_LOAD[{index}]", row.p_paddr, data)


def _moved(image: BootImage, read: Read, layout: Layout) -> int:
    """How far the kernel was moved: as most of it says."""
    region = image.region("kernel")
    guesses = [0, *([region.start - layout.footprint.start] if region else [])]
    guesses += [image.entry - entry for entry in layout.entries.values()]
    return max(dict.fromkeys(guesses), key=lambda moved: _share(read, layout.parts, moved))


def _share(read: Read, parts: Sequence[Part], moved: int) -> float:
    """The share of some pages, spread over the kernel, that are where they would be."""
    pages = [
        (part.address + moved + at, part.data[at : at + PAGE])
        for part in parts
        for at in range(0, len(part.data), max(PAGE, len(part.data) // _SAMPLES // PAGE * PAGE))
    ]
    held = [(at, bytes(page)) for at, page in pages if any(page)]
    alike = sum(at >= 0 and read(at, len(page)) == page for at, page in held)
    return alike / max(1, len(held))


def _findings(
    image: BootImage, read: Read, layout: Layout, moved: int, name: str
) -> Iterator[RuleFinding]:
    for part in layout.parts:
        yield from _part(read, part, moved, name)
    yield from _place(image, layout, moved, name)
    if image.protocol not in PROTOCOLS:  # registers that follow none lead to nothing that is known
        return
    yield from _header(image, read, layout, name)
    right = layout.entries.get(image.protocol)
    if right is None:
        what = f"the kernel has no entry for {image.protocol}; it has: {_listed(layout, moved)}"
        yield violation(ENTRY, what, name, address=image.entry)
    elif image.entry != right + moved:
        yield _wrong_entry(image, layout, moved, name)


def _header(image: BootImage, read: Read, layout: Layout, name: str) -> Iterator[RuleFinding]:
    """The setup header that was handed over, against the file's."""
    told = dict(PROTOCOLS[image.protocol].fields(image.cpus[0], read))
    if layout.header is None or f"{_HDR}header" not in told:
        return
    fields = ((field, told[_HDR + field], hex(getattr(layout.header, field))) for field in _READ)
    wrong = [f"{field} is {there}, not {file}" for field, there, file in fields if there != file]
    if wrong:
        what = f"the setup header that was handed over is not the file's: {', '.join(wrong)}"
        yield violation(HEADER, what, name)


def _place(image: BootImage, layout: Layout, moved: int, name: str) -> Iterator[RuleFinding]:
    """Whether a kernel that does not unpack itself can run where it was put."""
    if moved == 0 or not layout.linked:
        return
    start = layout.footprint.start + moved
    if moved % VMLINUX_ALIGNMENT:
        what = f"the kernel lies at {start:#x}, {moved:#x} from where it is linked: it runs only a"
        what += f" multiple of {VMLINUX_ALIGNMENT:#x} away"
        yield violation(PLACE, what, name, address=start, value=abs(moved))
    elif image.entry == layout.pvh_entry + moved and not layout.pvh_moves:
        what = f"the kernel lies at {start:#x}, {moved:#x} from where it is linked, but it has no"
        what += " PVH relocation note: entered through PVH, it runs only there"
        yield violation(PLACE, what, name, address=start, value=abs(moved))


def _listed(layout: Layout, moved: int) -> str:
    return ", ".join(f"{at + moved:#x} ({name})" for name, at in sorted(layout.entries.items()))


def _wrong_entry(image: BootImage, layout: Layout, moved: int, name: str) -> RuleFinding:
    right = layout.entries[image.protocol] + moved
    distance = image.entry - right
    side = "behind" if distance > 0 else "before"
    what = f"the CPU starts at {image.entry:#x}, {abs(distance):#x} {side} the {image.protocol}"
    what += f" entry {right:#x}"
    others = [other for other, at in layout.entries.items() if at + moved == image.entry]
    if others:
        what += f": that is the entry for {' and '.join(others)}"
    elif image.entry == layout.footprint.start + moved:
        what += ": that is the start of the kernel"
    return violation(ENTRY, what, name, address=image.entry, value=image.entry, limit=right)


def _part(read: Read, part: Part, moved: int, name: str) -> Iterator[RuleFinding]:
    """One finding for all that is wrong with a part."""
    place = Range(part.address + moved, len(part.data))
    pages = list(_pages_that_differ(read, part, place))
    if not pages:
        return
    if all(not any(found) for _, _, found in pages) and _is_missing(part, len(pages)):
        what = f"{part.name} is missing: there is nothing at {place}"
        yield violation(CODE, what, name, address=place.start, value=place.size)
        return
    looked_at = pages[:_COUNTED]
    wrong = [
        at + index
        for at, wanted, found in looked_at
        for index, (left, right) in enumerate(zip(wanted, found, strict=True))
        if left != right
    ]
    others = counted(len(pages) - len(looked_at), "further page")
    more = f", and more on {others}" if pages[_COUNTED:] else ""
    until = "" if wrong[0] == wrong[-1] else f"-{wrong[-1]:#x}"
    verb = "differs" if len(wrong) == 1 else "differ"
    what = f"{counted(len(wrong), 'byte')} at {wrong[0]:#x}{until} {verb} from {part.name}{more}"
    yield violation(CODE, what, name, address=wrong[0], value=len(wrong))


def _is_missing(part: Part, pages: int) -> bool:
    """Whether these many pages are all of a part that are not zeros."""
    held = sum(any(part.data[at : at + PAGE]) for at in range(0, len(part.data), PAGE))
    return pages >= held


def _pages_that_differ(
    read: Read, part: Part, place: Range
) -> Iterator[tuple[int, memoryview, bytes]]:
    """Address, wanted and found bytes of each page; what is no RAM counts as zeros."""
    for chunk in range(0, place.size, _CHUNK):
        wanted = part.data[chunk : chunk + _CHUNK]
        found = read(place.start + chunk, len(wanted)) or bytes(len(wanted))
        if wanted == found:
            continue
        for at in range(0, len(wanted), PAGE):
            left, right = wanted[at : at + PAGE], found[at : at + PAGE]
            if left != right:
                yield place.start + chunk + at, left, right
