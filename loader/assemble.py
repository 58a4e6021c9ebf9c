"""One kernel and one request -> a boot image: load, configure, seal.

The sequence a VMM author reads first. Everything is written below one directory; when anything is
refused, nothing stays there. Knows no QEMU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from bootproof.dataclass import dataclass
from bootproof.loader import bootimage
from bootproof.loader.address import MIB, Banks, Range, format_size
from bootproof.loader.bootimage import Backing, BootImage
from bootproof.loader.copying import Copy
from bootproof.loader.errors import LoaderError
from bootproof.loader.formats import Format
from bootproof.loader.identify import identify_bytes
from bootproof.loader.image import ImageLike, ImageSource, open_image
from bootproof.loader.layout import smallest_memory
from bootproof.loader.memory import AddressSpace, GuestMemory
from bootproof.loader.ondemand import OnDemand
from bootproof.loader.pecoff import check_complete
from bootproof.loader.protocols import BootRequest, ProtocolError
from bootproof.loader.protocols.table import AUTO, PROTOCOLS, PVH, AnyProtocol
from bootproof.loader.result import KernelLoaderResult

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from bootproof.loader.bzimage import BzImage
    from bootproof.loader.elf import Elf
    from bootproof.loader.pe import Pe
    from bootproof.loader.protocols.virtual_kaslr import VirtualMove

LOADERS: Final[Mapping[str, type[Elf | BzImage | Pe]]] = OnDemand(
    "bootproof.loader",
    {Format.ELF: "elf.Elf", Format.BZIMAGE: "bzimage.BzImage", Format.IMAGE: "pe.Pe"},
)


class UnloadableError(LoaderError):
    """A file that no loader takes, or a kernel for another architecture."""

    code = "Assemble::Unloadable"


@dataclass(frozen=True, slots=True)
class Machine:
    """The guest's RAM as the loader sees it: guest-physical (base, size) pairs by memory size."""

    arch: str
    memory: int
    memory_limit: int
    banks_with: Callable[[int], Banks]

    @property
    def banks(self) -> Banks:
        return self.banks_with(self.memory)


@dataclass(frozen=True, slots=True)
class Assembly:
    """How a kernel is to be loaded."""

    machine: Machine
    request: BootRequest
    protocol: str = AUTO
    # As linux-loader means it for the format.
    kernel_offset: int | None = None
    # Offers the PVH entry at an offset, where the kernel's note allows that.
    pvh_relocate: bool = False
    # Has the kernel run at another virtual address.
    virtual: VirtualMove | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Assembled:
    """The boot image and what the loader said on the way."""

    image: BootImage
    kernel: KernelLoaderResult
    protocol: str
    lent: Lent | None = None


@dataclass(frozen=True, slots=True)
class Lent:
    """A part of RAM that needs not be written: it is in a backing file, in the directory already.

    `nonzero` are its runs of pages with a byte that is not zero.
    """

    backing: Backing
    nonzero: tuple[Range, ...]


Lender: TypeAlias = Callable[[Range, Sequence[Copy]], Lent | None]
"""Asked for a part of RAM in which is what the copies out of the kernel's file put there, and else
nothing but zeros."""


def assemble(
    kernel: ImageLike, assembly: Assembly, directory: Path, lender: Lender | None = None
) -> Assembled:
    """Loads `kernel` into `directory`/ram.img, writes the protocol's pieces and boot.json.

    Raises LoaderError, and leaves neither file then; an error for want of RAM says how much would
    do. Where the `lender` has a file of the kernel as it is going to lie in RAM, nothing is copied.
    """
    path = directory / bootimage.RAM
    with open_image(kernel) as source, _memory_advice(source, assembly):
        space, foreseen = _foresee(source, assembly)
        lent = lender(foreseen.footprint, space.copies) if lender and space.only_copies else None
        with GuestMemory(assembly.machine.banks, path=path) as memory:
            try:
                if lent is None:
                    foreseen = load(memory, source, assembly)
                else:
                    memory.lend(lent.backing.range, directory / lent.backing.file)
                return _configured(memory, foreseen, lent, assembly, directory)
            except BaseException:
                path.unlink(missing_ok=True)
                raise


class _Foreseen(AddressSpace):
    """What a load is going to write, noted."""

    def __init__(self, banks: Banks) -> None:
        super().__init__(banks)
        self.copies: list[Copy] = []
        self.only_copies = True

    def write(self, address: int, data: Buffer) -> None:
        super().write(address, data)
        self.only_copies = False

    def write_file(self, address: int, fd: int, file_offset: int, size: int) -> None:
        super().write_file(address, fd, file_offset, size)
        self.copies.append(Copy(address, file_offset, size))


def _foresee(source: ImageSource, assembly: Assembly) -> tuple[_Foreseen, KernelLoaderResult]:
    """Raises what `assemble` is going to refuse, before a byte of RAM is written."""
    space = _Foreseen(assembly.machine.banks)
    kernel = load(space, source, assembly)
    ram = [bank.range for bank in space.banks]
    _protocol(kernel, assembly).plan(ram, kernel, assembly.request)
    # What moves a kernel changes what was copied, and without checks anything may lie over it.
    space.only_copies &= assembly.virtual is None and not assembly.request.unsafe
    return space, kernel


def load(memory: GuestMemory, source: ImageSource, assembly: Assembly) -> KernelLoaderResult:
    """Loads by the file's own format and refuses another architecture. Raises LoaderError."""
    identity = identify_bytes(source.data)
    loader = LOADERS.get(identity.format)
    if loader is None:
        what = f"not a kernel that can be loaded (it is: {identity.remark or identity.format})"
        raise UnloadableError(what, field="format", value=str(identity.format))
    arch = assembly.machine.arch
    if identity.arch not in (None, arch):
        what = f"a kernel for {identity.arch} cannot boot on a machine of {arch}"
        raise UnloadableError(what, field="architecture", value=identity.arch)
    if not assembly.request.unsafe:
        check_complete(source)
    kernel = loader().load(memory, source, kernel_offset=assembly.kernel_offset)
    if not kernel.footprint.size:
        what = "no part of it is loaded (a vmlinux has PT_LOAD segments with bytes in the file)"
        raise UnloadableError(what, field="p_type")
    if (
        assembly.pvh_relocate
        and identity.format is Format.ELF
        and assembly.kernel_offset is not None
    ):
        from bootproof.loader.relocation import relocated  # rarely asked for, as what follows

        unsafe = assembly.request.unsafe
        kernel = relocated(kernel, source, assembly.kernel_offset, unsafe=unsafe)
    if assembly.virtual is not None:
        from bootproof.loader.protocols import virtual_kaslr

        return virtual_kaslr.moved(kernel, source, memory, assembly.virtual)
    return kernel


def _protocol(kernel: KernelLoaderResult, assembly: Assembly) -> AnyProtocol:
    """That by which the kernel is entered. Raises ProtocolError when there is none, or nothing for
    `pvh_relocate` to do.
    """
    protocol = choose_protocol(kernel, assembly.protocol)
    if not assembly.pvh_relocate or (protocol.name == PVH and assembly.kernel_offset is not None):
        return protocol
    what, advice = "without an offset no PVH entry is relocated", "give one (--offset)"
    if protocol.name != PVH:
        what = f"the kernel is entered through {protocol.name}, and only a PVH entry is relocated"
        advice = "take --protocol pvh"
    advice += ", or leave --pvh-relocate out"
    raise ProtocolError(what, field="pvh_relocate", advice=advice)


def choose_protocol(kernel: KernelLoaderResult, wanted: str) -> AnyProtocol:
    """The protocol called `wanted`, or for "auto" the one of the kernel's that a VMM would take.

    Raises ProtocolError when there is none.
    """
    if wanted == AUTO:
        offered = [PROTOCOLS[name] for name in kernel.entry_points if name in PROTOCOLS]
        if not offered:
            raise ProtocolError("the kernel offers no boot protocol that is known here")
        return min(offered, key=lambda protocol: protocol.rank)
    if wanted not in PROTOCOLS:
        what = f"no boot protocol is called {wanted!r}; known: {', '.join(PROTOCOLS)}"
        raise ProtocolError(what, field="protocol", value=wanted)
    return PROTOCOLS[wanted]


def _configured(
    memory: GuestMemory,
    kernel: KernelLoaderResult,
    lent: Lent | None,
    assembly: Assembly,
    directory: Path,
) -> Assembled:
    """The boot image of a kernel that was loaded: boot.json comes last."""
    protocol = choose_protocol(kernel, assembly.protocol)
    handover = protocol.configure(memory, kernel, assembly.request)
    image = BootImage(
        arch=assembly.machine.arch,
        protocol=protocol.name,
        banks=memory.banks,
        cpus=(handover.registers,),
        regions=handover.regions,
        provenance=assembly.provenance,
        backing=() if lent is None else (lent.backing,),
    )
    bootimage.save(image, directory)
    return Assembled(image, kernel, protocol.name, lent)


@contextlib.contextmanager
def _memory_advice(source: ImageSource, assembly: Assembly) -> Iterator[None]:
    """Has a refusal say what memory would do, if that is all that is in the way."""
    try:
        yield
    except UnloadableError:  # wherever; and all of a file that is no kernel was searched for that
        raise
    except LoaderError as error:
        if not error.of_host:
            _add_memory_advice(error, source, assembly)
        raise


_NONE_HELPS: Final = "no amount of memory helps on this machine; load it elsewhere (--offset)"


class _RamEverywhere(AddressSpace):
    """As if a machine with the most memory had no holes: what is not in here is never RAM."""

    def way_to_have(self, size: int) -> str:
        return _NONE_HELPS


def _add_memory_advice(error: LoaderError, source: ImageSource, assembly: Assembly) -> None:
    """Says which guest memory would do, or that none would, when memory is all that is in the way.

    The kernel is loaded, and its pieces are placed, as if there were RAM everywhere: what does not
    work there has another reason.
    """
    machine = assembly.machine
    most = machine.banks_with(machine.memory_limit)
    everywhere = Range(0, max(base + size for base, size in most))
    request = replace(assembly.request, unsafe=False)
    try:
        kernel = load(_RamEverywhere([(everywhere.start, everywhere.size)]), source, assembly)
        protocol = _protocol(kernel, assembly)
        protocol.plan([everywhere], kernel, request)
    except LoaderError as refused:
        if refused.advice == _NONE_HELPS:
            error.advice = _NONE_HELPS
        return

    def fits(size: int) -> bool:
        ram = [Range(base, length) for base, length in machine.banks_with(size)]
        try:
            protocol.plan(ram, kernel, request)
        except LoaderError:
            return False
        return True

    enough = _memory_that_does(machine, fits)
    if enough is None:
        error.advice = _NONE_HELPS
    elif enough > machine.memory:
        error.advice = f"give the guest at least {format_size(enough)} (--memory)"
    else:
        error.advice = f"give the guest {format_size(enough)} (--memory): RAM moves as it grows"


def _memory_that_does(machine: Machine, fits: Callable[[int], bool]) -> int | None:
    """The smallest memory in bytes for which `fits` holds.

    A machine may move a part of its RAM above 4 GiB from some size on, so the sizes below and
    from there on are searched one after the other.
    """
    banks = len(machine.banks_with(MIB))
    split = smallest_memory(
        lambda size: len(machine.banks_with(size)) > banks, MIB, machine.memory_limit
    )
    if split is None:
        return smallest_memory(fits, MIB, machine.memory_limit)
    unsplit = smallest_memory(fits, MIB, split - MIB)
    return unsplit or smallest_memory(fits, split, machine.memory_limit)
