"""An architecture as the harness sees it: the type, and what is the same for all of them.

Starts nothing and reads nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any, Final

from bootproof.dataclass import dataclass
from bootproof.harness.arch.profiles import FAST_PROFILE
from bootproof.loader.address import MIB, Banks, Range
from bootproof.loader.kconfig import Need

if TYPE_CHECKING:
    from bootproof.harness.arch.dump import DumpFormat
    from bootproof.loader.formats import Format
    from bootproof.loader.layout import Region

Version = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class SerialPort:
    """A serial port, as Linux knows it."""

    name: str  # of its tty, also in console=
    # Major and minor number (Documentation/admin-guide/devices.txt); None where kernels choose one.
    device: tuple[int, int] | None
    driver: Need  # what must be built into a kernel for it


UART_8250: Final = SerialPort(
    "ttyS0",
    (4, 64),
    Need("CONFIG_SERIAL_8250_CONSOLE", b"serial8250", "the driver of the serial port (8250)"),
)


@dataclass(frozen=True, slots=True)
class Board:
    """A QEMU machine type, with options where its name has some."""

    # Where RAM is, by its size in bytes; the first bank is the lowest, and is always there.
    banks: Callable[[int], Banks]
    # The serial port that the harness reads.
    serial: SerialPort
    # RAM that the machine does not leave alone, by the size of all of it.
    reserved: Callable[[int], tuple[Region, ...]] = lambda memory: ()
    # Whether it writes there itself at every reset. Else loader devices reach it, through ROM too,
    # and what the CPU sees there need not be in the RAM's own bytes.
    writes_reserved: bool = False
    # That of it where the board shows the end of the file that QEMU's -bios names, if it does.
    rom: Range | None = None
    # Whether its CPUs start as they do for a hypervisor, and kernels are to be entered like that.
    hypervisor: bool = False
    # The most CPUs and bytes of RAM, where that is another number than the architecture's.
    cpu_limit: int | None = None
    memory_limit: int | None = None
    # Its CPU model, where it can have no other.
    cpu: str | None = None
    # Its device tree, by its banks and the number of its CPUs, where QEMU makes none.
    tree: Callable[[Banks, int], bytes] | None = None
    # What else QEMU must be told, by its version, so that it asks nothing of the host.
    words: Callable[[Version], tuple[str, ...]] = lambda version: ()
    # That of it where a firmware stays: nothing else can be there.
    firmware: tuple[Region, ...] = ()
    # Where its interrupt controller is, guest-physical: the first two parts of it, where device
    # trees tell of it and boards differ.
    interrupts: tuple[int, ...] = ()
    # How its firmware is called (PSCI), where device trees tell of it and boards differ.
    firmware_call: str = ""
    # The first QEMU without it, if there is one.
    gone: Version | None = None


@dataclass(frozen=True, slots=True)
class Quirk:
    """QEMUs before `fixed` that need another CPU model than the default."""

    fixed: Version
    cpu: str
    reason: str

    def applies(self, version: Version) -> bool:
        return version < self.fixed


@dataclass(frozen=True, slots=True)
class RealtimeQuirk:
    """Kernels before `kernel_fixed` that, with several CPUs, only boot in real time on a QEMU
    before `fixed`: all of them where it is not the kernel's doing. One that does not say its
    release is taken to be one of them.
    """

    name: str
    fixed: Version
    kernel_fixed: tuple[int, int] | None
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"

    def applies(self, cpus: int, version: Version, release: Callable[[], str | None]) -> bool:
        """`release` gives the kernel's `uname -r`; it is only asked when it decides."""
        if cpus == 1 or version >= self.fixed:
            return False
        if self.kernel_fixed is None:
            return True
        numbers = re.match(r"(\d+)\.(\d+)", release() or "")
        return not numbers or (int(numbers[1]), int(numbers[2])) < self.kernel_fixed


@dataclass(frozen=True, slots=True)
class Firmware:
    """A firmware that comes with QEMU."""

    name: str
    option: str  # as -bios names it
    file: str  # in a directory of QEMU's data
    # What brings that file, as apt, dnf and pacman call it.
    packages: tuple[str, str, str]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Arch:
    """Everything the harness knows about an architecture; there is one value of each."""

    # As `uname -m` says it, and as users write it.
    name: str
    # As GDB's `set architecture` knows it.
    gdb: str

    # --- the machine ---

    # QEMU's program for it.
    emulator: str
    # What brings that program, as apt, dnf and pacman call it.
    packages: tuple[str, str, str]
    # By the names that QEMU has for them, and the one that is taken by default.
    boards: Mapping[str, Board]
    board: str
    # The CPU model that is taken by default, and those for page sizes that it lacks.
    cpu: str
    page_cpus: Mapping[str, str] = field(default_factory=dict)
    # Other CPU models that lack a page size, as QEMU calls them.
    without_pages: Mapping[str, frozenset[str]] = field(default_factory=dict)
    # The CPU model for registers that the default ones cannot have; None where those will do.
    cpu_for: Callable[[Any], str | None] = lambda _registers: None
    # CPU features that give random numbers and can be turned off.
    entropy: tuple[str, ...] = ()
    # Device properties (QEMU's -global) that no guest can tell from the defaults.
    globals: tuple[str, ...] = ()
    # The most bytes of RAM, and the most CPUs, that a case may ask for.
    memory_limit: int
    cpu_limit: int
    # Whether guests with several CPUs were seen to run the same way each time.
    smp_repeats: bool
    # The firmware that every guest needs beside its kernel, if it needs one.
    bios: Firmware | None = None
    # Whether some QEMUs end without a word when the guest switches its machine off, and with an
    # exit code that the guest may have chosen.
    guest_ends_qemu: bool = False
    # Whether a CPU executes nothing more once it has switched its machine off. Else it runs on
    # until QEMU has stopped it, for some instructions more or less.
    stops_at_power_off: bool = False
    # Whether QEMU's own -kernel runs a firmware before the kernel that tells it of the machine.
    firmware: bool
    # The CPU mode in which the boards for a hypervisor start their CPUs, and none of the others.
    hypervisor_mode: str | None = None
    # Why a record cannot be debugged backwards, if it cannot.
    no_way_back: str = ""
    # Why QEMU's own -kernel is only compared in real time, if it is.
    reference_realtime: str = ""
    # What some QEMUs cannot do.
    quirks: tuple[Quirk, ...] = ()
    realtime_quirks: tuple[RealtimeQuirk, ...] = ()

    # --- guest-physical memory ---

    # What /proc/iomem calls System RAM, of these banks, some of it taken by ACPI tables.
    system_ram: Callable[[Sequence[Range], Range | None], tuple[Range, ...]]

    # --- the kernel ---

    # What a kernel needs on its command line beside its console, to end the machine as we want it
    # to, and what else makes it boot with fewer instructions.
    cmdline: str
    fast: str
    # The formats of kernels that have a boot protocol.
    formats: tuple[Format, ...]
    # Whether kernels want a device tree, and learn of all RAM from it.
    device_tree: bool
    # Whether an Image's flags say if it must be as near to the start of RAM as it can.
    image_says_place: bool = False
    # How far behind its load address the code of a kernel may begin whose headers do not tell.
    code_starts: tuple[int, ...] = ()
    # Finds the CPU mode at the entry (its first group) in the kernel's log, if it says so there.
    mode_log: re.Pattern[bytes] | None = None

    # How QEMU prints the registers.
    dump: DumpFormat

    def on(self, board: str | None) -> Board:
        """The board of that name; the default one for None, and for a name that it has not got."""
        return self.boards.get(board or "", self.boards[self.board])

    # Of such a board:

    def ram_base(self, board: str | None = None) -> int:
        """Where RAM begins."""
        return self.on(board).banks(MIB)[0][0]

    def most_cpus(self, board: str | None) -> int:
        """How many CPUs it may have."""
        return self.on(board).cpu_limit or self.cpu_limit

    def most_memory(self, board: str | None) -> int:
        """How many bytes of RAM it may have."""
        return self.on(board).memory_limit or self.memory_limit

    def command_line(self, profile: str, board: str | None = None) -> str:
        """Our own kernel command line, by the name of its profile."""
        line = f"console={self.on(board).serial.name} {self.cmdline}"
        return f"{line} {self.fast}" if profile == FAST_PROFILE else line
