"""A machine and how it is started -> QEMU's command line. Pure.

Source: QEMU's "Invocation" and "Generic Loader" documentation.
"""

from __future__ import annotations

import enum
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.harness.qemu.clock import GUEST_CLOCK, ICOUNT_SHIFT
from bootproof.harness.qemu.machine import Machine
from bootproof.harness.qemu.talker import TERMINAL, Talker
from bootproof.loader.address import MIB

SANDBOX: Final = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


@dataclass(frozen=True, slots=True)
class Blob:
    """A file for a generic loader device, put at guest-physical `address`."""

    path: str
    address: int


@dataclass(frozen=True, slots=True)
class Launch:
    """How the bytes get into RAM and where each CPU starts."""

    blobs: tuple[Blob, ...]
    entries: tuple[int, ...]
    # The boot image's own RAM is the guest's, and the blobs are only what is missing.
    mapped: bool = False
    # The file that is the board's ROM, in place of a firmware.
    rom: str | None = None


@dataclass(frozen=True, slots=True)
class DirectKernel:
    """What QEMU's own loader (-kernel) is given in a reference boot; all but one are paths."""

    kernel: str
    initrd: str
    cmdline: str
    # The board's device tree, where QEMU makes none.
    dtb: str | None = None


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
    """Where QEMU talks to, and whom it listens to."""

    # The file of the guest's serial console.
    console: str
    # A socket for QMP. With one the guest waits before its first instruction until it is told to go
    # on: else what happens in its first milliseconds would be over before anybody could be told.
    qmp_fd: int | None = None
    # A socket for the gdbstub.
    gdb_fd: int | None = None
    ram: RamFile | None = None
    # Somebody talks to the guest, through QEMU's standard input and output; on a terminal with
    # QEMU's own escape (Ctrl-A X ends it).
    talker: Talker | None = None
    # The console file keeps what is in it already, also the room that was set aside for it.
    append: bool = False
    # What QEMU does when the guest resets or shuts down: "pause", so that it can be asked what
    # happened, or "poweroff".
    after_shutdown: str = "pause"
    # For machines that are recorded, and playbacks.
    log: RunLog | None = None
    # A qcow2 file that no device of the guest knows of.
    snapshots: str | None = None
    # A listening socket for a debugger that comes later.
    gdb_listen_fd: int | None = None


def argv(machine: Machine, start: Launch | DirectKernel, channels: Channels) -> list[str]:
    """The command line that starts exactly this guest; paths are relative to the run directory."""
    started = _direct_kernel(start) if isinstance(start, DirectKernel) else _loader_devices(start)
    return [*_surroundings(machine, channels), *started]


def _surroundings(machine: Machine, channels: Channels) -> list[str]:
    return [
        *machine_words(machine, channels.ram),
        *("-display", "none"),
        *("-sandbox", SANDBOX),
        *_determinism(machine, channels.log),
        *("-action", f"reboot=shutdown,shutdown={channels.after_shutdown},panic=none"),
        *_channels(channels),
    ]


def machine_words(
    machine: Machine, ram: RamFile | None = None, *, dumpdtb: str | None = None
) -> list[str]:
    """QEMU and the machine alone; with `dumpdtb` it writes its device tree there, and ends."""
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
        *(("-bios", machine.arch.bios.option) if machine.arch.bios else ()),
        *machine.traits.words(machine.qemu.version),
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
    args = _console(channels)
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


def _console(channels: Channels) -> list[str]:
    path = _escaped(channels.console)
    append = ",append=on" if channels.append else ""
    if channels.talker is None:
        return ["-chardev", f"file,id=console,path={path}{append}", "-serial", "chardev:console"]
    escape = channels.talker is TERMINAL
    options = f"stdio,id=console,mux={'on' if escape else 'off'},signal=off,logfile={path}"
    options += append.replace("append", "logappend")
    monitor = ["-mon", "chardev=console,mode=readline"] if escape else []
    return ["-chardev", options, *monitor, "-serial", "chardev:console"]


def _ram_backend(ram: RamFile | None, size: str) -> tuple[str, ...]:
    if ram is None:
        return ()
    share = "on" if ram.shared else "off"
    return (
        "-object",
        f"memory-backend-file,id=ram,size={size},mem-path={_escaped(ram.path)},share={share}",
    )


def _loader_devices(launch: Launch) -> list[str]:
    args = ["-bios", launch.rom] if launch.rom is not None else []
    for blob in launch.blobs:
        args += [
            "-device",
            f"loader,file={_escaped(blob.path)},addr={blob.address:#x},force-raw=on",
        ]
    for number, entry in enumerate(launch.entries):
        args += ["-device", f"loader,addr={entry:#x},cpu-num={number}"]
    return args


def _direct_kernel(kernel: DirectKernel) -> list[str]:
    words = ["-kernel", kernel.kernel, "-initrd", kernel.initrd, "-append", kernel.cmdline]
    return words if kernel.dtb is None else [*words, "-dtb", kernel.dtb]


def _escaped(value: str) -> str:
    """QEMU option values double their commas."""
    return value.replace(",", ",,")
