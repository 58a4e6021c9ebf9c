"""A BootImage on a machine: its reset stub, and how QEMU's generic loader puts the bytes in place.

With DEVICES every run of data in ram.img has a generic loader device, and a file, of its own; with
MAPPED ram.img itself is the guest's RAM (a private mapping, the file never changes). Either way
devices write what lies under ROM, or it is the board's ROM itself, and what the machine overwrites
at reset is staged elsewhere and moved into place by the stub. Data is what is not zero.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise, zip_longest
from pathlib import Path

from bootproof.dataclass import dataclass
from bootproof.harness.host.rundir import DEVICES_DIRECTORY
from bootproof.harness.qemu.argv import Blob, Launch
from bootproof.harness.qemu.machine import Machine
from bootproof.harness.terms import Placement
from bootproof.loader import conformance
from bootproof.loader.address import Banks, Range, align_up, common, format_size, without
from bootproof.loader.arch import Copy, Stub
from bootproof.loader.arch.table import ARCHITECTURES, AnyArchitecture
from bootproof.loader.boot_parameters import reader
from bootproof.loader.bootimage import BootImage
from bootproof.loader.layout import LayoutError, Region, Wanted, place
from bootproof.loader.memory import GuestMemory

_STUB = "stub0.bin"
_MERGE_GAP = 64 << 10  # a loader device costs more than reading this many zeros
_MOST_DEVICES = 256  # beyond, the smallest gaps are filled with their zeros


@dataclass(frozen=True, slots=True)
class DeviceFile:
    """A file for one generic loader device, cut out of ram.img."""

    path: str
    source: int  # where its bytes are in the boot image, guest-physical
    size: int
    address: int  # where the device puts them: there, or in a staging area


@dataclass(frozen=True, slots=True)
class PlacedImage:
    """What QEMU is given of a boot image, and the files that must be written for it."""

    launch: Launch
    files: tuple[DeviceFile, ...]
    # The code of the reset stub.
    stub: bytes
    # Guest-physical RAM that is not as the boot image says at the entry: stub, staging areas, and
    # what the machine fills by itself.
    working_areas: tuple[Range, ...]
    # Guest-physical data that may lie under ROM, where the RAM's own bytes tell nothing.
    covered: tuple[Range, ...] = ()
    # Those of them that are ours.
    added: tuple[Region, ...] = ()
    # Guest-physical data that is copied into the guest's RAM, where that is how it gets there.
    mapped: tuple[Range, ...] = ()


def place_image(
    image: BootImage, memory: GuestMemory, machine: Machine, placement: Placement
) -> PlacedImage:
    """Plans the start of `image`, whose RAM is `memory`. Pure but for reading the RAM.

    Raises LayoutError when there is no room for stub or staging area, StubError when the registers
    cannot be brought about.
    """
    arch = ARCHITECTURES[image.arch]
    reserved = [region.range for region in machine.reserved]
    data = list(memory.nonzero_extents())
    _check_beside_firmware(data, machine)
    together = _extents(memory, data, reserved)
    staged = common(together, reserved) if machine.writes_reserved else []
    taken = [*machine.reserved, *(Region("data", extent) for extent in data)]
    stub_place, staging = _room(image, arch, taken, staged)
    extents = _extents(memory, data, [*reserved, stub_place, *staging])
    inside = [] if machine.writes_reserved else common(extents, reserved)
    covered = _with_rom(inside, machine.traits.rom, memory)
    moved = list(zip(staged, staging, strict=True))
    stub = _stub(image, memory, stub_place, moved)
    parts = [*((part, part.start) for part in covered), *((part, a.start) for part, a in moved)]
    if placement is Placement.DEVICES:
        direct = (part for extent in extents for part in without(extent, reserved))
        parts = [*((part, part.start) for part in direct), *parts]
    files = tuple(_device_file(image, part, address) for part, address in parts)
    mapped = placement is Placement.MAPPED
    untouched = [part for hole in reserved for part in without(hole, [*staged, *covered])]
    return PlacedImage(
        launch=_launch(files, machine, stub, mapped=mapped),
        files=files,
        stub=stub.code,
        working_areas=(Range(stub.address, arch.stub_size), *staging, *untouched),
        covered=tuple(covered),
        added=(
            Region("reset stub", Range(stub.address, len(stub.code))),
            *(Region("staging area", area) for area in staging),
        ),
        mapped=tuple(data) if mapped else (),
    )


def _check_beside_firmware(data: Sequence[Range], machine: Machine) -> None:
    for firmware in machine.firmware:
        over = next((extent for extent in data if extent.overlaps(firmware.range)), None)
        if over is not None:
            what = f"there is data at {over.start:#x}, where the machine's own {firmware} stays"
            raise LayoutError(what, field="ram.img", value=hex(over.start))


def _stub(
    image: BootImage, memory: GuestMemory, place: Range, moved: Sequence[tuple[Range, Range]]
) -> Stub:
    """That of CPU 0, which moves what is staged: the others must wait, as the machine has them."""
    read = reader(memory)
    conformance.check_reachable(image, read)
    copies = tuple(Copy(area.start, part.start, area.size) for part, area in moved)
    return ARCHITECTURES[image.arch].stub(image.cpus[0], place.start, copies, read)


def _launch(files: Sequence[DeviceFile], machine: Machine, stub: Stub, *, mapped: bool) -> Launch:
    starting = machine.cpus if ARCHITECTURES[machine.arch.name].every_cpu else 1
    rom = next((f for f in files if Range(f.address, f.size) == machine.traits.rom), None)
    blobs = [Blob(file.path, file.address) for file in files if file is not rom]
    blobs.append(Blob(_STUB, stub.address))
    return Launch(tuple(blobs), (stub.loader_entry,) * starting, mapped, rom.path if rom else None)


def _with_rom(parts: Sequence[Range], rom: Range | None, memory: GuestMemory) -> list[Range]:
    """All of the board's ROM for `parts` that lie in it, so that nothing else is there.

    A loader device writes ROM as well, but before or after the firmware does, by the places that
    QEMU's objects happen to have in its memory (rom_order_compare()).
    """
    if rom is None or not memory.contains(rom.start, rom.size) or not common(parts, [rom]):
        return list(parts)
    return [*(rest for part in parts for rest in without(part, [rom])), rom]


def _extents(memory: GuestMemory, data: Sequence[Range], apart: Sequence[Range]) -> list[Range]:
    """Where the RAM holds `data`, in not too many parts, none across banks or over `apart`."""
    most = max(1, _MOST_DEVICES // len(memory.banks))
    banks = (bank.range for bank in memory.banks)
    parts = ([extent for extent in data if bank.contains(extent)] for bank in banks)
    return [extent for inside in parts for extent in _merged(inside, apart, most)]


def write(placed: PlacedImage, memory: GuestMemory, directory: Path) -> None:
    """Writes the files for QEMU into the run directory."""
    (directory / _STUB).write_bytes(placed.stub)
    if placed.files:
        (directory / DEVICES_DIRECTORY).mkdir(exist_ok=True)
    for part in placed.files:
        memory.copy_out(part.source, part.size, directory / part.path)


def guest_ram(memory: GuestMemory, banks: Banks, mapped: Iterable[Range]) -> GuestMemory:
    """RAM for QEMU to map and for us to look into: anonymous, so that nothing of it can stay.

    `banks` are the machine's, in which those of the boot image lie. Empty but for what is `mapped`
    of the boot image; that itself is never changed.
    """
    ram = GuestMemory(banks)
    try:
        ram.copy_from(memory, mapped)
    except BaseException:
        ram.close()
        raise
    return ram


def _room(
    image: BootImage, arch: AnyArchitecture, taken: Sequence[Region], staged: Sequence[Range]
) -> tuple[Range, list[Range]]:
    """For the stub, and for what is staged; QEMU's loader device starts no CPU at address 0."""
    window = Range.between(max(arch.stub_window.start, 0x1000), arch.stub_window.end)
    wanted = [
        Wanted("reset stub", arch.stub_size, 0x1000, window),
        *(Wanted(f"staging area for {p}", align_up(p.size, 0x1000), 0x1000) for p in staged),
    ]
    kernel = [region for region in image.regions if region.name == "kernel"]
    try:
        placed = place(image.ram, [*image.regions, *taken], wanted)
    except LayoutError:  # what is called a region may still be empty; but the kernel's will not be
        placed = _place_anywhere(image, [*kernel, *taken], wanted)
    return placed[0].range, [region.range for region in placed[1:]]


def _place_anywhere(
    image: BootImage, taken: Sequence[Region], wanted: Sequence[Wanted]
) -> list[Region]:
    """Raises LayoutError that says what would help."""
    try:
        return place(image.ram, taken, wanted)
    except LayoutError as error:
        piece = next(piece for piece in wanted if piece.name == error.field)
        window = min(piece.window.end, max(bank.end for bank in image.ram))
        raise LayoutError(
            f"guest RAM is full: to start it, bootproof needs {format_size(piece.size)} of its own"
            f" there for the {piece.name}, between {piece.window.start:#x} and {window - 1:#x},"
            " beside the kernel and all that is not zero",
            field=error.field,
            advice="leave as much zero, at a multiple of 4 KiB, or give the guest more RAM",
        ) from error


def _device_file(image: BootImage, part: Range, address: int) -> DeviceFile:
    # The name goes into a command line and a shell script, and the image may be a stranger's.
    owner = next((r.name for r in image.regions if r.range.overlaps(part)), "data")
    name = f"{re.sub(r'[^A-Za-z0-9_]', '-', owner)[:64]}-{part.start:#x}.bin"
    return DeviceFile(f"{DEVICES_DIRECTORY}/{name}", part.start, part.size, address)


def _merged(extents: Sequence[Range], apart: Sequence[Range], most: int) -> Iterator[Range]:
    """Extents with small gaps between them put together, so that there are at most `most`.

    The largest gaps stay, of equal ones the lower. Gaps with something of `apart` stay in any case,
    except small ones within one of them.
    """
    gaps = [Range.between(left.end, right.start) for left, right in pairwise(extents)]
    large = sorted((gap for gap in gaps if gap.size > _MERGE_GAP), key=lambda gap: -gap.size)
    kept = {gap.start for gap in large[: most - 1]}
    kept |= {gap.start for gap in gaps if any(_keeps_apart(area, gap) for area in apart)}
    start = extents[0].start if extents else 0
    for extent, following in zip_longest(extents, extents[1:]):
        if following is None or extent.end in kept:
            yield Range.between(start, extent.end)
            start = following.start if following else 0


def _keeps_apart(area: Range, gap: Range) -> bool:
    return gap.contains(area) or (gap.size > _MERGE_GAP and gap.overlaps(area))
