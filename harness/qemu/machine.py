"""A typed machine description -> QEMU command line.

Owns the machine, the QEMU binaries and their versions, and the argv. Starts nothing but `--version`
and `dumpdtb`. What differs between architectures, and every fact about a QEMU that misbehaves, is
in bootproof.harness.arch.

Sources: QEMU's "Invocation" and "Generic Loader" documentation.
"""

from __future__ import annotations

import enum
import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bootproof.harness import places
from bootproof.harness.arch import Arch, Banks, RealtimeQuirk, Version
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.errors import UserError
from bootproof.harness.text import printable
from bootproof.loader.address import MIB, format_size
from bootproof.loader.layout import Region

QEMU_MINIMUM: Final[Version] = (7, 2, 0)
GUEST_CLOCK: Final = "2026-01-01T00:00:00"
ICOUNT_SHIFT: Final = 3  # one instruction is 2^3 ns of guest time
SANDBOX: Final = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


@dataclass(frozen=True, slots=True)
class QemuBinary:
    """A QEMU system emulator and its version."""

    path: str
    version: Version

    def __str__(self) -> str:
        return f"{Path(self.path).name} {'.'.join(map(str, self.version))}"


@dataclass(frozen=True, slots=True)
class Machine:
    """The computer a case runs on: everything QEMU is told that is not the guest's own bytes.

    `memory` is in bytes. `realtime` says why determinism is given up for the host's clock; it is
    empty for a deterministic machine. `unrecorded` says why its run is not recorded, if it is not.
    """

    arch: Arch
    qemu: QemuBinary
    board: str
    cpu: str
    memory: int
    cpus: int = 1
    realtime: str = ""
    unrecorded: str = ""

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
    def banks(self) -> Banks:
        return self.arch.boards[self.board].banks(self.memory)

    @property
    def reserved(self) -> tuple[Region, ...]:
        return self.arch.boards[self.board].reserved

    def banks_with(self, memory: int) -> Banks:
        """The banks of the same board with another memory size in bytes."""
        return self.arch.boards[self.board].banks(memory)


@dataclass(frozen=True, slots=True)
class Blob:
    """A file for a generic loader device, put at guest-physical `address`."""

    path: str
    address: int


@dataclass(frozen=True, slots=True)
class Launch:
    """How the bytes get into RAM and where each CPU starts.

    `mapped` says that the boot image's own RAM is the guest's, and the blobs only what is missing.
    """

    blobs: tuple[Blob, ...]
    entries: tuple[int, ...]
    mapped: bool = False


@dataclass(frozen=True, slots=True)
class DirectKernel:
    """What QEMU's own loader (-kernel) is given in a reference boot; both are paths."""

    kernel: str
    initrd: str
    cmdline: str


@dataclass(frozen=True, slots=True)
class RamFile:
    """A file as the guest's RAM; `shared` lets others see, and the file keep, what changes."""

    path: str
    shared: bool = False


class LogMode(enum.Enum):
    """What is done with a run's log: written while the guest runs, or followed by it."""

    RECORD = "record"
    REPLAY = "replay"


@dataclass(frozen=True, slots=True)
class RunLog:
    """QEMU's log of everything in a run that the guest's own code does not determine."""

    path: str
    mode: LogMode


@dataclass(frozen=True, slots=True)
class Channels:
    """Where QEMU talks to: console file, QMP and gdbstub file descriptors (None: none), RAM file.

    With QMP the guest waits before its first instruction until it is told to go on: else what
    happens in its first milliseconds would be over before anybody could be told.

    `gdb_listen_fd` is a listening socket for a debugger that comes later. `append` leaves in the
    console file what is there already, also the room that was set aside for it. `terminal` connects
    the console to standard input and output as well, with QEMU's own escape (Ctrl-A X ends it); the
    guest's timing then depends on the terminal. `after_shutdown` is what QEMU does when the guest
    resets or shuts down: "pause", so that it can be asked what happened, or "poweroff". `log` is
    for machines that are recorded. `snapshots` is a qcow2 file that no device of the guest knows
    of.
    """

    console: str
    qmp_fd: int | None = None
    gdb_fd: int | None = None
    ram: RamFile | None = None
    terminal: bool = False
    append: bool = False
    after_shutdown: str = "pause"
    log: RunLog | None = None
    snapshots: str | None = None
    gdb_listen_fd: int | None = None


def machine(
    arch_name: str,
    *,
    memory: int,
    board: str | None = None,
    cpu: str | None = None,
    cpus: int = 1,
    realtime: str = "",
    binary: str | None = None,
) -> Machine:
    """A machine with the architecture's defaults, on the QEMU found, or on another `binary`.

    Raises UserError.
    """
    arch = ARCHES[arch_name]
    if board is not None and board not in arch.boards:
        raise UserError(
            f"machine {board!r} is not known for {arch.name}; known: {', '.join(arch.boards)}"
        )
    if memory % MIB or not MIB <= memory <= arch.memory_limit:
        raise UserError(
            f"memory: {format_size(memory)} is not a whole number of MiB from 1 MiB to"
            f" {format_size(arch.memory_limit)}"
        )
    if not 1 <= cpus <= arch.cpu_limit:
        raise UserError(f"CPUs: {cpus}; machines of {arch.name} have 1 to {arch.cpu_limit}")
    qemu = find_qemu(arch.name, binary)
    quirk = next((q for q in arch.quirks if q.applies(qemu.version)), None)
    default_cpu = quirk.cpu if quirk else arch.cpu
    model = without_entropy(arch, cpu) if cpu else default_cpu
    return Machine(arch, qemu, board or arch.board, model, memory, cpus, realtime)


def without_entropy(arch: Arch, cpu: str) -> str:
    """A CPU model without the instructions that give random numbers, unless it names them itself.

    The default models have none.
    """
    named = {word.lstrip("+-").partition("=")[0] for word in cpu.split(",")}
    return ",".join([cpu, *(f"-{name}" for name in arch.entropy if name not in named)])


def realtime_quirk(machine: Machine, release: Callable[[], str | None]) -> RealtimeQuirk | None:
    """Why a kernel of this release does not boot deterministically on `machine`, if it does not."""
    cpus, version = machine.cpus, machine.qemu.version
    quirks = machine.arch.realtime_quirks
    return next((quirk for quirk in quirks if quirk.applies(cpus, version, release)), None)


@functools.cache
def find_qemu(arch_name: str, binary: str | None = None) -> QemuBinary:
    """The emulator for an architecture: `binary`, else BOOTPROOF_QEMU_<ARCH>, else that on PATH.

    Raises UserError when there is none or the variable says `none`, it does not run, or it is older
    than 7.2.
    """
    arch = ARCHES[arch_name]
    variable = f"BOOTPROOF_QEMU_{arch.name.upper()}"
    named = binary or os.environ.get(variable)
    if named == "none" and not binary:
        raise UserError(f"QEMU for {arch_name} is switched off by {variable}=none")
    found = shutil.which(named or arch.emulator)
    if found is None and not named:
        raise UserError(
            f"{arch.emulator} is not installed; run `{places.SET_UP}`, or name one in {variable}"
        )
    # Absolute: it is started in its run directory.
    path = str(Path(found).absolute()) if found else str(named)
    version = qemu_version(path)
    if version < QEMU_MINIMUM:
        old, needed = (".".join(map(str, v)) for v in (version, QEMU_MINIMUM))
        raise UserError(f"{path}: QEMU {old} is too old; bootproof needs {needed} or newer")
    return QemuBinary(path, version)


def qemu_version(path: str) -> Version:
    """The version a QEMU binary says it has. Raises UserError when it says none."""
    said = build(path)
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", said)
    if match is None:
        raise UserError(f"{path}: does not look like QEMU; `--version` said: {said}")
    major, minor, micro = map(int, match.groups())
    return (major, minor, micro)


@functools.cache
def build(path: str) -> str:
    """What a QEMU binary says about its build: version and package. Raises UserError."""
    try:
        run = subprocess.run([path, "--version"], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{path}: cannot be run as QEMU: {error}") from error
    said = (run.stdout + run.stderr).strip().splitlines() or [b"nothing"]
    return printable(said[0].removeprefix(b"QEMU emulator version "))


@functools.cache
def device_tree(machine: Machine) -> bytes | None:
    """The device tree QEMU makes for this machine, or None where kernels want none.

    Raises UserError when QEMU refuses the machine.
    """
    if not machine.arch.device_tree:
        return None
    with tempfile.TemporaryDirectory(prefix="bootproof-") as directory:
        path = Path(directory) / "machine.dtb"
        command = [*_machine_args(machine, None, dumpdtb=str(path)), "-display", "none"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if not path.exists():
            reason = run.stderr.strip() or f"exit code {run.returncode}"
            raise UserError(f"{machine.qemu}: no device tree for {machine.board}: {reason}")
        return path.read_bytes()


def argv(machine: Machine, launch: Launch, channels: Channels) -> list[str]:
    """The command line that starts exactly this guest; paths are relative to the run directory."""
    return [*_surroundings(machine, channels), *_loader_devices(launch)]


def reference_argv(machine: Machine, kernel: DirectKernel, channels: Channels) -> list[str]:
    """The same machine, started by QEMU's own loader and firmware: only to be compared with."""
    return [
        *_surroundings(machine, channels),
        *("-kernel", kernel.kernel),
        *("-initrd", kernel.initrd),
        *("-append", kernel.cmdline),
    ]


def _surroundings(machine: Machine, channels: Channels) -> list[str]:
    return [
        *_machine_args(machine, channels.ram),
        *("-display", "none"),
        *("-sandbox", SANDBOX),
        *_determinism(machine, channels.log),
        *("-action", f"reboot=shutdown,shutdown={channels.after_shutdown},panic=none"),
        *_channels(channels),
    ]


def _machine_args(machine: Machine, ram: RamFile | None, dumpdtb: str | None = None) -> list[str]:
    options = [machine.board, "accel=tcg"]
    options += ["memory-backend=ram"] if ram else []
    options += [f"dumpdtb={_escaped(dumpdtb)}"] if dumpdtb else []
    size = f"{machine.memory // MIB}M"
    return [
        machine.qemu.path,
        *("-nodefaults", "-no-user-config"),
        *("-machine", ",".join(options)),
        *("-cpu", machine.cpu),
        *("-m", size),
        *("-smp", str(machine.cpus)),
        *(word for setting in machine.arch.globals for word in ("-global", setting)),
        *_ram_backend(ram, size),
    ]


def _determinism(machine: Machine, log: RunLog | None) -> tuple[str, ...]:
    if machine.realtime:
        return ()
    options = f"shift={ICOUNT_SHIFT},sleep=off"
    if log is not None:
        options += f",rr={log.mode.value},rrfile={_escaped(log.path)}"
    return (
        *("-icount", options),
        *("-rtc", f"base={GUEST_CLOCK},clock=vm"),
        *("-seed", "1"),
    )


def _channels(channels: Channels) -> list[str]:
    args: list[str] = []
    path = _escaped(channels.console)
    if channels.terminal:
        options = f"stdio,id=console,mux=on,signal=off,logfile={path}"
        args += ["-chardev", options + (",logappend=on" if channels.append else "")]
        args += ["-mon", "chardev=console,mode=readline"]
    else:
        options = f"file,id=console,path={path}"
        args += ["-chardev", options + (",append=on" if channels.append else "")]
    args += ["-serial", "chardev:console"]
    if channels.qmp_fd is not None:
        args += [
            "-chardev",
            f"socket,id=qmp,fd={channels.qmp_fd}",
            "-mon",
            "chardev=qmp,mode=control",
            "-S",
        ]
    if channels.gdb_fd is not None:
        args += ["-chardev", f"socket,id=gdb,fd={channels.gdb_fd}", "-gdb", "chardev:gdb"]
    if channels.gdb_listen_fd is not None:
        listening = f"socket,id=debugger,fd={channels.gdb_listen_fd},server=on,wait=off"
        args += ["-chardev", listening, "-gdb", "chardev:debugger"]
    if channels.snapshots is not None:
        args += ["-drive", f"file={_escaped(channels.snapshots)},if=none,format=qcow2,id=snapshots"]
    return args


def _ram_backend(ram: RamFile | None, size: str) -> tuple[str, ...]:
    if ram is None:
        return ()
    share = "on" if ram.shared else "off"
    return (
        "-object",
        f"memory-backend-file,id=ram,size={size},mem-path={_escaped(ram.path)},share={share}",
    )


def _loader_devices(launch: Launch) -> list[str]:
    args = []
    for blob in launch.blobs:
        args += [
            "-device",
            f"loader,file={_escaped(blob.path)},addr={blob.address:#x},force-raw=on",
        ]
    for number, entry in enumerate(launch.entries):
        args += ["-device", f"loader,addr={entry:#x},cpu-num={number}"]
    return args


def _escaped(value: str) -> str:
    """QEMU option values double their commas."""
    return value.replace(",", ",,")
