"""A boot image that any program wrote, as it is given: what it needs, and what its guest can prove.

It is only read: what it says is checked, and its RAM is copied for QEMU. When it carries our init
and a nonce, the guest proves its boot as always. Otherwise the guest cannot say anything that only
this boot could have produced, and what is proved is the hand-over. Knows nothing of how it is run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.harness import command_line
from bootproof.harness.arch.arch import Arch
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.case import Case
from bootproof.harness.errors import UserError
from bootproof.harness.expected import CodeInside, Expected, ExpectedHandover
from bootproof.harness.inputs import claimed_kernel
from bootproof.harness.qemu import tables
from bootproof.harness.qemu.machine import Machine
from bootproof.harness.terms import Placement
from bootproof.loader import bootimage, imageheader
from bootproof.loader.address import MIB, Range, align_up, format_size, joined
from bootproof.loader.banner import banner_release
from bootproof.loader.boot_parameters import BootParameters, reader
from bootproof.loader.bootimage import BootImage
from bootproof.loader.errors import LoaderError
from bootproof.loader.memory import AddressSpace, GuestMemory
from bootproof.loader.protocols.table import PROTOCOLS, boot_parameters
from bootproof.loader.rules import RuleFinding

_HEADER: Final = 64  # bytes: that of an Image
_ONLY_HANDOVER: Final = "take --only-handover"
_MUCH: Final = 128 * MIB  # of data; a kernel and its initrd have less


@dataclass(frozen=True, slots=True)
class GivenImage:
    """An opened boot image, in the directory where it was found."""

    directory: Path
    image: BootImage
    # Its RAM, to be read.
    memory: GuestMemory
    # What its kernel is told.
    told: BootParameters

    @property
    def file(self) -> Path:
        """What messages name."""
        return self.directory / bootimage.DESCRIPTION

    @property
    def cmdline(self) -> str:
        """As the guest's shell sees it: without the blanks at its ends."""
        return (self.told.cmdline or "").strip(" \t")

    @property
    def other(self) -> bool:
        """Whether our init does not run in it: then it may be no Linux (docs/other-guests.md)."""
        return not command_line.names_our_init(self.cmdline)

    @property
    def nonce(self) -> str | None:
        """What the guest is going to prove its boot with, if its command line says that it is."""
        name = command_line.OTHERS_NONCE if self.other else command_line.NONCE
        words = [word for word in self.cmdline.split() if word.startswith(name)]
        return words[-1].removeprefix(name) or None if words else None

    @property
    def release(self) -> str | None:
        """What an uncompressed kernel's banner says in RAM."""
        region = self.image.region("kernel")
        return banner_release(self._read(region)) if region else None

    @property
    def page_size(self) -> str | None:
        """What the header of a kernel that lies in RAM says of its pages."""
        region = self.image.region("kernel")
        if region is None:
            return None
        return imageheader.page_size(self._read(Range(region.start, min(region.size, _HEADER))))

    def _read(self, part: Range) -> memoryview:
        """A part of guest RAM; nothing where there is none."""
        if not self.memory.contains(part.start, part.size):
            return memoryview(b"")
        return memoryview(self.memory.read(part.start, part.size))

    def findings(self, case: Case) -> tuple[RuleFinding, ...]:
        """What is not as in the kernel that it is said to hold. Raises FetchError, UserError."""
        if case.kernel_path is None:
            return ()
        return claimed_kernel.findings(self.image, reader(self.memory), case.kernel_path)

    def placement(self, machine: Machine) -> Placement:
        """The guest starts the same either way. What devices put in place QEMU first reads
        elsewhere: much of it is mapped, where ram.img has the banks as this machine does.
        """
        much = sum(extent.size for extent in self.memory.data_extents()) > _MUCH
        alike = AddressSpace(machine.banks).banks == self.image.banks
        return Placement.MAPPED if much and alike else Placement.DEVICES

    def keep(self, out: Path) -> None:
        """Leaves it in a run directory: its RAM by a link where that is in one file."""
        if self.image.backing:
            self.memory.save(out / bootimage.RAM)
        else:
            (out / bootimage.RAM).symlink_to((self.directory / bootimage.RAM).absolute())
        bootimage.save(replace(self.image, backing=()), out)


@contextmanager
def opened(directory: Path) -> Iterator[GivenImage]:
    """Opens a boot image, which a LoaderError names by its boot.json. Raises one."""
    try:
        image = _normalised(bootimage.open_boot_image(directory))
        with bootimage.open_ram(image, directory) as memory:
            told = boot_parameters(image.protocol, image.cpus[0], memory)
            yield GivenImage(directory, image, memory, told)
    except LoaderError as error:
        error.file = error.file or str(directory / bootimage.DESCRIPTION)
        raise


def _normalised(image: BootImage) -> BootImage:
    """The image with its banks in address order, as machines have them, and regions inside RAM.

    That of the kernel stays: it is no name, but what the kernel needs.
    """
    ram = joined(image.ram)
    return replace(
        image,
        banks=tuple(sorted(image.banks, key=lambda bank: bank.base)),
        regions=tuple(
            region
            for region in image.regions
            if region.name == "kernel" or any(area.contains(region.range) for area in ram)
        ),
    )


# --- what it needs -----------------------------------------------------------------------------


def on_its_board(case: Case, given: GivenImage) -> Case:
    """The case with a board and a CPU that start CPUs in the image's mode, and the memory with
    which that board has RAM wherever the image has some.

    Raises UserError when the board that was asked for, or else every board, has RAM elsewhere, or
    its interrupt controller where no device tree of the guest's says, and when the mode is another.
    """
    image, board, arch = given.image, case.board, ARCHES[case.arch]
    Machine.check_board(arch, board)
    wanted, mode = joined(image.ram), image.cpus[0].mode
    # There is no way up for a CPU, nor down from EL2.
    hypervisor = mode == arch.hypervisor_mode
    alike = [name for name, traits in arch.boards.items() if traits.hypervisor == hypervisor]
    fits = {name: size for name in alike if (size := _memory_for(arch, name, wanted))}
    told = () if case.only_handover else given.told.interrupts
    with_it = [name for name in fits if tables.has_interrupts(arch, name, told)]
    best = min(with_it, key=lambda name: (fits[name], name != arch.board), default=None)
    taken = board or best
    if taken in with_it:
        cpu = case.cpu or arch.cpu_for(image.cpus[0])
        return replace(case, board=taken, memory=fits[taken], cpu=cpu)
    if board is not None and board not in alike:
        hint = f"; --machine {next(iter(fits))} does" if fits else ""
        raise UserError(
            f"{given.file}: $.cpus[0]: the CPU is in {mode}, and {board} starts none{hint}"
        )
    if fits and board in (None, *fits):
        name = board or next(iter(fits))
        why = tables.interrupts_elsewhere(arch, name, told)
        way_out = _ONLY_HANDOVER if best is None else f"--machine {best} has it there"
        raise UserError(f"{given.file}: {why}; {way_out}")
    name = board or arch.board
    most = arch.most_memory(name)
    has = _listed(_ranges(arch.boards[name].banks(most)))
    hint = f"; --machine {next(iter(fits))} has RAM there" if fits else ""
    raise UserError(
        f"{given.file}: $.banks: RAM at {_listed(wanted)}, but {name} with the most it can have,"
        f" {format_size(most)}, has it at {has}{hint}"
    )


def check_cpus(case: Case, given: GivenImage, machine: Machine) -> None:
    """Raises UserError for what is right on a machine whose CPUs have other numbers, wait for the
    kernel elsewhere, or call their firmware otherwise.
    """
    protocol = PROTOCOLS.get(given.image.protocol)
    by_tree = protocol is not None and protocol.tree_register is not None
    others = () if case.only_handover else tables.other_cpus(given.told, machine, by_tree=by_tree)
    why = next(iter(others), "")
    if why:
        raise UserError(f"{given.file}: {why}, or {_ONLY_HANDOVER}")


def _memory_for(arch: Arch, board: str, wanted: Sequence[Range]) -> int | None:
    """The least memory with which a board has RAM at all of `wanted`, which are in order."""
    banks, end, most = arch.boards[board].banks, wanted[-1].end, arch.most_memory(board)
    before, sizes = 0, []
    for base, size in banks(most):
        sizes += [end - base, before + end - base]  # with one bank, and with as many as it has
        before += size
    for size in sorted(align_up(size, MIB) for size in sizes):
        if MIB <= size <= most:
            ram = joined(_ranges(banks(size)))
            if all(any(bank.contains(part) for bank in ram) for part in wanted):
                return size
    return None


def _ranges(banks: Sequence[tuple[int, int]]) -> tuple[Range, ...]:
    return tuple(Range(base, size) for base, size in banks)


def _listed(ranges: Sequence[Range]) -> str:
    return ", ".join(map(str, ranges))


# --- what its guest can prove ------------------------------------------------------------------


def expected(case: Case, given: GivenImage, machine: Machine) -> Expected | ExpectedHandover:
    """What the guest has to prove, when its command line says that it is going to."""
    image, told, serial = given.image, given.told, machine.serial.name
    if given.nonce is None or case.only_handover:
        until = None if case.until is None else os.fsencode(case.until)
        return ExpectedHandover(image.entry, until, serial)
    common = Expected(
        arch=image.arch,
        nonce=given.nonce,
        cmdline=given.cmdline,
        cpus=machine.cpus,
        ram=image.ram if told.ram is None else told.ram,
        banks=image.ram,
        code=None,
        serial=serial,
        other=given.other,
    )
    if given.other:
        return common
    ram = told.system_ram
    return replace(
        common,
        ram=machine.arch.system_ram(image.ram, None) if ram is None else ram,
        unplaced=told.unplaced,
        reserved_twice=told.reserved_twice,
        code=_code(given),
        bootloader_type=told.bootloader_type,
        request=told.label,
        mode=image.cpus[0].mode,
        mode_log=machine.arch.mode_log,
    )


def _code(given: GivenImage) -> CodeInside | None:
    """Where the kernel must be found: in its region, unless it may choose another place (KASLR)."""
    region = given.image.region("kernel")
    if region is None or (given.told.unpacks and "nokaslr" not in given.cmdline.split()):
        return None
    return CodeInside(region)
