"""Real kernels played back, packed, and followed back from a panic to the instruction behind it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from bootproof.dataclass import dataclass
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.case import Case
from bootproof.harness.cases.kernels import default_kernels
from bootproof.harness.prove import Proven, prove
from bootproof.harness.qemu.gdbstub import GdbError, GdbStub
from bootproof.harness.record import pack, playback, replay, reverse
from bootproof.harness.verdict import Verdict
from bootproof.loader.address import MIB, PAGE
from bootproof.loader.initramfs import archive, file

_CODE: Final = 0x5551000  # guest-virtual: nothing else in a boot lies there
_LARGEST_PACK: Final = 60 * MIB


@dataclass(frozen=True, slots=True)
class Exiting:
    """A first process that only exits, which a kernel does not survive.

    `code` is its machine code, `call` the offset of the system call in it, `machine` e_machine.
    """

    case: Case
    machine: int
    code: bytes
    call: int

    def program(self) -> bytes:
        """An ELF executable with one segment (elf(5))."""
        fields = (2, self.machine, 1, _CODE, 64, 0, 0, 64, 56, 1, 0, 0, 0)
        header = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", *fields)
        size = len(self.code)
        segment = struct.pack("<IIQQQQQQ", 1, 5, PAGE, _CODE, _CODE, size, size, PAGE)
        return (header + segment).ljust(PAGE, b"\0") + self.code


X86_64 = Exiting(
    Case("x86_64", default_kernels("x86_64")[0], "elf", "pvh", label="replay", profile="fast"),
    machine=62,
    # mov eax, exit_group; xor edi, edi; syscall
    code=bytes.fromhex("b8 e7 00 00 00  31 ff  0f 05"),
    call=7,
)
AARCH64 = Exiting(
    Case(
        *("aarch64", default_kernels("aarch64")[0], "image", "arm64"),
        ARCHES["aarch64"].ram_base() + 2 * MIB,
        label="replay",
        profile="fast",
    ),
    machine=183,
    # mov x0, 0; mov x8, exit_group; svc 0
    code=struct.pack("<3I", 0xD2800000, 0xD2800BC8, 0xD4000001),
    call=8,
)


RISCV64 = Exiting(
    Case(
        *("riscv64", default_kernels("riscv64")[0], "image", "riscv64"),
        ARCHES["riscv64"].ram_base(),
        label="replay",
        profile="fast",
    ),
    machine=243,
    # li a0, 0; li a7, exit_group; ecall
    code=struct.pack("<3I", 0x00000513, 0x05E00893, 0x00000073),
    call=8,
)


@pytest.mark.beside
@pytest.mark.parametrize("guest", [X86_64, AARCH64, RISCV64], ids=lambda guest: guest.case.arch)
def test_from_a_panic_back_to_its_cause(
    guest: Exiting, run_directory: Callable[[str], Path], tmp_path: Path
) -> None:
    """The panic is in the kernel; what caused it is a system call of the first process."""
    directory = run_directory(f"{guest.case.id}-panic")
    initrd = tmp_path / "initrd"
    initrd.write_bytes(archive([file("init", guest.program(), 0o755)]))
    proven = prove(replace(guest.case, initrd=str(initrd)), directory)
    _check_stages(proven)
    recorded = playback.open_recorded(directory)
    assert replay.difference(recorded, replay.play(recorded)) is None
    pack.pack(directory, tmp_path / "run.tar.zst")
    assert (tmp_path / "run.tar.zst").stat().st_size < _LARGEST_PACK
    stop = reverse.stop_at(recorded, None)
    assert stop.words == "the kernel says that it panics"
    with (
        reverse.listening("") as (listener, address),
        reverse.opened(recorded, stop, listener) as running,
        socket.socket(socket.AF_UNIX) as client,
    ):
        client.connect(address)
        gdb = GdbStub(client, running.monitor.wait)
        if recorded.machine.arch.no_way_back:
            assert running.instructions == stop.instructions
            with pytest.raises(GdbError):
                gdb.step_back()
            return
        gdb.step_back()
        assert running.instructions == stop.instructions - 1
        gdb.break_at(_CODE + guest.call)
        gdb.continue_back()
        registers = running.monitor.registers()
        dump = recorded.machine.arch.dump
        assert dump.program_counter(registers) == _CODE + guest.call
        assert running.instructions < stop.instructions


def _check_stages(proven: Proven) -> None:
    """The proof was there before the panic, and each stage took more instructions than the last."""
    assert proven.verdict is Verdict.BOOTED, proven.reason
    assert proven.outcome is not None
    counts = [stage.instructions or 0 for stage in proven.outcome.stages]
    names = [stage.name for stage in proven.outcome.stages]
    assert names == ["entry", "first-output", "banner", "memory", "drivers", "init", "proof"]
    assert counts[0] > 0
    assert counts == sorted(counts)
