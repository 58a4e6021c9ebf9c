"""Device trees as several VMMs write them, from their sources: paths, and properties of each.

A number is a 32-bit cell, several are as many, a text ends with its NUL, and `quad` has 64 bits.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final

from bootproof.loader.device_tree import DeviceTree, Node

Tree = Mapping[str, Mapping[str, Any]]


def quad(*values: int) -> bytes:
    return struct.pack(f">{len(values)}Q", *values)


def value(of: Any) -> bytes:
    if isinstance(of, str):
        return of.encode() + b"\0"
    if isinstance(of, int):
        return struct.pack(">I", of)
    if isinstance(of, tuple):
        return b"".join(map(value, of))
    return bytes(of)


def device_tree(tree: Tree, reservations: list[tuple[int, int]] | None = None) -> DeviceTree:
    """The tree with these nodes, whichever order they are in."""
    nodes = []
    for path in _in_order(tree, "/"):
        name = path.rpartition("/")[2].encode()
        depth = path.count("/") if path != "/" else 0
        values = {key.encode(): value(of) for key, of in tree[path].items()}
        nodes.append(Node(name, depth, values))
    return DeviceTree(nodes, reservations or [])


def _in_order(tree: Tree, path: str) -> Iterator[str]:
    yield path
    for child in tree:
        if child != "/" and (child.rpartition("/")[0] or "/") == path:
            yield from _in_order(tree, child)


def changed(tree: Tree, changes: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Any]:
    """A tree with nodes changed, added or, by None, left out; None also takes a property away."""
    new = {path: dict(properties) for path, properties in tree.items()}
    for path, properties in changes.items():
        if properties is None:
            new = {p: v for p, v in new.items() if p != path and not p.startswith(path + "/")}
            continue
        merged = {**new.get(path, {}), **properties}
        new[path] = {key: of for key, of in merged.items() if of is not None}
    return new


EMPTY: Final = b""
CELLS: Final = {"#address-cells": 2, "#size-cells": 2}
PSCI: Final = {"compatible": ("arm,psci-1.0", "arm,psci-0.2"), "method": "hvc"}
ARM: Final = {"device_type": "cpu", "compatible": "arm,arm-v8", "enable-method": "psci"}


def arm64(start: int, size: int) -> dict[str, Tree]:
    """Trees of arm64 VMMs for two CPUs and one range of RAM."""
    reg = quad(start, size)
    root = {**CELLS, "compatible": "linux,dummy-virt", "interrupt-parent": 1}
    bus = {"#address-cells": 1, "#size-cells": 0}
    ram = {"device_type": "memory", "reg": reg}
    return {
        "firecracker": {
            "/": root,
            "/cpus": {"#address-cells": 2, "#size-cells": 0},
            "/cpus/cpu@0": {**ARM, "reg": quad(0), "next-level-cache": 3},
            "/cpus/cpu@1": {**ARM, "reg": quad(1), "next-level-cache": 3},
            "/memory@ram": ram,
            "/chosen": {"bootargs": "console=ttyS0", "rng-seed": bytes(range(64))},
            "/intc": {"compatible": "arm,gic-v3", "phandle": 1},
            "/psci": {"compatible": "arm,psci-0.2", "method": "hvc"},
            "/virtio_mmio@40003000": {"compatible": "virtio,mmio", "reg": quad(0x40003000, 0x1000)},
        },
        "cloud-hypervisor": {
            "/": {**root, "dma-coherent": EMPTY},
            "/cpus": bus,
            "/cpus/cpu@0": {**ARM, "reg": 0, "numa-node-id": 0, "phandle": 0x100},
            "/cpus/cpu@1": {**ARM, "reg": 1, "numa-node-id": 1, "phandle": 0x101},
            "/cpus/cpu-map": {},
            "/cpus/cpu-map/cluster0": {},
            "/cpus/cpu-map/cluster0/core0": {"cpu": 0x100},
            "/cpus/cpu-map/cluster0/core1": {"cpu": 0x101},
            f"/memory@{start + size // 2:x}": {
                "device_type": "memory",
                "numa-node-id": 1,
                "reg": quad(start + size // 2, size // 2),
            },
            f"/memory@{start:x}": {
                "device_type": "memory",
                "numa-node-id": 0,
                "reg": quad(start, size // 4, start + size // 4, size // 4),
            },
            "/chosen": {"bootargs": "", "stdout-path": "/pl011@9000000"},
            "/distance-map": {"compatible": "numa-distance-map-v1", "distance-matrix": (0, 1, 20)},
            "/psci": {"compatible": "arm,psci-0.2", "method": "hvc"},
        },
        "crosvm": {
            "/": root,
            "/aliases": {"serial0": "/U6_16550A@3f8"},
            "/memory": ram,
            "/cpus": bus,
            "/cpus/cpu@0": {**ARM, "compatible": "arm,armv8", "reg": 0, "capacity-dmips-mhz": 1024},
            "/cpus/cpu@1": {**ARM, "compatible": "arm,armv8", "reg": 1, "capacity-dmips-mhz": 512},
            "/chosen": {"linux,pci-probe-only": 1, "kaslr-seed": quad(7), "rng-seed": bytes(256)},
            "/reserved-memory": {**CELLS, "ranges": EMPTY},
            "/reserved-memory/restricted_dma_reserved": {
                "phandle": 2,
                "compatible": "restricted-dma-pool",
                "size": quad(2 << 20),
                "alignment": quad(4096),
            },
            "/psci": {**PSCI, "migrate": 0xC4000005},
            "/pci": {
                "device_type": "pci",
                "compatible": "pci-host-cam-generic",
                "#address-cells": 3,
                "#size-cells": 2,
                "reg": quad(0x10000, 0x1000000),
                "ranges": (0x3000000, quad(0x2000000, 0x2000000, 0x2000000)),
            },
        },
        "kvmtool": {
            "/": root,
            "/chosen": {
                "bootargs": "console=hvc0",
                "kaslr-seed": quad(1),
                "stdout-path": "serial0",
            },
            f"/memory@{start:x}": ram,
            "/cpus": bus,
            "/cpus/cpu@0": {**ARM, "reg": 0},
            "/cpus/cpu@1": {**ARM, "reg": 1},
            "/psci": {
                "compatible": ("arm,psci-0.2", "arm,psci"),
                "method": "hvc",
                "cpu_suspend": 0xC4000001,
                "cpu_off": 0x84000002,
                "cpu_on": 0xC4000003,
            },
        },
        "qemu": {
            "/": {**root, "model": "linux,dummy-virt"},
            "/psci": {"compatible": ("arm,psci-1.0", "arm,psci-0.2", "arm,psci"), "method": "hvc"},
            f"/memory@{start:x}": ram,
            "/platform-bus@c000000": {
                "compatible": ("qemu,platform", "simple-bus"),
                "#size-cells": 1,
                "#address-cells": 1,
                "ranges": (0, quad(0xC000000), 0x2000000),
            },
            "/secram@e000000": {
                "device_type": "memory",
                "reg": quad(0xE000000, 0x1000000),
                "status": "disabled",
                "secure-status": "okay",
            },
            "/cpus": bus,
            "/cpus/cpu-map": {},
            "/cpus/cpu@0": {**ARM, "compatible": "arm,cortex-a57", "reg": 0},
            "/cpus/cpu@1": {**ARM, "compatible": "arm,cortex-a57", "reg": 1},
            "/chosen": {"stdout-path": "/pl011@9000000", "rng-seed": bytes(32)},
        },
    }


HART: Final = {"device_type": "cpu", "compatible": "riscv", "riscv,isa": "rv64imafdcv"}


def riscv64(start: int, size: int) -> dict[str, Tree]:
    """Trees of riscv64 machines with two harts and one range of RAM; a firmware has 2 MiB of it."""
    bus = {"#address-cells": 1, "#size-cells": 0, "timebase-frequency": 10000000}
    ram = {"device_type": "memory", "reg": quad(start, size)}
    intc = {"#interrupt-cells": 1, "interrupt-controller": EMPTY, "compatible": "riscv,cpu-intc"}
    kept = {"reg": quad(start, 2 << 20), "no-map": EMPTY}
    return {
        "qemu": {
            "/": {**CELLS, "compatible": "riscv-virtio", "model": "riscv-virtio,qemu"},
            "/reserved-memory": {**CELLS, "ranges": EMPTY},
            f"/reserved-memory/mmode_resv0@{start:x}": kept,
            f"/memory@{start:x}": ram,
            "/cpus": bus,
            "/cpus/cpu@0": {**HART, "reg": 0, "status": "okay", "mmu-type": "riscv,sv57"},
            "/cpus/cpu@0/interrupt-controller": intc,
            "/cpus/cpu@1": {**HART, "reg": 1, "status": "okay", "mmu-type": "riscv,sv57"},
            "/cpus/cpu@1/interrupt-controller": intc,
            "/cpus/cpu-map": {},
            "/cpus/cpu-map/cluster0": {},
            "/cpus/cpu-map/cluster0/core0": {"cpu": 1},
            "/chosen": {"bootargs": "console=ttyS0", "stdout-path": "/soc/serial@10000000"},
        },
        "kvmtool": {
            "/": {**CELLS, "compatible": "linux,dummy-virt", "interrupt-parent": 1},
            "/chosen": {"bootargs": "console=ttyS0", "rng-seed": quad(1)},
            f"/memory@{start:x}": ram,
            "/reserved-memory": {**CELLS, "ranges": EMPTY},
            f"/reserved-memory/firmware@{start:x}": kept,
            "/cpus": bus,
            "/cpus/cpu@0": {**HART, "reg": 0, "riscv,cbom-block-size": 64},
            "/cpus/cpu@0/interrupt-controller": intc,
            "/cpus/cpu@1": {**HART, "reg": 1, "riscv,cbom-block-size": 64},
            "/cpus/cpu@1/interrupt-controller": intc,
        },
        "a board": {
            "/": {**CELLS, "compatible": "sifive,hifive-unleashed-a00"},
            "/aliases": {"serial0": "/soc/serial@10010000"},
            "/chosen": {"stdout-path": "serial0:115200n8"},
            "/cpus": bus,
            "/cpus/cpu@0": {**HART, "reg": 5, "status": "disabled"},
            "/cpus/cpu@1": {**HART, "reg": 0, "riscv,isa": "rv64imafdc"},
            "/cpus/cpu@1/interrupt-controller": intc,
            "/cpus/cpu@2": {
                "device_type": "cpu",
                "compatible": ("sifive,u54-mc", "riscv"),
                "reg": 1,
                "riscv,isa-base": "rv64i",
                "riscv,isa-extensions": ("i", "m", "a"),
            },
            f"/memory@{start:x}": ram,
            "/reserved-memory": {**CELLS, "ranges": EMPTY},
            "/reserved-memory/mmode_resv1": kept,
        },
    }
