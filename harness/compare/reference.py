"""The reference boot: the same kernel, initrd and command line, started by QEMU's own -kernel.

The one place where QEMU's loader and its firmware may run; it exists only to be compared with ours.
Stops at the kernel's first instruction as our own boots do, so that both can be held side by side.

Sources: QEMU's "Direct Linux Boot" documentation; where it enters was found with the gdbstub.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bootproof.harness import evidence, verdict
from bootproof.harness.case import RAM_BASE, Case
from bootproof.harness.errors import UserError
from bootproof.harness.guest import logbuffer, memory_map
from bootproof.harness.guest.stages import ENTRY, Stage
from bootproof.harness.host.files import file_for_qemu, lent_to_qemu, read_from_qemu, write_whole
from bootproof.harness.host.process import QemuProcess
from bootproof.harness.inputs import images
from bootproof.harness.observation import Budget, End, Observation
from bootproof.harness.prove import Prepared, Proven, expected_code, result_json
from bootproof.harness.qemu.argv import Channels, DirectKernel, LogMode, RamFile, RunLog, argv
from bootproof.harness.qemu.console import ConsoleFile, timestamped
from bootproof.harness.qemu.gdbstub import GdbError, GdbStub
from bootproof.harness.qemu.machine import Machine
from bootproof.harness.qemu.monitor import Monitor, MonitorError
from bootproof.harness.qemu.placement import PIECES_DIRECTORY
from bootproof.harness.qemu.watch import Ending, Watch, end_qemu, ending_without_answer, reset_cause
from bootproof.harness.qemu.watchdog import Patience
from bootproof.harness.record import recording, reproduce, rundir
from bootproof.harness.record.rundir import CONSOLE, RUN_LOG, TRANSCRIPT
from bootproof.harness.run import Costs, Outcome
from bootproof.harness.verdict import Expected
from bootproof.loader import assemble, bootimage, pe
from bootproof.loader.address import Range
from bootproof.loader.arch import Registers
from bootproof.loader.boot_parameters import Memory
from bootproof.loader.identify import Format, identify_bytes
from bootproof.loader.image import open_image
from bootproof.loader.memory import GuestMemory
from bootproof.loader.protocols import pvh
from bootproof.loader.result import KernelLoaderResult, PvhState

_GREETING_SECONDS: Final = 300.0
_KERNEL: Final = f"{PIECES_DIRECTORY}/kernel"
_INITRD: Final = f"{PIECES_DIRECTORY}/initrd"
_PEEK: Final = "peek.bin"
# QEMU keeps the first page of RAM for its own boot code, and moves an Image that would lie there.
_BOOT_CODE: Final = 0x1000
_TYPE_OF_QEMU: Final = 0xB0  # boot.rst, "type_of_loader": QEMU's number; also what PVH reads as

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


def default_offset(arch: str, kernel: Path) -> int | None:
    """linux-loader's kernel_offset for the place where QEMU's -kernel puts this kernel.

    The guest-physical base of an Image; None for the other formats, which say so themselves.
    """
    with open_image(kernel) as source:
        if identify_bytes(source.data).format is not Format.IMAGE:
            return None
        above = pe.text_offset(pe.read_image_header(source))
    return RAM_BASE[arch] + (pe.BASE_ALIGNMENT if above < _BOOT_CODE else 0)


def plan(case: Case, machine: Machine, protocol: str) -> Plan:
    """What QEMU will do with the case's kernel; `protocol` is the one that we entered it through.

    Raises LoaderError for a kernel that cannot be loaded, UserError for one QEMU does not start.
    """
    path = kernel_path(case)
    offset = default_offset(case.arch, path)
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
    image = prepared.assembled.image
    initrd = image.region("initrd")
    assert initrd is not None
    (directory / PIECES_DIRECTORY).mkdir()
    shutil.copyfile(plan.path, directory / _KERNEL)
    banks = [(bank.base, bank.size) for bank in image.banks]
    with GuestMemory.open(ours / bootimage.RAM, banks) as memory:
        (directory / _INITRD).write_bytes(memory.read(initrd.start, initrd.size))


def run(case: Case, plan: Plan, prepared: Prepared, directory: Path, look: Look) -> Reference:
    """Boots what `prepare` made, lets `look` see CPU and RAM at the entry, and judges the boot.

    Leaves no process, and no file but the run directory's. Raises UserError when QEMU cannot be
    started at all.
    """
    began = time.monotonic()
    machine, expected = prepared.start.machine, prepared.start.expected
    kernel = DirectKernel(_KERNEL, _INITRD, expected.cmdline)
    with lent_to_qemu(directory), contextlib.ExitStack() as stack:
        boot = _Boot(machine, kernel, prepared.start.budget, directory, stack)
        registers, observation, log = boot.observe(plan.entry, look)
    reproduce.write_reference_script(machine, kernel, directory)
    write_whole(directory / TRANSCRIPT, log.encode())
    expected = _expected(expected, plan, machine, observation.transcript)
    judgement = verdict.judge(expected, observation)
    seconds = time.monotonic() - began
    costs = Costs(seconds, seconds, observation.cpu_seconds, observation.instructions)
    entry = () if registers is None else (Stage(ENTRY, None, boot.entry),)
    reached = (*entry, *recording.stages(observation, directory / RUN_LOG))
    outcome = Outcome(judgement, observation, costs, directory, reached)
    proven = Proven(
        *(case, judgement.verdict, judgement.reason, None, None, outcome, directory), seconds
    )
    result = {"reference": True, "protocol": plan.protocol, "entry": hex(plan.entry)}
    rundir.write_result(directory, result_json(proven, machine) | result)
    return Reference(plan, proven, registers)


def _expected(ours: Expected, plan: Plan, machine: Machine, transcript: bytes) -> Expected:
    """What the reference must say: as ours, but for what QEMU's loader and firmware decide."""
    firmware = memory_map.logged(transcript)
    banks = tuple(Range(*bank) for bank in machine.banks)
    return replace(
        ours,
        ram=machine.arch.system_ram(memory_map.usable_banks(firmware, banks), None),
        code=expected_code(plan.kernel, machine.arch, ours.cmdline, banks),
        bootloader_type=None if ours.bootloader_type is None else _TYPE_OF_QEMU,
        request=None,
    )


class _GuestView:
    """Guest-physical memory as the CPU sees it: where the machine lays ROM over RAM, QEMU is asked.

    `reserved` are the ranges that the RAM file does not tell the truth about.
    """

    def __init__(
        self, ram: GuestMemory, reserved: Sequence[Range], monitor: Monitor, directory: Path
    ) -> None:
        self._ram, self._reserved = ram, reserved
        self._monitor, self._peek = monitor, directory / _PEEK

    def contains(self, address: int, size: int) -> bool:
        return self._ram.contains(address, size)

    def read(self, address: int, size: int) -> bytes:
        if not any(Range(address, max(1, size)).overlaps(hole) for hole in self._reserved):
            return self._ram.read(address, size)
        arguments = {"val": address, "size": size, "filename": _PEEK}
        try:
            self._monitor.execute("pmemsave", arguments)
            return read_from_qemu(self._peek, size)
        finally:
            self._peek.unlink(missing_ok=True)


class _Boot:
    """One QEMU with its channels and its RAM; `stack` ends them all, whatever happens."""

    def __init__(
        self,
        machine: Machine,
        kernel: DirectKernel,
        budget: Budget,
        directory: Path,
        stack: contextlib.ExitStack,
    ) -> None:
        self._dump, self._budget = machine.arch.dump, budget
        self.entry: int | None = None  # guest instructions before the kernel's first
        ours, qmp = (stack.enter_context(end) for end in socket.socketpair())
        ours_gdb, gdb = (stack.enter_context(end) for end in socket.socketpair())
        self._monitor = stack.enter_context(Monitor(ours))
        self._gdb = stack.enter_context(GdbStub(ours_gdb, self._monitor.wait))
        self._ram = stack.enter_context(GuestMemory(machine.banks))
        reserved = [region.range for region in machine.reserved]
        self._view = _GuestView(self._ram, reserved, self._monitor, directory)
        ram = RamFile(f"/proc/self/fd/{self._ram.fileno()}", shared=True)
        self._recorded = machine.recorded
        log = RunLog(RUN_LOG, LogMode.RECORD) if self._recorded else None
        channels = Channels(CONSOLE, qmp.fileno(), gdb.fileno(), ram, append=True, log=log)
        console = file_for_qemu(directory / CONSOLE, budget.console_bytes)
        self._console = stack.enter_context(
            ConsoleFile(
                console,
                self._monitor.wait,
                self._ended,
                limit=budget.console_bytes + 1,
            )
        )
        words = argv(machine, kernel, channels)
        inherited = (qmp.fileno(), gdb.fileno(), self._ram.fileno())
        self._process = stack.enter_context(QemuProcess(words, directory, pass_fds=inherited))
        self._patience = Patience(
            self._process, budget.idle_seconds, lambda: self._monitor.told_to_end
        )
        self._monitor.give_up_when(self._patience.is_over)
        for theirs in (qmp, gdb):
            theirs.close()

    def observe(self, entry: int, look: Look) -> tuple[Registers | None, Observation, str]:
        """Runs to the entry, lets `look` see it, and watches the guest to its end.

        Also gives the transcript with times.
        """
        registers, ending = self._watch(entry, look)
        end_qemu(self._process, self._monitor)
        transcript = bytes(self._console.transcript)
        proven = evidence.parse(transcript).proof is not None
        observation = Observation(
            transcript=transcript,
            end=ending.end,
            exit_code=self._process.exit_code if ending.end is End.QEMU_EXITED else None,
            stderr=self._process.stderr(),
            instructions=ending.usage.instructions,
            cpu_seconds=ending.usage.cpu_seconds,
            registers=ending.registers,
            log=b"" if proven else logbuffer.read(self._ram),
            place=ending.place,
            reset=reset_cause(self._dump, ending),
        )
        return registers, observation, timestamped(transcript, self._console.arrivals)

    def _ended(self) -> bool:
        return self._process.ended()

    def _watch(self, entry: int, look: Look) -> tuple[Registers | None, Ending]:
        registers: Registers | None = None
        try:
            self._monitor.connect(_GREETING_SECONDS, wake=self._recorded)
            watch = Watch(
                *(self._process, self._monitor, self._console, self._budget, self._dump, self._ram)
            )
            stopped = self._gdb.run_to(entry, watch.given_up)
            found = self._dump.parse(self._monitor.registers())
            if not stopped or found.pc != entry:
                return None, watch.stop(End.NOT_ENTERED)
            registers, self.entry = found, self._monitor.instructions()
            look(found, self._view)
            self._gdb.detach()
            return registers, watch.until_the_end()
        except (MonitorError, GdbError):
            return registers, ending_without_answer(
                self._process, self._console, self._patience.end
            )
