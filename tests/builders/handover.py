"""A right hand-over of each protocol, as a boot image's RAM and registers, with a few bytes that
stand for a kernel."""

from __future__ import annotations

from typing import Final

from bootproof.loader.address import GIB, MIB, Range
from bootproof.loader.arch.riscv64 import FIRMWARE
from bootproof.loader.device_tree import DeviceTree, Node
from bootproof.loader.initramfs import archive, file
from bootproof.loader.memory import GuestMemory
from bootproof.loader.protocols import BootRequest
from bootproof.loader.protocols.protocol import Handover
from bootproof.loader.protocols.table import PROTOCOLS
from bootproof.loader.result import KernelLoaderResult, PvhBootCapability, PvhState

SIZE: Final = 24 * MIB
BASES: Final = {"x86_64": 0, "aarch64": GIB, "riscv64": 2 * GIB}


def base(protocol: str) -> int:
    """Where RAM begins."""
    return BASES[PROTOCOLS[protocol].arch.name]


def entry(protocol: str) -> int:
    return base(protocol) + 16 * MIB


def prepare(protocol: str, memory: GuestMemory, cmdline: bytes = b"console=ttyS0") -> Handover:
    """Writes all that a kernel is given, and the kernel."""
    start = entry(protocol)
    kernel = KernelLoaderResult(
        kernel_load=start,
        kernel_end=start + 0x1000,
        setup_header=None,
        pvh_boot_cap=PvhBootCapability(PvhState.PRESENT, start),
        footprint=Range(start, 4 * MIB),
        entry_points={protocol: start},
    )
    memory.write(start, b"\xf4\xeb\xfd".ljust(0x1000, b"\x55"))
    cells = {b"#address-cells": bytes([0, 0, 0, 2]), b"#size-cells": bytes([0, 0, 0, 2])}
    reg = b"".join(number.to_bytes(8, "big") for number in (base(protocol), SIZE))
    one = bytes([0, 0, 0, 1])
    intc = {b"compatible": b"riscv,cpu-intc\0", b"interrupt-controller": b""}
    hart = {b"compatible": b"riscv\0", b"riscv,isa": b"rv64imafdc\0"}
    tree = DeviceTree(
        [
            Node(b"", 0, cells),
            Node(b"memory", 1, {b"device_type": b"memory\0", b"reg": reg}),
            Node(b"cpus", 1, {b"#address-cells": one, b"timebase-frequency": one}),
            Node(b"cpu@0", 2, {b"device_type": b"cpu\0", b"reg": bytes(4), **hart}),
            Node(b"interrupt-controller", 3, intc),
            Node(b"chosen", 1, {}),
        ]
    )
    reserved = (FIRMWARE,) if base(protocol) == FIRMWARE.range.start else ()
    initrd = archive([file("x", b"y")])
    request = BootRequest(cmdline, initrd, tree.to_bytes(), reserved)
    return PROTOCOLS[protocol].configure(memory, kernel, request)
