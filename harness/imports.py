"""A boot image made of a guest that somebody else's program has prepared: `bootproof import`.

Three sources: the core of a whole machine, a gdb stub of a guest that stands at its entry, and a
file of nothing but RAM. Owns reading them, and which RAM is taken; what follows of registers that
were not seen is bootproof.loader.imports'. The source is only read, and a live guest is left as it
was found. All addresses are guest-physical.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from bootproof.dataclass import dataclass
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.errors import UserError
from bootproof.harness.host import rundir
from bootproof.harness.host.files import disk_errors, open_given, read_given
from bootproof.harness.qemu.gdbstub import GdbError
from bootproof.harness.qemu.remote import RemoteStub
from bootproof.loader import bootimage, strictjson
from bootproof.loader.address import PAGE, Range, align_down, align_up, format_size, joined
from bootproof.loader.arch import some_from_json
from bootproof.loader.arch.importing import Seen, SeenError
from bootproof.loader.arch.table import ARCHITECTURES, IMPORTING
from bootproof.loader.boot_parameters import BootParameters
from bootproof.loader.bootimage import BootImage
from bootproof.loader.corefile import CoreError, Load, check_ram_only, is_core, read_core
from bootproof.loader.image import ImageSource, open_image
from bootproof.loader.imports import complete, recognised
from bootproof.loader.memory import GuestMemory, data_extents
from bootproof.loader.protocols.table import PROTOCOLS, boot_parameters

_CHUNK: Final = 1 << 20
_MOST_RAM: Final = 1 << 40
_MOST_REGISTERS: Final = 1 << 16  # bytes of a registers file
BREAK_SECONDS: Final = 60.0  # for a guest to come to an address
_MOST_TABLES: Final = 16 << 20
_LOW: Final = Range(0, 1 << 20)  # what firmware tables and a zero page may be in, map or not


@dataclass(frozen=True, slots=True)
class Request:
    """What is imported, and what its importer knows better; None where nothing is said."""

    out: Path
    source: Path | None = None
    # HOST:PORT or unix:PATH.
    gdb: str | None = None
    remote: bool = False
    # Where the guest is let run to first, and whether it runs on afterwards.
    break_at: int | None = None
    break_seconds: float | None = None
    resume: bool = False
    ram: tuple[Range, ...] | None = None
    registers: Path | None = None
    protocol: str | None = None
    entry: int | None = None
    arch: str | None = None


@dataclass(frozen=True, slots=True)
class Imported:
    """The image, what kind of source it comes from, how many CPUs that had, and what was left."""

    image: BootImage
    source: str
    cpus: int = 1
    left_out: tuple[Range, ...] = ()


def import_image(request: Request) -> Imported:
    """Writes the boot image. Raises UserError and LoaderError; leaves nothing then."""
    if (request.source is None) == (request.gdb is None):
        raise UserError("import: give one source: a file, or --gdb HOST:PORT")
    _check_of_stub(request)
    given = (request.source, request.registers)
    with rundir.held(request.out):
        rundir.make_fresh(request.out, (path for path in given if path is not None))
        with rundir.no_image_left(request.out), disk_errors(request.out):
            imported = _from_file(request) if request.gdb is None else _from_stub(request)
            bootimage.save(imported.image, request.out)
    return imported


def _check_of_stub(request: Request) -> None:
    """Raises UserError for what only a guest that stands still can be asked for."""
    asked = {
        "--break": request.break_at is not None,
        "--break-seconds": request.break_seconds is not None,
        "--resume": request.resume,
        "--remote": request.remote,
    }
    first = next((option for option, given in asked.items() if given), None)
    if first is not None and request.gdb is None:
        raise UserError(f"{first}: of a live guest: give --gdb instead of a file")
    if request.break_seconds is not None and request.break_at is None:
        raise UserError("--break-seconds: for which address? Name it with --break")


# --- a file --------------------------------------------------------------------------------------


def _from_file(request: Request) -> Imported:
    assert request.source is not None
    name = str(request.source)
    with open_given(request.source) as file, open_image(file, name, allow_empty=True) as source:
        if is_core(source.data):
            return _from_core(request, source)
        check_ram_only(source.data)
        return _from_ram(request, source)


def _from_core(request: Request, source: ImageSource) -> Imported:
    core = read_core(source)
    arch = next((name for name, known in IMPORTING.items() if core.machine in known.machines), None)
    if arch is None:
        raise CoreError(
            f"a core of machine {core.machine}, and this program reads {', '.join(IMPORTING)}",
            field="e_machine",
            value=core.machine,
        )
    if request.arch not in (None, arch):
        raise UserError(f"{source.name}: is a core of {arch}, not of {request.arch} (--arch)")
    cpus = IMPORTING[arch].from_notes(core.notes)
    if not cpus:
        raise CoreError("the core has no note with a CPU's registers", field="p_type")
    with _ram(request, [load.place for load in core.loads]) as memory:
        for load in core.loads:
            _copy(source, load, memory)
        seen = _known_better(request, arch, cpus[0])
        _check_first(source, arch, [seen, *cpus[1:]], memory)
        imported = _imported(request, arch, seen, memory, "core of a machine")
        imported = _with_others(imported, cpus[1:], memory)
        return _without_devices(request, imported, memory)


def _check_first(source: ImageSource, arch: str, cpus: Sequence[Seen], memory: GuestMemory) -> None:
    """Raises UserError for a kernel that stands on another CPU than the one that machines start."""
    entered = (n for n, seen in enumerate(cpus) if recognised(arch, seen, memory) in PROTOCOLS)
    first = next(entered, 0) if len(cpus) > 1 else 0
    if first:
        raise UserError(
            f"{source.name}: CPU {first} is led to boot parameters, and CPU 0 is not: the firmware"
            " took another one than machines start; dump it again where it took CPU 0, or dump a"
            " guest with one CPU"
        )


def _with_others(imported: Imported, others: Sequence[Seen], memory: GuestMemory) -> Imported:
    """With the CPUs that wait for the kernel to start them, where enough is seen of all of them."""
    image = imported.image
    try:
        found = [
            complete(image.arch, seen, memory, bootimage.NO_PROTOCOL, number)
            for number, seen in enumerate(others, 1)
        ]
    except SeenError:
        return replace(imported, cpus=1 + len(others))
    registers = (one.registers for one in found)
    unseen = itertools.chain(image.unseen, *(one.unseen for one in found))
    image = replace(image, cpus=(*image.cpus, *registers), unseen=tuple(unseen))
    return replace(imported, image=image, cpus=1 + len(others))


def _from_ram(request: Request, source: ImageSource) -> Imported:
    arch = _arch_of(request)
    if not source.size or (request.ram is None and source.size % PAGE):
        raise UserError(
            f"{source.name}: has {source.size} bytes, and RAM has some multiple of {PAGE}; give a"
            " core, or a file with nothing but RAM (--ram says what of it that is)"
        )
    places = request.ram or (Range(ARCHES[arch].ram_base(), source.size),)
    needed = sum(place.size for place in places)
    if needed > source.size:
        raise UserError(
            f"{source.name}: has {format_size(source.size)}, but RAM {_listed(places)} has"
            f" {format_size(needed)} (--ram)"
        )
    with _ram(request, places) as memory:
        offset = 0
        for place in places:
            _copy(source, Load(place, offset, place.size), memory)
            offset += place.size
        seen = _known_better(request, arch, Seen({}))
        imported = _imported(request, arch, seen, memory, "file of RAM")
        if request.ram is None:
            _check_one_piece(imported.image, source, memory)
        return imported


def _check_one_piece(image: BootImage, source: ImageSource, memory: GuestMemory) -> None:
    """Raises UserError where the guest is told of RAM behind a gap, and the file has no gaps."""
    told = boot_parameters(image.protocol, image.cpus[0], memory).ram or ()
    end = max(bank.range.end for bank in memory.banks)
    behind = any(area.start >= end for area in told)
    if behind and sum(area.size for area in told) <= source.size:
        raise UserError(
            f"{source.name}: the guest is told of RAM at {_listed(told)}, which is not in one piece"
            " as the file is; say where its parts belong (--ram START-END,START-END)"
        )


def _copy(source: ImageSource, load: Load, memory: GuestMemory) -> None:
    """What is not zero, of what a file has of a part of RAM; its holes are not read."""
    fd, end = source.fileno(), load.offset + load.in_file
    whole = [(load.offset, end)]
    for first, last in whole if fd is None else data_extents(fd, load.offset, end):
        for at in range(first, last, _CHUNK):
            data = bytes(source.data[at : min(at + _CHUNK, last)])
            memory.write_sparse(load.place.start + at - load.offset, data)


def _without_devices(request: Request, imported: Imported, memory: GuestMemory) -> Imported:
    """A core also has the memory of devices: it is no RAM that any kernel is told of, nor where
    machines have RAM.
    """
    image = imported.image
    told = request.ram or boot_parameters(image.protocol, image.cpus[0], memory).ram
    arch = ARCHES[image.arch]
    most = ((board, arch.most_memory(name)) for name, board in arch.boards.items())
    told = told or tuple(Range(*bank) for board, size in most for bank in board.banks(size))
    banks = tuple(b for b in image.banks if any(b.range.overlaps(area) for area in told))
    if not banks or len(banks) == len(image.banks):
        return imported
    left = [bank for bank in image.banks if bank not in banks]
    for bank in left:
        memory.fill(bank.base, bank.size)
    gone = (*imported.left_out, *(bank.range for bank in left))
    return replace(imported, image=replace(image, banks=banks), left_out=gone)


# --- a live guest --------------------------------------------------------------------------------


def _from_stub(request: Request) -> Imported:
    assert request.gdb is not None
    arch = _arch_of(request)
    try:
        with RemoteStub.connect(request.gdb, remote=request.remote) as stub:
            stub.halt()
            if request.break_at is not None:
                stub.run_on_to(request.break_at, request.break_seconds or BREAK_SECONDS)
            imported = _from_halted(request, arch, stub)
            if request.resume:
                stub.let_go()
            return imported
    except GdbError as error:
        raise UserError(f"--gdb {request.gdb}: {error}") from error


def _from_halted(request: Request, arch: str, stub: RemoteStub) -> Imported:
    seen = _known_better(request, arch, _seen(arch, stub))
    if IMPORTING[arch].counter not in seen.values:
        raise UserError(f"--gdb {request.gdb}: the stub shows no program counter")
    with (
        stub.by_physical_address(),
        _ram(request, request.ram or _told_ram(request, arch, seen, stub)) as memory,
    ):
        for bank in memory.banks:
            address = bank.base
            for data in stub.memory(bank.base, bank.size):
                memory.write_sparse(address, data)
                address += len(data)
        return _imported(request, arch, seen, memory, "gdb stub")


def _seen(arch: str, stub: RemoteStub) -> Seen:
    """All that can be seen of the CPU: QEMU's monitor shows what no debugger does."""
    seen = IMPORTING[arch].from_debugger(stub.registers(IMPORTING[arch].debugger))
    dump = stub.monitor("info registers")
    if dump:
        with contextlib.suppress(ValueError):  # another program's, or another architecture's
            shown = ARCHES[arch].dump.parse(dump.replace("\r", ""), {})
            names = ARCHITECTURES[arch].registers.__dataclass_fields__
            return Seen({name: getattr(shown, name) for name in names})
    return seen


class _Asked:
    """RAM of a live guest, to follow pointers in; what cannot be read is none."""

    def __init__(self, stub: RemoteStub) -> None:
        self._stub = stub

    def contains(self, address: int, size: int) -> bool:
        try:
            self.read(address, size)
        except GdbError:
            return False
        return True

    def read(self, address: int, size: int) -> bytes:
        return b"".join(self._stub.memory(address, size)) if 0 < size <= _CHUNK else b""

    def nonzero_extents(self) -> Iterator[Range]:
        """Nothing is looked for in a guest whose RAM is not known yet, but in its lowest MiB."""
        if self.contains(_LOW.start, _LOW.size):
            yield _LOW


def _told_ram(request: Request, arch: str, seen: Seen, stub: RemoteStub) -> list[Range]:
    """The RAM that the guest's own boot parameters tell of. Raises UserError without any."""
    asked = _Asked(stub)
    protocol = request.protocol or recognised(arch, seen, asked)
    told = None
    if protocol in PROTOCOLS:
        pointer = PROTOCOLS[protocol].pointer
        if pointer.of(seen.values) is not None:
            demanded = PROTOCOLS[protocol].state(0, pointer.of(seen.values) or 0)
            told = _with_tables(boot_parameters(protocol, demanded, asked))
    if not told:
        raise UserError(
            f"--gdb {request.gdb}: which RAM the guest has is told by nothing that its registers"
            " lead to; give it by --ram, as a size or as ranges START-END"
        )
    low = any(area.overlaps(_LOW) for area in told) and asked.contains(_LOW.start, _LOW.size)
    return [*told, _LOW] if low else list(told)


def _with_tables(told: BootParameters) -> tuple[Range, ...]:
    """The RAM that a kernel is told of, and the tables that a firmware keeps right behind it."""
    found = list(told.ram or ())
    for entry in sorted(told.memory_map or (), key=lambda entry: entry.addr):
        behind = any(area.end == entry.addr for area in found)
        if behind and 0 < entry.size <= _MOST_TABLES:
            found.append(entry.range)
    return tuple(found)


# --- what both need ------------------------------------------------------------------------------


def _imported(
    request: Request, arch: str, seen: Seen, memory: GuestMemory, source: str
) -> Imported:
    found = complete(arch, seen, memory, request.protocol)
    gone = _without_firmware(arch, memory)
    where = str(request.source.absolute()) if request.source else str(request.gdb)
    image = BootImage(
        arch=arch,
        protocol=found.protocol,
        banks=memory.banks,
        cpus=(found.registers,),
        provenance={"imported from": f"{source}: {where}"},
        unseen=found.unseen,
    )
    return Imported(image, source, left_out=gone)


def _without_firmware(arch: str, memory: GuestMemory) -> tuple[Range, ...]:
    """RAM where a firmware stays is emptied: the machine that runs the image has its own there."""
    firmware = {item.range for board in ARCHES[arch].boards.values() for item in board.firmware}
    there = [area for area in firmware if memory.contains(area.start, area.size)]
    for area in there:
        memory.fill(area.start, area.size)
    return tuple(sorted(there))


def _known_better(request: Request, arch: str, seen: Seen) -> Seen:
    """What was seen, and over it what the user says. Raises UserError."""
    values = dict(seen.values)
    if request.registers is not None:
        values |= _registers(request.registers, arch)
    if request.entry is not None:
        values[IMPORTING[arch].counter] = request.entry
    return Seen(values, seen.selectors)


def _registers(file: Path, arch: str) -> dict[str, Any]:
    raw = read_given(file, _MOST_REGISTERS, "--registers")
    try:
        return some_from_json(ARCHITECTURES[arch].registers, strictjson.parse(raw))
    except ValueError as error:
        raise UserError(f"{file}: {error} (--registers)") from error


def _arch_of(request: Request) -> str:
    """The architecture of a source that does not say it. Raises UserError."""
    protocol = PROTOCOLS.get(request.protocol or "")
    of_protocol = protocol.arch.name if protocol else None
    if request.arch and of_protocol and request.arch != of_protocol:
        raise UserError(f"--arch {request.arch}: {request.protocol} is a protocol of {of_protocol}")
    arch = request.arch or of_protocol or next(iter(IMPORTING))
    if arch not in IMPORTING:
        raise UserError(f"--arch {arch}: import reads {', '.join(IMPORTING)}")
    return arch


@contextlib.contextmanager
def _ram(request: Request, places: Iterable[Range]) -> Iterator[GuestMemory]:
    """New RAM at all of `places`, in whole pages. Raises UserError."""
    banks = joined(
        Range.between(align_down(place.start, PAGE), align_up(place.end, PAGE))
        for place in places
        if place.size
    )
    if not banks or sum(bank.size for bank in banks) > _MOST_RAM:
        raise UserError(f"RAM at {_listed(banks)}: import takes up to {format_size(_MOST_RAM)}")
    with GuestMemory(
        [(bank.start, bank.size) for bank in banks], path=request.out / bootimage.RAM
    ) as memory:
        yield memory


def _listed(places: Sequence[Range]) -> str:
    return ", ".join(map(str, joined(places))) or "nowhere"
