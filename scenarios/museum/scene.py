"""The right hand-overs that exhibits start from, and what a mistake may do to one.

A kernel is a few bytes that halt, with the headers of its format. All addresses are guest-physical.
"""

from __future__ import annotations

import copy
import struct
from collections.abc import Callable
from dataclasses import field, replace
from typing import Any, Final

from bootproof.dataclass import dataclass
from bootproof.loader import initramfs
from bootproof.loader.address import GIB, MIB, Banks, Range
from bootproof.loader.arch import riscv64
from bootproof.loader.arch.aarch64 import Arm64Registers
from bootproof.loader.arch.x86_64 import X86Registers
from bootproof.loader.bootimage import BootImage
from bootproof.loader.device_tree import DeviceTree, Node
from bootproof.loader.layout import Region
from bootproof.loader.memory import GuestMemory
from bootproof.loader.protocols import BootRequest
from bootproof.loader.protocols.table import PROTOCOLS
from bootproof.loader.result import KernelLoaderResult, PvhBootCapability, PvhState
from bootproof.loader.structures.setup_header import SetupHeader
from bootproof.loader.structures.start_info import ModlistEntry, StartInfo
from bootproof.loader.structures.zero_page import ZeroPage

SMALL: Final[Banks] = ((0, 64 * MIB),)
# As QEMU's q35 has 5 GiB: nothing between 2 GiB and 4 GiB.
SPLIT: Final[Banks] = ((0, 2 * GIB), (4 * GIB, 3 * GIB))
BOARD: Final[Banks] = ((GIB, 64 * MIB),)
FOOTPRINT: Final = 4 * MIB
CMDLINE: Final = b"console=ttyS0 root=/dev/ram0"
_PAYLOAD: Final = 0x300
_GZIP: Final = b"\x1f\x8b\x08"
_HALTS: Final = b"\xf4\xeb\xfd"  # hlt; jmp to it


@dataclass(frozen=True, slots=True)
class Setting:
    """A machine and a way to enter a kernel on it."""

    protocol: str
    # A bzImage that unpacks itself at 16 MiB, else a kernel as it runs.
    packed: bool = False
    # Where it is loaded instead of at 1 MiB, or else at 16 MiB of RAM.
    load: int | None = None
    banks: Banks = SMALL
    cpus: int = 1
    board: str | None = None
    cpu: str | None = None


@dataclass
class Scene:
    """A hand-over in RAM and registers, while mistakes are being made."""

    setting: Setting
    memory: GuestMemory
    registers: Any
    regions: dict[str, Range]
    more_cpus: list[Any] = field(default_factory=list)

    def image(self) -> BootImage:
        """As it is now."""
        protocol = PROTOCOLS[self.setting.protocol]
        regions = tuple(Region(name, place) for name, place in self.regions.items())
        cpus = (self.registers, *self.more_cpus)
        return BootImage(protocol.arch.name, protocol.name, self.memory.banks, cpus, regions)

    def change(self, **values: Any) -> None:
        """Other registers."""
        self.registers = replace(self.registers, **values)

    def read(self, name: str) -> bytes:
        return self.memory.read(self.regions[name].start, self.regions[name].size)

    def write(self, address: int, data: bytes) -> None:
        self.memory.write(address, data)

    def move(self, name: str, to: int) -> None:
        """The bytes of a region to another place; what points to it stays as it is."""
        data = self.read(name)
        self.write(self.regions[name].start, bytes(len(data)))
        self.write(to, data)
        self.regions[name] = Range(to, len(data))

    def zero_page(self, **values: int | bytes) -> None:
        """Fields of struct boot_params, or of the setup header in it, by their names."""
        self._zero_page_at(self.registers.rsi, values)

    def _zero_page_at(self, address: int, values: dict[str, int | bytes]) -> None:
        page = ZeroPage.from_bytes(self.memory.read(address, ZeroPage.SIZE))
        own = {name: value for name, value in values.items() if name in ZeroPage.OFFSETS}
        rest: dict[str, Any] = {name: v for name, v in values.items() if name not in own}
        header = replace(page.setup_header, **rest).to_bytes()
        changes: dict[str, Any] = {"hdr": header, **own}
        self.write(address, replace(page, **changes).to_bytes())

    @property
    def page(self) -> ZeroPage:
        return ZeroPage.from_bytes(self.memory.read(self.registers.rsi, ZeroPage.SIZE))

    def e820(self, *rows: tuple[int, int, int], count: int | None = None) -> None:
        """The memory map: address, size and type of each entry."""
        table = b"".join(struct.pack("<QQI", *row) for row in rows)
        entries = len(rows) if count is None else count
        self.zero_page(e820_entries=entries, e820_table=table.ljust(2560, b"\0"))

    def start_info(self, **values: int) -> None:
        """Fields of hvm_start_info."""
        address = self.registers.rbx
        changes: dict[str, Any] = dict(values)
        info = replace(self.info, **changes)
        self.write(address, info.to_bytes())

    @property
    def info(self) -> StartInfo:
        return StartInfo.from_bytes(self.memory.read(self.registers.rbx, StartInfo.SIZE))

    def module(self, **values: int) -> None:
        """Fields of the first module's entry."""
        at = self.info.modlist_paddr
        entry = ModlistEntry.from_bytes(self.memory.read(at, ModlistEntry.SIZE))
        changes: dict[str, Any] = dict(values)
        self.write(at, replace(entry, **changes).to_bytes())

    def tree(self, change: Callable[[DeviceTree], None]) -> None:
        """The device tree, changed and written where it was."""
        place = self.regions["dtb"]
        found = DeviceTree.parse(self.read("dtb"))
        change(found)
        data = found.to_bytes()
        self.write(place.start, bytes(place.size))
        self.write(place.start, data)
        self.regions["dtb"] = Range(place.start, len(data))

    def chosen(self, **values: bytes | None) -> None:
        """Properties of /chosen; None takes one away."""

        def change(found: DeviceTree) -> None:
            for name, value in values.items():
                key = b"linux," + name.replace("_", "-").encode()
                found.chosen.pop(key, None)
                if value is not None:
                    found.chosen[key] = value

        self.tree(change)


Change = Callable[[Scene], None]


def set_up(setting: Setting, memory: GuestMemory) -> Scene:
    """Writes a right hand-over."""
    by_tree = setting.protocol in IMAGES
    kernel = _image_kernel(setting, memory) if by_tree else _x86_kernel(setting, memory)
    firmware = FIRMWARES.get(setting.protocol, ())
    request = BootRequest(
        cmdline=CMDLINE,
        initrd=initramfs.archive([initramfs.file("init", b"#!/bin/true\n" * 8000, 0o755)]),
        dtb=_machine_tree(setting).to_bytes() if by_tree else None,
        reserved=firmware,
        firmware=firmware,
        cpus=setting.cpus,
    )
    handover = PROTOCOLS[setting.protocol].configure(memory, kernel, request)
    regions = {region.name: region.range for region in handover.regions}
    return Scene(setting, memory, handover.registers, regions)


def _x86_kernel(setting: Setting, memory: GuestMemory) -> KernelLoaderResult:
    load = setting.load or (MIB if setting.packed else 16 * MIB)
    entry = load + 0x200 if setting.packed and setting.protocol == "linux64" else load
    code = bytearray(_HALTS.ljust(0x1000, b"\x90"))
    code[0x200:0x203] = _HALTS
    if setting.packed:
        code[_PAYLOAD : _PAYLOAD + 3] = _GZIP
    memory.write(load, bytes(code))
    footprint = Range.between(load, max(load, 16 * MIB) + FOOTPRINT)
    return KernelLoaderResult(
        kernel_load=load,
        kernel_end=load + len(code),
        setup_header=_setup_header(load) if setting.packed else None,
        pvh_boot_cap=PvhBootCapability(PvhState.PRESENT, entry),
        footprint=footprint,
        entry_points={setting.protocol: entry},
    )


def _setup_header(load: int) -> SetupHeader:
    """As a kernel of today has it (protocol 2.15)."""
    return SetupHeader(
        setup_sects=4,
        syssize=0x100,
        boot_flag=0xAA55,
        header=0x53726448,
        version=0x20F,
        loadflags=1,
        code32_start=load & 0xFFFFFFFF,
        initrd_addr_max=0x7FFFFFFF,
        kernel_alignment=2 * MIB,
        relocatable_kernel=1,
        min_alignment=21,
        xloadflags=3,
        cmdline_size=2047,
        payload_offset=_PAYLOAD,
        payload_length=0x800,
        pref_address=16 * MIB,
        init_size=FOOTPRINT,
    )


def _image_kernel(setting: Setting, memory: GuestMemory) -> KernelLoaderResult:
    load = setting.banks[0][0] + 16 * MIB
    memory.write(load, IMAGES[setting.protocol])
    return KernelLoaderResult(
        kernel_load=load,
        kernel_end=load + 0x1000,
        setup_header=None,
        pvh_boot_cap=PvhBootCapability(PvhState.NOT_PRESENT),
        footprint=Range(load, FOOTPRINT),
        entry_points={setting.protocol: load},
    )


def _image(magic: bytes, text_offset: int, jump: int, *waits: int) -> bytes:
    """An Image whose first instruction goes over its header, to a wait for ever."""
    numbers = jump, 0, text_offset, FOOTPRINT, 0xA, 0, 0, 0
    header = struct.pack("<II QQQ QQQ 4sI", *numbers, magic, 0)
    return (header + struct.pack("<2I", *waits)).ljust(0x1000, b"\x55")


IMAGES: Final = {
    "arm64": _image(b"ARM\x64", 0, 0x14000010, 0xD503207F, 0x17FFFFFF),
    "riscv64": _image(b"RSC\x05", 2 * MIB, 0x0400006F, 0x10500073, 0xFFDFF06F),
}
# What a CPU's node has in its tree, and below it, what all of them have, and what else is there.
CPUS: Final = {
    "arm64": {b"enable-method": b"psci\0"},
    "riscv64": {b"compatible": b"riscv\0", b"riscv,isa": b"rv64imafdc\0"},
}
CPU_NODES: Final = {
    "riscv64": (
        Node(
            b"interrupt-controller",
            3,
            {b"compatible": b"riscv,cpu-intc\0", b"interrupt-controller": b""},
        ),
    )
}
ALL_CPUS: Final = {"riscv64": {b"timebase-frequency": struct.pack(">I", 10_000_000)}}
MACHINES: Final = {
    "arm64": (Node(b"psci", 1, {b"compatible": b"arm,psci-1.0\0", b"method": b"hvc\0"}),)
}
# What stays in RAM beside the kernel.
FIRMWARES: Final = {"riscv64": (riscv64.FIRMWARE,)}


def _machine_tree(setting: Setting) -> DeviceTree:
    """What a machine says of itself, as far as a kernel needs it to begin."""
    two = struct.pack(">I", 2)
    reg = b"".join(struct.pack(">2Q", *bank) for bank in setting.banks)
    bus = {b"#address-cells": struct.pack(">I", 1), b"#size-cells": bytes(4)}
    cpus = []
    for number in range(setting.cpus):
        own = {b"device_type": b"cpu\0", b"reg": struct.pack(">I", number)}
        cpus.append(Node(b"cpu@%d" % number, 2, {**own, **CPUS[setting.protocol]}))
        cpus += copy.deepcopy(CPU_NODES.get(setting.protocol, ()))
    return DeviceTree(
        [
            Node(b"", 0, {b"#address-cells": two, b"#size-cells": two}),
            Node(b"chosen"),
            Node(b"memory@%x" % setting.banks[0][0], 1, {b"device_type": b"memory\0", b"reg": reg}),
            Node(b"cpus", 1, {**bus, **ALL_CPUS.get(setting.protocol, {})}),
            *cpus,
            *(copy.deepcopy(node) for node in MACHINES.get(setting.protocol, ())),
        ]
    )


def x86(scene: Scene) -> X86Registers:
    found: X86Registers = scene.registers
    return found


def arm(scene: Scene) -> Arm64Registers:
    found: Arm64Registers = scene.registers
    return found
