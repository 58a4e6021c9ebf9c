"""Guests without a kernel: a few hand-encoded instructions in a boot image, run by real QEMU.

A program reads like what the guest does: `program("x86_64").say(b"hello\\n").halt()`. Encodings are
spelled out here from the manuals (Intel SDM vol. 2, Arm ARM C6.2, RISC-V vol. I), independent of
bootproof.loader.arch. The x86 instructions used mean the same in 32-bit and 64-bit code.
"""

from __future__ import annotations

import hashlib
import socket
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from bootproof.harness.arch.table import ARCHES
from bootproof.harness.course import Outcome
from bootproof.harness.expected import CodeAt, Expected
from bootproof.harness.host.files import give_to_qemu
from bootproof.harness.host.process import QemuProcess
from bootproof.harness.host.rundir import CONSOLE
from bootproof.harness.qemu.argv import Channels, RamFile, argv
from bootproof.harness.qemu.machine import Machine
from bootproof.harness.qemu.monitor import Monitor
from bootproof.harness.qemu.placement import guest_ram, place_image, write
from bootproof.harness.run import run
from bootproof.harness.start import Start
from bootproof.harness.terms import Budget, Placement
from bootproof.loader import bootimage
from bootproof.loader.address import MIB, Range
from bootproof.loader.arch import Registers
from bootproof.loader.arch.aarch64 import Arm64Registers
from bootproof.loader.arch.riscv64 import RiscvRegisters
from bootproof.loader.arch.x86_64 import (
    ATTR_CODE32,
    ATTR_CODE64,
    DescriptorTable,
    Segment,
    X86Registers,
)
from bootproof.loader.bootimage import BootImage
from bootproof.loader.initramfs import archive, file
from bootproof.loader.layout import Region
from bootproof.loader.memory import GuestMemory
from bootproof.loader.protocols.linux64 import identity_map

MEMORY = 16 * MIB
# Small enough that a guest which does nothing more is given up within about a second.
BUDGET = Budget(parked_cpu_seconds=0.1, parked_looks=4, quiet_instructions=20_000_000)
PAGE_TABLES = 0x9000
TEXT_DISTANCE = 0x10000  # the program's strings, behind its code
PSCI_SYSTEM_OFF, PSCI_SYSTEM_RESET = 0x84000008, 0x84000009
SBI_RESET, SBI_SHUTDOWN, SBI_REBOOT = 0x53525354, 0, 1  # SBI specification, chapter 10


def flat32(rip: int, **changes: Any) -> X86Registers:
    """32-bit flat segments, paging off: what PVH and the 32-bit Linux protocol ask for."""
    return replace(_x86(rip, ATTR_CODE32), **changes)


def flat64(rip: int, **changes: Any) -> X86Registers:
    """Long mode, paging on with tables at PAGE_TABLES."""
    paging = {"cr0": 0x80000011, "cr3": PAGE_TABLES, "cr4": 0x20, "efer": 0x500}
    return replace(_x86(rip, ATTR_CODE64), **(paging | changes))


def _x86(rip: int, code: int) -> X86Registers:
    data = Segment(0x18)
    return X86Registers(
        rip=rip,
        cs=Segment(0x10, attributes=code),
        ds=data,
        es=data,
        fs=data,
        gs=data,
        ss=data,
        gdtr=DescriptorTable(),
    )


class Program(ABC):
    """Machine code for guest-physical `entry`, with the strings it prints behind it."""

    arch: str

    def __init__(self, entry: int) -> None:
        self.entry = entry
        self.code = bytearray()
        self.text = bytearray()

    def say(self, text: bytes) -> Self:
        """Writes `text` to the serial port."""
        address = self.entry + TEXT_DISTANCE + len(self.text)
        self.text += text
        self._print(address, len(text))
        return self

    def say_for_ever(self, text: bytes) -> Self:
        start = len(self.code)
        self.say(text)
        self._jump_back(len(self.code) - start)
        return self

    @abstractmethod
    def wait(self) -> Self:
        """Waits for an interrupt for ever; changes no register but the program counter."""

    @abstractmethod
    def halt(self) -> Self:
        """Waits with interrupts off: for ever."""

    @abstractmethod
    def spin(self) -> Self:
        """Jumps to itself."""

    @abstractmethod
    def count(self) -> Self:
        """Counts for ever: busy, and in another state each time one looks."""

    @abstractmethod
    def reset(self) -> Self:
        """Resets the machine, without a word."""

    @abstractmethod
    def _print(self, address: int, length: int) -> None: ...

    @abstractmethod
    def _jump_back(self, distance: int) -> None: ...

    @property
    def contents(self) -> Mapping[int, bytes]:
        """What lies where in guest-physical RAM."""
        parts = {self.entry: bytes(self.code)}
        if self.text:
            parts[self.entry + TEXT_DISTANCE] = bytes(self.text)
        return parts


class X86Program(Program):
    arch = "x86_64"

    def wait(self) -> Self:
        self.code += bytes.fromhex("f4 eb fd")  # hlt; jmp back to it
        return self

    def halt(self) -> Self:
        self.code += bytes.fromhex("fa")  # cli
        return self.wait()

    def spin(self) -> Self:
        self.code += bytes.fromhex("eb fe")  # jmp $
        return self

    def count(self) -> Self:
        self.code += bytes.fromhex("83 c0 01 eb fb")  # add eax, 1; jmp -5
        return self

    def echo(self) -> Self:
        """Says what the serial port hears, for ever: looks for a byte, reads it, writes it."""
        self.code += bytes.fromhex(
            "66 ba fd 03 ec a8 01 74 fb"
        )  # in al, LSR until its bit 0 is set
        self.code += bytes.fromhex("66 ba f8 03 ec ee eb ef")  # in al, RBR; out THR, al; again
        return self

    def reset(self) -> Self:
        """A triple fault: an exception with an empty IDT. Needs a stack."""
        self.code += bytes.fromhex("6a 00 6a 00")  # push 0; push 0
        self.code += bytes.fromhex("0f 01 1c 24 cc")  # lidt [esp]; int3
        return self

    def reset_by_port(self) -> Self:
        """Through the keyboard controller; and goes on."""
        self.code += bytes.fromhex("b0 fe e6 64")  # mov al, 0xfe; out 0x64, al
        return self.count()

    def power_off(self) -> Self:
        """Through ACPI's PM1 control, which q35 has once the bridge at 00:1f.0 was told where; and
        goes on (Intel ICH9, 13.1.16 PMBASE, 13.1.17 ACPI_CNTL, 13.8.3.3 PM1_CNT).
        """
        for register, value in {0x40: 0x601, 0x44: 0x80}.items():
            for port, word in ((0xCF8, 0x8000F800 | register), (0xCFC, value)):
                # mov dx, port; mov eax, word; out dx, eax
                self.code += struct.pack("<2sHcIc", b"\x66\xba", port, b"\xb8", word, b"\xef")
        self.code += bytes.fromhex("66 ba 04 06 66 b8 00 20 66 ef")  # mov dx; mov ax; out dx, ax
        return self.count()

    def say_initrd(self) -> Self:
        """Writes the text of `initrd_saying`, in the initrd that the zero page at RSI tells of."""
        self.code += bytes.fromhex("8b b6 18 02 00 00")  # mov esi, [rsi + ramdisk_image]
        self.code += bytes.fromhex("66 ba f8 03 fc")  # mov dx, 0x3f8; cld
        self.code += bytes.fromhex("ac 3c 02 75 fb")  # lodsb; cmp al, 2; jne -5
        self.code += bytes.fromhex("ac 84 c0 74 03 ee eb f8")  # lodsb; test; jz +3; out; jmp -8
        return self

    def flags_to_eax(self) -> Self:
        """Needs a stack; leaves interrupts off."""
        self.code += bytes.fromhex("9c 58 fa")  # pushf; pop eax; cli
        return self

    def _print(self, address: int, length: int) -> None:
        self.code += b"\xbe" + struct.pack("<I", address)  # mov esi, address
        self.code += b"\xb9" + struct.pack("<I", length)  # mov ecx, length
        self.code += bytes.fromhex("66 ba f8 03 fc")  # mov dx, 0x3f8; cld
        self.code += bytes.fromhex("ac ee e2 fc")  # lodsb; out dx, al; loop -4

    def _jump_back(self, distance: int) -> None:
        self.code += b"\xe9" + struct.pack("<i", -distance - 5)  # jmp rel32


class Arm64Program(Program):
    arch = "aarch64"

    def wait(self) -> Self:
        return self._emit(0xD503207F, 0x17FFFFFF)  # wfi; b -4

    def halt(self) -> Self:
        self._emit(0xD5034FDF)  # msr daifset, #15
        return self.wait()

    def spin(self) -> Self:
        return self._emit(0x14000000)  # b .

    def count(self) -> Self:
        return self._emit(0x91000400, 0x17FFFFFF)  # add x0, x0, #1; b -4

    def reset(self) -> Self:
        return self.psci(PSCI_SYSTEM_RESET)

    def undefined(self) -> Self:
        """An exception that leads to the next one for ever: no vectors are set up."""
        return self._emit(0)  # udf #0

    def psci(self, function: int) -> Self:
        self._mov(0, function)
        return self._emit(0xD4000002)  # hvc #0

    def _print(self, address: int, length: int) -> None:
        self._mov(1, address)
        self._mov(2, length)
        self._mov(3, 0x09000000)  # PL011 of `virt`, UARTDR
        self._emit(
            0x38401420,  # ldrb w0, [x1], #1
            0xB9000060,  # str w0, [x3]
            0xF1000442,  # subs x2, x2, #1
            0x54FFFFA1,  # b.ne -12
        )

    def _jump_back(self, distance: int) -> None:
        self._emit(0x14000000 | (-distance // 4 & 0x3FFFFFF))

    def _mov(self, register: int, value: int) -> None:
        """movz and three movk: any 64-bit value without a literal."""
        for shift in range(4):
            opcode = 0xD2800000 if shift == 0 else 0xF2800000
            self._emit(opcode | shift << 21 | (value >> 16 * shift & 0xFFFF) << 5 | register)

    def _emit(self, *words: int) -> Self:
        self.code += struct.pack(f"<{len(words)}I", *words)
        return self


class RiscvProgram(Program):
    arch = "riscv64"

    def wait(self) -> Self:
        return self._emit(0x10500073, 0xFFDFF06F)  # wfi; j -4

    def halt(self) -> Self:
        self._emit(0x10017073)  # csrci sstatus, 2
        return self.wait()

    def spin(self) -> Self:
        return self._emit(0x0000006F)  # j .

    def count(self) -> Self:
        return self._emit(0x00150513, 0xFFDFF06F)  # addi a0, a0, 1; j -4

    def reset(self) -> Self:
        return self.sbi(SBI_RESET, SBI_REBOOT)

    def power_off(self) -> Self:
        return self.sbi(SBI_RESET, SBI_SHUTDOWN)

    def end_qemu(self, code: int) -> Self:
        """Through the test device: hw/misc/sifive_test.c. Needs M-mode, or a firmware's leave."""
        self._mov(5, 0x100000)
        self._mov(6, code << 16 | 0x3333)
        return self._emit(0x0062A023)  # sw t1, 0(t0)

    def sbi(self, extension: int, first: int) -> Self:
        """Function 0 of an extension, with 0 for its second argument."""
        for register, value in {10: first, 11: 0, 16: 0, 17: extension}.items():
            self._mov(register, value)
        return self._emit(0x00000073)  # ecall

    def undefined(self) -> Self:
        """An exception that leads to the next one for ever: no vector is set up."""
        return self._emit(0)

    def _print(self, address: int, length: int) -> None:
        self._mov(5, address)
        self._mov(6, length)
        self._mov(7, 0x10000000)  # 16550 of `virt`
        self._emit(
            0x0002CE03,  # lbu t3, 0(t0)
            0x01C38023,  # sb t3, 0(t2)
            0x00128293,  # addi t0, t0, 1
            0xFFF30313,  # addi t1, t1, -1
            0xFE0318E3,  # bnez t1, -16
        )

    def _jump_back(self, distance: int) -> None:
        """j: its distance is scattered over the instruction, and less than 2 KiB here."""
        self._emit(0x800FF06F | (-distance & 0x7FE) << 20 | (-distance >> 11 & 1) << 20)

    def _mov(self, register: int, value: int) -> None:
        """addi, and six times slli and ori: any 64-bit value without a literal."""
        self._emit(register << 7 | 0x13)  # li register, 0
        same = register << 15 | register << 7 | 0x13
        for shift in range(55, -1, -11):
            self._emit(same | 11 << 20 | 1 << 12, same | (value >> shift & 0x7FF) << 20 | 6 << 12)

    def _emit(self, *words: int) -> Self:
        self.code += struct.pack(f"<{len(words)}I", *words)
        return self


PROGRAMS = {kind.arch: kind for kind in (X86Program, Arm64Program, RiscvProgram)}


def program(arch: str, entry: int | None = None) -> Program:
    """An empty program, by default for 2 MiB above the start of RAM."""
    return PROGRAMS[arch](ARCHES[arch].ram_base() + 2 * MIB if entry is None else entry)


@dataclass(frozen=True)
class Guest:
    """A program, the registers it is entered with, and what else lies in RAM."""

    program: Program
    registers: Registers | None = None
    extra: Mapping[int, bytes] = field(default_factory=dict)
    regions: tuple[Region, ...] = ()

    @property
    def cpu(self) -> Registers:
        """As demanded; else 32-bit flat on x86 (with a stack), EL1 on arm64, S-mode on riscv64."""
        if self.registers is not None:
            return self.registers
        entry, arch = self.program.entry, self.program.arch
        if arch == "x86_64":
            return flat32(entry, rsp=0x8000)
        return Arm64Registers(entry) if arch == "aarch64" else RiscvRegisters(entry)

    def write(self, directory: Path, machine: Machine) -> BootImage:
        """The boot image, in `directory`, for a machine with this memory."""
        cpu = self.cpu
        paging = isinstance(cpu, X86Registers) and cpu.long_mode
        tables = {PAGE_TABLES: identity_map(PAGE_TABLES, 4)} if paging else {}
        contents = {**tables, **self.program.contents, **self.extra}
        with GuestMemory(machine.banks, path=directory / bootimage.RAM) as memory:
            for address, data in contents.items():
                memory.write(address, data)
            image = BootImage(
                machine.arch.name, "none", memory.banks, (cpu,), self.regions, {"made by": "a test"}
            )
        bootimage.save(image, directory)
        return image


def initrd_saying(text: bytes) -> bytes:
    """An archive with a text that `X86Program.say_initrd` finds, behind others: from STX to NUL."""
    return archive([file("text", b"\x02" + text + b"\0")])


def framed(number: int, key: str, value: str) -> str:
    """A line of evidence as init prints it."""
    check = hashlib.sha256(f"{key} {value}\n".encode()).hexdigest()[:8]
    return f"bootproof: {number} {check} {key} {value}\r\n"


@dataclass(frozen=True)
class Claim:
    """What a guest says about itself, line by line, and the expectation that it fulfils.

    The kernel code it speaks of is its own first page, so that looking into RAM agrees.
    """

    machine: Machine
    entry: int
    nonce: str = "0123456789abcdef0123456789abcdef"
    cmdline: str = "console=ttyS0 bootproof.nonce=0123456789abcdef0123456789abcdef"

    @property
    def lines(self) -> dict[str, str]:
        x86 = self.machine.arch.name == "x86_64"
        base, size = self.machine.banks[0]
        ram = ["1000-9fbff", f"100000-{size - 1:x}"] if x86 else [f"{base:x}-{base + size - 1:x}"]
        if self.machine.firmware:
            ram = [f"{self.machine.firmware[0].range.end:x}-{base + size - 1:x}"]
        return {
            "cmdline": self.cmdline,
            "release": "6.1.0-test",
            "machine": self.machine.arch.name,
            "cpus": "1",
            "memory": f"{(size >> 10) * 3 // 4} kB",
            "code": f"{self.entry:08x}-{self.entry + 0xFFF:08x}",
            "ram": "\n".join(ram),
            ("bootloader_type" if x86 else "request"): "255" if x86 else "a request",
        }

    def text(self, *, nonce: str | None = None, **changes: str | None) -> bytes:
        """The console output, proof included; `changes` replaces lines, None leaves one out."""
        lines = {key: value for key, value in (self.lines | changes).items() if value is not None}
        pairs = [(key, part) for key, value in lines.items() for part in value.split("\n")]
        said = "".join(f"{key} {value}\n" for key, value in pairs)
        digest = hashlib.sha256(f"{nonce or self.nonce}\n{said}".encode()).hexdigest()
        printed = "".join(framed(number, *pair) for number, pair in enumerate(pairs, start=1))
        return f"{printed}bootproof: proof {digest}\r\n".encode() * 2

    @property
    def expected(self) -> Expected:
        x86 = self.machine.arch.name == "x86_64"
        banks = [Range(base, size) for base, size in self.machine.banks]
        return Expected(
            arch=self.machine.arch.name,
            nonce=self.nonce,
            cmdline=self.cmdline,
            cpus=1,
            ram=self.machine.arch.system_ram(banks, None),
            banks=tuple(banks),
            code=CodeAt((self.entry,)),
            bootloader_type=255 if x86 else None,
            request=None if x86 else "a request",
            serial=self.machine.serial.name,
            releases=("6.1.0-test", "another in it"),
        )


def machine(arch: str, *, memory: int = MEMORY, board: str | None = None) -> Machine:
    """A machine as small as these guests."""
    return Machine.with_defaults(arch, memory=memory, board=board)


def boot(
    what: Program | Guest,
    directory: Path,
    *,
    on: Machine | None = None,
    expected: Expected | None = None,
    **options: Any,
) -> Outcome:
    """Writes a guest into `directory`, made where it is not there, and runs it as a case is run."""
    guest = what if isinstance(what, Guest) else Guest(what)
    directory.mkdir(exist_ok=True)
    computer = on or machine(guest.program.arch)
    wanted = expected or Claim(computer, guest.program.entry).expected
    image = guest.write(directory, computer)
    return run(Start(image, computer, wanted, **({"budget": BUDGET} | options)), directory)


@dataclass(frozen=True)
class Live:
    """A guest that is running now."""

    process: QemuProcess
    monitor: Monitor
    directory: Path

    def hmp(self, command: str) -> str:
        """What the human monitor answers."""
        answer = self.monitor.execute("human-monitor-command", {"command-line": command})
        return str(answer).replace("\r", "")

    def registers(self, until: str) -> str:
        """What QEMU says about the CPU once `until` is part of it."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found = self.hmp("info registers")
            if until in found:
                return found
            if not self.monitor.execute("query-status")["running"]:
                break
            self.monitor.wait(0.01)
        raise AssertionError(f"never saw {until!r}; at last:\n{found}")

    def memory(self, address: int, size: int) -> bytes:
        """Guest-physical memory as the guest has it now."""
        self.monitor.execute("pmemsave", {"val": address, "size": size, "filename": "memory.bin"})
        return (self.directory / "memory.bin").read_bytes()


@contextmanager
def live(
    guest: Guest,
    machine: Machine,
    directory: Path,
    *,
    placement: Placement = Placement.DEVICES,
    machine_options: str = "",
) -> Iterator[Live]:
    """Starts `guest` as the harness does, watched by nobody; `machine_options` go to -machine."""
    image = guest.write(directory, machine)
    banks = [(bank.base, bank.size) for bank in image.banks]
    with GuestMemory.open(directory / bootimage.RAM, banks) as memory:
        placed = place_image(image, memory, machine, placement)
        write(placed, memory, directory)
        guests = guest_ram(memory, machine.banks, placed.mapped)
    give_to_qemu(directory)
    ours, theirs = socket.socketpair()
    with guests, Monitor(ours) as monitor, theirs:
        inherited = [theirs.fileno(), guests.fileno()]
        ram = RamFile(f"/proc/self/fd/{guests.fileno()}", shared=True)
        words = argv(machine, placed.launch, Channels(CONSOLE, theirs.fileno(), ram=ram))
        words[words.index("-machine") + 1] += machine_options
        with QemuProcess(words, directory, pass_fds=inherited) as process:
            theirs.close()
            monitor.connect(60)
            monitor.execute("cont")
            yield Live(process, monitor, directory)
