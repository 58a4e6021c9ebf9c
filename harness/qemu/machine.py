"""The computer a case runs on, as a value: what it is, and what can be promised of its runs.

What differs between architectures, and every fact about a QEMU that misbehaves, is in
bootproof.harness.arch; how QEMU is told is bootproof.harness.qemu.argv's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bootproof.dataclass import dataclass
from bootproof.harness.arch.arch import Arch, Board, SerialPort
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.errors import UserError
from bootproof.harness.qemu.binary import QemuBinary, find_qemu, version_text
from bootproof.loader.address import MIB, Banks, format_size
from bootproof.loader.layout import Region


@dataclass(frozen=True, slots=True)
class Machine:
    """The computer a case runs on: everything QEMU is told that is not the guest's own bytes."""

    arch: Arch
    qemu: QemuBinary
    board: str
    cpu: str  # QEMU's model, and what is changed of it
    memory: int  # bytes
    cpus: int = 1
    realtime: str = ""  # why determinism is given up for the host's clock, if it is
    unrecorded: str = ""  # why its run is not recorded, if it could be

    @classmethod
    def with_defaults(
        cls,
        arch_name: str,
        *,
        memory: int,
        board: str | None = None,
        cpu: str | None = None,
        cpus: int = 1,
        binary: str | None = None,
        page_size: str | None = None,
    ) -> Machine:
        """The architecture's defaults where nothing is said, on the QEMU installed or on `binary`.

        `page_size` is the kernel's, where it says one: not every CPU model has every size.
        Raises UserError.
        """
        arch = ARCHES[arch_name]
        Machine.check_board(arch, board)
        board = board or arch.board
        Machine._check_memory(arch, board, memory)
        Machine._check_cpus(arch, board, cpus)
        qemu = find_qemu(arch.name, binary)
        gone = arch.boards[board].gone
        if gone and qemu.version >= gone:
            raise UserError(
                f"machine {board}: QEMU {version_text(gone)} and later have it no more, and"
                f" {qemu.path} is {version_text(qemu.version)}: take an older one (--qemu), or give"
                " the guest less RAM"
            )
        model = Machine._cpu(arch, board, cpu, qemu, page_size or "")
        return cls(arch, qemu, board, model, memory, cpus)

    @staticmethod
    def _check_memory(arch: Arch, board: str, memory: int) -> None:
        most = arch.most_memory(board)
        if memory % MIB or not MIB <= memory <= most:
            raise UserError(
                f"memory: {format_size(memory)} is not a whole number of MiB from 1 MiB to"
                f" {format_size(most)}, the most of {board}"
            )

    @staticmethod
    def _cpu(arch: Arch, board: str, asked: str | None, qemu: QemuBinary, page_size: str) -> str:
        """The CPU model: the board's own, what was asked for, or what QEMU and kernel need."""
        only = arch.on(board).cpu
        if only and asked and asked.partition(",")[0] != only:
            raise UserError(f"{board} has no other CPU than {only}: leave --cpu out")
        quirk = next((quirk for quirk in arch.quirks if quirk.applies(qemu.version)), None)
        default = arch.page_cpus.get(page_size, quirk.cpu if quirk else arch.cpu)
        model = without_entropy(arch, asked) if asked else only or default
        Machine._check_pages(arch, board, model, page_size)
        return model

    @staticmethod
    def _check_cpus(arch: Arch, board: str, cpus: int) -> None:
        most = arch.most_cpus(board)
        if 1 <= cpus <= most:
            return
        larger = [name for name in arch.boards if cpus <= arch.most_cpus(name)]
        hint = f"; --machine {larger[0]} has {cpus}" if larger and cpus > 0 else ""
        raise UserError(f"CPUs: {cpus}; {board} has 1 to {most} (--smp){hint}")

    @staticmethod
    def _check_pages(arch: Arch, board: str, model: str, page_size: str) -> None:
        """A kernel whose pages the CPU model lacks hangs without a word."""
        name = model.partition(",")[0]
        if name in arch.without_pages.get(page_size, ()):
            fits = arch.page_cpus.get(page_size, arch.cpu)
            way_out = f"take --cpu {fits}, or leave --cpu out"
            if arch.on(board).cpu:
                way_out = f"take --machine {arch.board}, as {board} has no other CPU"
            raise UserError(f"the kernel has {page_size} pages, which {name} has not: {way_out}")

    @staticmethod
    def check_board(arch: Arch, board: str | None) -> None:
        """Raises UserError for a board that the architecture has not got."""
        if board is not None and board not in arch.boards:
            raise UserError(
                f"machine {board!r} is not known for {arch.name}; known: {', '.join(arch.boards)}"
            )

    def for_kernel(self, release: Callable[[], str | None]) -> Machine:
        """This machine, in real time when a kernel of this release boots on it in no other way.

        `release` gives the kernel's `uname -r`; it is only asked when it decides.
        """
        for quirk in self.arch.realtime_quirks:
            if quirk.applies(self.cpus, self.qemu.version, release):
                return replace(self, realtime=f"quirk {quirk}")
        return self

    @property
    def recorded(self) -> bool:
        """Whether QEMU can keep a log of a run; it refuses to for more than one CPU."""
        return self.not_recorded is None

    @property
    def not_recorded(self) -> str | None:
        """Why QEMU keeps no log of a run, if it keeps none."""
        if self.realtime:
            return "runs in real time"
        if self.cpus > 1:
            return "QEMU records no guest with several CPUs"
        return self.unrecorded or None

    @property
    def deterministic(self) -> bool:
        """Whether every run of the same guest must be the same."""
        return not self.realtime and (self.cpus == 1 or self.arch.smp_repeats)

    @property
    def mode(self) -> str:
        """Whether the guest's time is its own, in words."""
        if self.realtime:
            return f"real time: {self.realtime}"
        return "deterministic" if self.deterministic else "nearly deterministic: several CPUs"

    @property
    def traits(self) -> Board:
        """What its board is like."""
        return self.arch.on(self.board)

    @property
    def banks(self) -> Banks:
        return self.traits.banks(self.memory)

    @property
    def reserved(self) -> tuple[Region, ...]:
        return self.traits.reserved(self.memory)

    @property
    def hypervisor(self) -> bool:
        return self.traits.hypervisor

    @property
    def firmware(self) -> tuple[Region, ...]:
        return self.traits.firmware

    @property
    def writes_reserved(self) -> bool:
        return self.traits.writes_reserved

    @property
    def serial(self) -> SerialPort:
        return self.traits.serial

    @property
    def most_memory(self) -> int:
        """The most bytes of RAM that its board may have."""
        return self.arch.most_memory(self.board)

    def banks_with(self, memory: int) -> Banks:
        """The banks of the same board with another memory size in bytes."""
        return self.traits.banks(memory)


def without_entropy(arch: Arch, cpu: str) -> str:
    """A CPU model without the instructions that give random numbers, unless it names them itself.

    The default models have none.
    """
    named = {word.lstrip("+-").partition("=")[0] for word in cpu.split(",")}
    return ",".join([cpu, *(f"-{name}" for name in arch.entropy if name not in named)])
