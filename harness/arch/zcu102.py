"""The board `xlnx-zcu102` of QEMU, whose RAM begins at 0, and the device tree of it that we write.

QEMU has none for this board, and the real one's tells kernels to get their clocks from a firmware
that is not there. So this tree has what a kernel needs to run here and nothing else: CPUs, PSCI,
timer, interrupt controller, the first serial port with a clock of its own, and RAM.

Sources: hw/arm/xlnx-zynqmp.c and xlnx-zcu102.c (addresses, interrupts, limits), as `info mtree`
shows them; in the kernel Documentation/devicetree/bindings/: arm/cpus.yaml, arm/psci.yaml,
timer/arm,arch_timer.yaml, interrupt-controller/arm,gic.yaml, serial/cdns,uart.yaml.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from bootproof.harness.arch.arch import Board, SerialPort, Version
from bootproof.loader.address import GIB, Banks
from bootproof.loader.device_tree import RNG_SEED, DeviceTree, Node
from bootproof.loader.kconfig import Need

_LOW_RAM: Final = 2 * GIB
_HIGH_RAM: Final = 0x8_0000_0000, 32 * GIB
_MOST_CPUS: Final = 4  # the others that QEMU has are Cortex-R5s, which run no Linux

_UART, _UART_INTERRUPT, _UART_CLOCK = 0xFF00_0000, 21, 100_000_000
_DISTRIBUTOR, _CPU_INTERFACE = 0xF901_0000, 0xF902_0000
# Secure and non-secure physical, virtual, and the hypervisor's.
_TIMER_INTERRUPTS: Final = (13, 14, 11, 10)

_SPI, _PPI = 0, 1
_LEVEL_HIGH: Final = 4
_ALL_CPUS_LEVEL_LOW: Final = 0xF08
_GIC, _CLOCK = 1, 2  # phandles


def _cells(*words: int) -> bytes:
    return struct.pack(f">{len(words)}I", *words)


def _texts(*texts: str) -> bytes:
    return b"".join(text.encode() + b"\0" for text in texts)


_CALL: Final = "smc"
# As hw/arm/boot.c writes it.
_PSCI: Final = {
    b"migrate": _cells(0xC400_0005),
    b"cpu_on": _cells(0xC400_0003),
    b"cpu_off": _cells(0x8400_0002),
    b"cpu_suspend": _cells(0xC400_0001),
    b"method": _texts(_CALL),
    b"compatible": _texts("arm,psci-1.0", "arm,psci-0.2", "arm,psci"),
}


def _banks(memory: int) -> Banks:
    if memory <= _LOW_RAM:
        return ((0, memory),)
    return ((0, _LOW_RAM), (_HIGH_RAM[0], memory - _LOW_RAM))


def _tree(banks: Banks, cpus: int) -> bytes:
    return DeviceTree([*_core(cpus), *_devices(), *map(_memory, banks)]).to_bytes()


def _core(cpus: int) -> Iterator[Node]:
    cells = {b"#address-cells": _cells(2), b"#size-cells": _cells(2)}
    compatible = _texts("xlnx,zynqmp-zcu102", "xlnx,zynqmp")
    model = _texts("ZynqMP ZCU102")
    root = {b"compatible": compatible, b"model": model, b"interrupt-parent": _cells(_GIC)}
    yield Node(b"", 0, cells | root)
    chosen = {b"stdout-path": _texts(f"/serial@{_UART:x}"), b"rng-seed": RNG_SEED}
    yield Node(b"chosen", 1, chosen)
    yield Node(b"psci", 1, _PSCI)
    yield Node(b"cpus", 1, {b"#address-cells": _cells(1), b"#size-cells": _cells(0)})
    for number in range(cpus):
        cpu = {b"device_type": _texts("cpu"), b"compatible": _texts("arm,cortex-a53")}
        how = {b"reg": _cells(number), b"enable-method": _texts("psci")}
        yield Node(b"cpu@%x" % number, 2, cpu | how)


def _devices() -> Iterator[Node]:
    interrupts = [(_PPI, number, _ALL_CPUS_LEVEL_LOW) for number in _TIMER_INTERRUPTS]
    timer = {b"interrupts": b"".join(_cells(*interrupt) for interrupt in interrupts)}
    yield Node(b"timer", 1, {b"compatible": _texts("arm,armv8-timer")} | timer)
    gic = {b"interrupt-controller": b"", b"#interrupt-cells": _cells(3), b"phandle": _cells(_GIC)}
    places = _cells(0, _DISTRIBUTOR, 0, 0x1_0000, 0, _CPU_INTERFACE, 0, 0x2_0000)
    name = b"interrupt-controller@%x" % _DISTRIBUTOR
    yield Node(name, 1, {b"compatible": _texts("arm,gic-400"), b"reg": places} | gic)
    clock = {b"clock-frequency": _cells(_UART_CLOCK), b"phandle": _cells(_CLOCK)}
    fixed = {b"compatible": _texts("fixed-clock"), b"#clock-cells": _cells(0)}
    yield Node(b"clock", 1, fixed | clock)
    uart = {
        b"compatible": _texts("xlnx,zynqmp-uart", "cdns,uart-r1p12"),
        b"reg": _cells(0, _UART, 0, 0x1000),
        b"interrupts": _cells(_SPI, _UART_INTERRUPT, _LEVEL_HIGH),
        b"clocks": _cells(_CLOCK, _CLOCK),
        b"clock-names": _texts("uart_clk", "pclk"),
    }
    yield Node(b"serial@%x" % _UART, 1, uart)


def _memory(bank: tuple[int, int]) -> Node:
    base, size = bank
    reg = struct.pack(">2Q", base, size)
    return Node(b"memory@%x" % base, 1, {b"device_type": _texts("memory"), b"reg": reg})


def _no_sound(version: Version) -> tuple[str, ...]:
    """For its DisplayPort, which takes any audiodev before 8.2, and none that it is not told of
    since then.
    """
    machine = ("-machine", "audiodev=none") if version >= (8, 2, 0) else ()
    return ("-audiodev", "none,id=none", *machine)


ZCU102: Final = Board(
    _banks,
    SerialPort(
        "ttyPS0",
        None,
        Need(
            "CONFIG_SERIAL_XILINX_PS_UART_CONSOLE",
            b"xuartps",
            "the driver of the serial port (Cadence UART)",
        ),
    ),
    cpu_limit=_MOST_CPUS,
    memory_limit=_LOW_RAM + _HIGH_RAM[1],
    cpu="cortex-a53",
    tree=_tree,
    interrupts=(_DISTRIBUTOR, _CPU_INTERFACE),
    firmware_call=_CALL,
    words=_no_sound,
)
