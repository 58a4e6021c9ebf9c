"""QEMU's own -kernel boots, imported at their entry: as they were seen, and booting again.

QEMU's loader stands for somebody else's VMM here: what it prepares is dumped and asked for by gdb.
"""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bootproof.dataclass import dataclass
from bootproof.harness import cli
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.case import Case
from bootproof.harness.cases.kernels import default_kernels
from bootproof.harness.compare import reference
from bootproof.harness.host.files import read_from_qemu
from bootproof.harness.prepare import Prepared, prepare
from bootproof.harness.qemu.argv import DirectKernel
from bootproof.harness.qemu.session import Session
from bootproof.harness.qemu.spawn import Spawned
from bootproof.harness.qemu.standing import StandingMemory
from bootproof.harness.registers import compare_registers
from bootproof.loader import bootimage
from bootproof.loader.address import MIB, Range
from bootproof.loader.arch import Registers
from bootproof.loader.memory import GuestMemory

RunDirectory = Callable[[str], Path]
Command = Callable[..., str]

ROM = Range.between(0xA0000, MIB)

X86_64, AARCH64, RISCV64 = (default_kernels(arch)[0] for arch in ("x86_64", "aarch64", "riscv64"))
CASES = {
    "bzimage-linux32": Case("x86_64", X86_64, "bzimage", "linux32", board="pc", smp=2),
    "elf-pvh": Case("x86_64", X86_64, "elf", "pvh"),
    "arm64": Case(
        *("aarch64", AARCH64, "image", "arm64", ARCHES["aarch64"].ram_base() + 2 * MIB), smp=2
    ),
    "riscv64": Case("riscv64", RISCV64, "image", "riscv64", ARCHES["riscv64"].ram_base()),
}


@dataclass(frozen=True)
class Standing:
    """A guest of QEMU's loader that stands at its entry."""

    session: Session
    plan: reference.Plan
    registers: Registers
    debugger: str

    def compare(self, image: Path) -> None:
        """Everything that the boot image says is as it is in the guest."""
        found = bootimage.open_boot_image(image)
        assert found.protocol == self.plan.protocol
        assert [str(d) for d in compare_registers(self.registers, found.cpus[0])] == []
        memory = StandingMemory(self.session)
        machine = self.session.machine
        apart = [ROM, *(firmware.range for firmware in machine.firmware)]
        with bootimage.open_ram(found, image) as ram:
            for bank in self.session.ram.banks:
                for start in range(bank.base, bank.range.end, MIB):
                    part = Range(start, min(MIB, bank.range.end - start))
                    if not any(part.overlaps(area) for area in apart) and ram.contains(
                        part.start, part.size
                    ):
                        seen = memory.read(part.start, part.size)
                        assert ram.read(part.start, part.size) == seen, part

    def core(self) -> Path:
        arguments = {"paging": False, "protocol": "file:guest.core"}
        self.session.monitor.execute("dump-guest-memory", arguments)
        return self.session.directory / "guest.core"


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """What a command of ours prints, which must succeed."""

    def command(*words: str) -> str:
        capsys.readouterr()
        code = cli.main(words)
        said = capsys.readouterr()
        assert code == 0, said.err
        return said.out

    return command


@contextmanager
def standing(
    case: Case, prepared: Prepared, directory: Path, command: Command
) -> Iterator[Standing]:
    machine = prepared.start.machine
    plan = reference.plan(case, machine, prepared.start.image.protocol)
    reference.prepare(plan, prepared, directory / "ours", directory / "theirs")
    cmdline = prepared.start.image.provenance["cmdline"]
    kernel = DirectKernel("devices/kernel", "devices/initrd", cmdline)
    listener = socket.create_server(("127.0.0.1", 0))
    with (
        listener,
        GuestMemory(machine.banks) as ram,
        Spawned(
            machine, kernel, ram, directory / "theirs", with_gdb=False, debugger=listener
        ) as qemu,
        Session(qemu) as session,
    ):
        session.connect()
        where = f"127.0.0.1:{listener.getsockname()[1]}"
        out = directory / "by-gdb"
        entry = hex(plan.entry)
        words = ["--arch", case.arch, "--gdb", where, "--break", entry, "--out", str(out)]
        command("import", *words)
        registers = machine.arch.dump.parse(session.monitor.registers(), {})
        assert registers.pc == plan.entry
        yield Standing(session, plan, registers, where)
        assert not session.monitor.execute("query-status")["running"]


@pytest.mark.parametrize("name", CASES)
def test_import(name: str, run_directory: RunDirectory, command: Command) -> None:
    """By core and by gdb: the same registers, the same RAM; and it boots."""
    case = replace(CASES[name], profile="fast", memory=96 * MIB)
    directory = run_directory(f"import-{name}")
    shutil.rmtree(directory, ignore_errors=True)
    prepared = prepare(case, directory / "ours")
    core = directory / "guest.core"
    with standing(case, prepared, directory, command) as guest:
        guest.compare(directory / "by-gdb")
        dumped = guest.core()
        core.write_bytes(read_from_qemu(dumped, dumped.stat().st_size))
        command("import", str(core), "--out", str(directory / "by-core"))
        guest.compare(directory / "by-core")
    assert len(bootimage.open_boot_image(directory / "by-core").cpus) == case.smp
    assert (directory / "by-core" / "ram.img").stat().st_blocks * 512 < core.stat().st_size / 2
    core.unlink()
    board = prepared.start.machine.board
    for image in ("by-core", "by-gdb"):
        words = [str(directory / image), "--machine", board, "--out", str(directory / "run")]
        said = command("run", *words)
        verdict = re.search(r"^verdict +(.*)$", said, re.MULTILINE)
        assert verdict and verdict[1].startswith("booted: "), verdict
        assert ("2 CPUs" if case.smp == 2 else "1 CPU,") in said
