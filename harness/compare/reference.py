"""The reference boot: the same kernel, initrd and command line, started by QEMU's own -kernel.

The one place where QEMU's loader and its firmware may run; it exists only to be compared with ours.
Stops at the kernel's first instruction as our own boots do, so that both can be held side by side.

Sources: QEMU's "Direct Linux Boot" documentation; where it enters was found with the gdbstub.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.case import Case
from bootproof.harness.course import Outcome, concluded
from bootproof.harness.errors import UserError
from bootproof.harness.expected import Expected
from bootproof.harness.guest.stages import ENTRY, Stage
from bootproof.harness.host import rundir
from bootproof.harness.host.rundir import DEVICES_DIRECTORY, RUN_LOG
from bootproof.harness.host.turns import TURNS
from bootproof.harness.inputs import images
from bootproof.harness.prepare import Prepared, expected_code
from bootproof.harness.prove import Proven, result_json
from bootproof.harness.qemu.argv import DirectKernel
from bootproof.harness.qemu.machine import Machine
from bootproof.harness.qemu.session import Session
from bootproof.harness.qemu.spawn import Spawned
from bootproof.harness.qemu.standing import StandingMemory
from bootproof.harness.qemu.watch import Ending, Watch
from bootproof.harness.record import recording, reproduce
from bootproof.loader import assemble, bootimage, pe
from bootproof.loader.address import Range
from bootproof.loader.arch import Registers
from bootproof.loader.boot_parameters import BootParameters, Memory
from bootproof.loader.formats import Format
from bootproof.loader.identify import identify_bytes
from bootproof.loader.image import open_image
from bootproof.loader.memory import GuestMemory
from bootproof.loader.protocols import pvh
from bootproof.loader.protocols.table import boot_parameters
from bootproof.loader.result import KernelLoaderResult, PvhState

_KERNEL: Final = f"{DEVICES_DIRECTORY}/kernel"
_INITRD: Final = f"{DEVICES_DIRECTORY}/initrd"
_TREE: Final = f"{DEVICES_DIRECTORY}/dtb"
# QEMU keeps the first page of RAM for its own boot code, and moves an Image that would lie there.
_BOOT_CODE: Final = 0x1000

Look = Callable[[Registers, Memory], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What QEMU will do with a kernel file: where it puts it, and where and how it enters it."""

    path: Path
    kernel: KernelLoaderResult
    protocol: str
    entry: int


@dataclass(frozen=True, slots=True)
class Reference:
    """A judged reference boot; `registers` are those at the entry, None when it was not reached."""

    plan: Plan
    proven: Proven
    registers: Registers | None


def kernel_path(case: Case) -> Path:
    """The kernel file of a case, unpacked to its format. Raises as `images` does."""
    return images.in_format(images.kernel_file(case.kernel_source), case.format).path


def default_offset(arch: str, kernel: Path, board: str | None = None) -> int | None:
    """linux-loader's kernel_offset for the place where QEMU's -kernel puts this kernel.

    The guest-physical base of an Image; None for the other formats, which say so themselves.
    """
    with open_image(kernel) as source:
        if identify_bytes(source.data).format is not Format.IMAGE:
            return None
        above = pe.text_offset(pe.read_image_header(source))
    return ARCHES[arch].ram_base(board) + (pe.BASE_ALIGNMENT if above < _BOOT_CODE else 0)


def plan(case: Case, machine: Machine, protocol: str) -> Plan:
    """What QEMU will do with the case's kernel; `protocol` is the one that we entered it through.

    Raises LoaderError for a kernel that cannot be loaded, UserError for one QEMU does not start.
    """
    path = kernel_path(case)
    offset = default_offset(case.arch, path, case.board)
    with open_image(path, case.kernel) as source, GuestMemory(machine.banks) as memory:
        loader = assemble.LOADERS[identify_bytes(source.data).format]
        kernel = loader().load(memory, source, kernel_offset=offset)
    if case.format == "elf":
        if kernel.pvh_boot_cap.state is not PvhState.PRESENT:
            raise UserError(
                f"{case.kernel}: QEMU's -kernel starts a vmlinux only through PVH,"
                " and this one has no PVH note"
            )
        protocol = pvh.NAME
    return Plan(path, kernel, protocol, kernel.entry_points[protocol])


def prepare(plan: Plan, prepared: Prepared, ours: Path, directory: Path) -> None:
    """Makes the reference's run directory, with the very initrd that our own boot is given.

    `ours` is the directory of our boot image, not yet booted. Raises UserError.
    """
    rundir.make_fresh(directory)
    rundir.mark(directory)
    image = prepared.start.image
    initrd = image.region("initrd")
    assert initrd is not None
    (directory / DEVICES_DIRECTORY).mkdir()
    shutil.copyfile(plan.path, directory / _KERNEL)
    banks = [(bank.base, bank.size) for bank in image.banks]
    with GuestMemory.open(ours / bootimage.RAM, banks) as memory:
        (directory / _INITRD).write_bytes(memory.read(initrd.start, initrd.size))
    machine = prepared.start.machine
    if machine.traits.tree is not None:
        (directory / _TREE).write_bytes(machine.traits.tree(machine.banks, machine.cpus))


def run(case: Case, plan: Plan, prepared: Prepared, directory: Path, look: Look) -> Reference:
    """Boots what `prepare` made, lets `look` see CPU and RAM at the entry, and judges the boot.

    Leaves no process, and no file but the run directory's. Raises UserError when QEMU cannot be
    started at all.
    """
    began = TURNS.clock()
    machine, expected = _machine(prepared.start.machine), prepared.start.expected
    assert isinstance(expected, Expected)
    tree = _TREE if machine.traits.tree else None
    kernel = DirectKernel(_KERNEL, _INITRD, expected.cmdline, tree)
    with (
        GuestMemory(machine.banks) as ram,
        Spawned(machine, kernel, ram, directory, budget=prepared.start.budget) as qemu,
        Session(qemu) as session,
    ):
        course = _Course(plan, session, look)
        seen, ending = session.observe(course.steps)
    reproduce.write_reference_script(machine, kernel, directory)
    log = recording.read_log(directory / RUN_LOG, seen.transcript)
    wanted = _expected(expected, plan, machine, course.told)
    start = replace(prepared.start, expected=wanted)
    judgement, seen, costs = concluded(
        *(start, session, seen, ending, log), lambda: (TURNS.clock() - began,) * 2
    )
    entry = () if course.registers is None else (Stage(ENTRY, course.instructions, None),)
    stages = (*entry, *recording.stages(seen, log))
    outcome = Outcome(judgement, seen, costs, directory, stages)
    ended = (judgement.verdict, judgement.reason, None, None, outcome, directory)
    proven = Proven(case, *ended, costs.host_seconds)
    result = {"reference": True, "protocol": plan.protocol, "entry": hex(plan.entry)}
    rundir.write_result(directory, result_json(proven, machine) | result)
    return Reference(plan, proven, course.registers)


def realtime(machine: Machine) -> str:
    """Why a reference boot has the host's clock, where nothing else can be stopped; else empty."""
    return machine.realtime or machine.arch.reference_realtime


def _machine(machine: Machine) -> Machine:
    return replace(machine, realtime=realtime(machine))


def _expected(
    ours: Expected, plan: Plan, machine: Machine, told: BootParameters | None
) -> Expected:
    """What the reference must say: as ours, but for what QEMU's loader and firmware decide.

    `told` is what its kernel was told at the entry, whether it logs that or not.
    """
    banks = tuple(Range(*bank) for bank in machine.banks)
    ram = told.system_ram if told else None
    return replace(
        ours,
        ram=ram or machine.arch.system_ram(banks, None),
        unplaced=told.unplaced if told else 0,
        reserved_twice=told.reserved_twice if told else (),
        code=expected_code(plan.kernel, machine.arch, ours.cmdline, banks),
        # QEMU's number (boot.rst, "type_of_loader"), whichever way it enters a kernel.
        bootloader_type=ours.bootloader_type and pvh.BOOTLOADER_TYPE,
        request=None,
    )


class _Course:
    """The course of a reference boot: to the entry, where one looks, and on to the end."""

    def __init__(self, plan: Plan, session: Session, look: Look) -> None:
        self._entry, self._protocol = plan.entry, plan.protocol
        self._session, self._look = session, look
        self.registers: Registers | None = None  # at the entry
        self.instructions: int | None = None  # of the guest, before the kernel's first
        self.told: BootParameters | None = None  # what the kernel is told

    def steps(self, watch: Watch) -> Ending:
        session = self._session
        there, registers = session.run_to(self._entry, watch.given_up)
        if not there:
            return watch.not_entered()
        self.registers, self.instructions = registers, session.monitor.instructions()
        memory = StandingMemory(session)
        self.told = boot_parameters(self._protocol, registers, memory)
        self._look(registers, memory)
        session.gdb.detach()
        return watch.until_the_end()
