"""Exhibits of the boot protocol of arm64 Linux."""

from __future__ import annotations

import gzip
import struct
from typing import Final

from bootproof.loader.address import GIB, MIB, Range
from bootproof.loader.arch.aarch64 import Arm64Registers
from bootproof.loader.device_tree import DeviceTree, Node
from bootproof.scenarios.museum import Exhibit
from bootproof.scenarios.museum.scene import (
    BOARD,
    CMDLINE,
    FOOTPRINT,
    IMAGES,
    SMALL,
    Change,
    Scene,
    Setting,
    arm,
)

ARM64: Final = Setting("arm64", banks=BOARD)
HIGH: Final = Setting("arm64", banks=((GIB, 5 * GIB),))
FAR: Final = Setting("arm64", banks=((GIB, 40 * GIB),))
TWO: Final = Setting("arm64", banks=BOARD, cpus=2)
ZERO: Final = Setting("arm64", banks=SMALL)
KERNEL: Final = GIB + 16 * MIB
END: Final = GIB + 64 * MIB
SPIN: Final = GIB + 48 * MIB
OFF: Final = Arm64Registers(pc=0)


def image_at(address: int) -> Change:
    def change(scene: Scene) -> None:
        scene.write(KERNEL, bytes(0x1000))
        scene.write(address, IMAGES["arm64"])
        scene.regions["kernel"] = Range(address, min(FOOTPRINT, END - address))
        scene.change(pc=address)

    return change


def dtb_at(address: int) -> Change:
    def change(scene: Scene) -> None:
        scene.move("dtb", address)
        scene.registers = arm(scene).with_x(x0=address)

    return change


def told_initrd(start: int, end: int, *, size: int = 8) -> Change:
    """The range of the initrd in /chosen, each address in `size` bytes."""

    def change(scene: Scene) -> None:
        mask = (1 << 8 * size) - 1
        values = {
            name: (at & mask).to_bytes(size, "big")
            for name, at in (("initrd_start", start), ("initrd_end", end))
        }
        scene.chosen(**values)

    return change


def initrd_at(address: int, *, size: int = 8) -> Change:
    def change(scene: Scene) -> None:
        scene.move("initrd", address)
        told_initrd(address, scene.regions["initrd"].end, size=size)(scene)

    return change


def end_moved(by: int) -> Change:
    def change(scene: Scene) -> None:
        place = scene.regions["initrd"]
        told_initrd(place.start, place.end + by)(scene)

    return change


def reserved(address: int) -> Change:
    """A range that the kernel is not to map."""

    def change(tree: DeviceTree) -> None:
        two = struct.pack(">I", 2)
        cells = {b"#address-cells": two, b"#size-cells": two, b"ranges": b""}
        if tree.child(b"reserved-memory") is None:
            tree.nodes.append(Node(b"reserved-memory", 1, cells))
        reg = struct.pack(">2Q", address, MIB)
        tree.nodes.append(Node(b"firmware@0", 2, {b"reg": reg, b"no-map": b""}))

    return lambda scene: scene.tree(change)


def memory(*places: tuple[int, int]) -> Change:
    """The memory node."""

    def change(tree: DeviceTree) -> None:
        node = tree.child(b"memory@40000000")
        assert node is not None
        node.properties[b"reg"] = b"".join(struct.pack(">2Q", *place) for place in places)

    return lambda scene: scene.tree(change)


def bootargs(size: int) -> Change:
    """A command line of that many bytes, in a tree that has room behind it."""

    def change(scene: Scene) -> None:
        dtb_at(GIB + 40 * MIB)(scene)
        scene.tree(lambda tree: tree.chosen.update({b"bootargs": b"x" * size + b"\0"}))

    return change


def broken_tree(scene: Scene) -> None:
    """A tree whose nodes do not end."""
    scene.write(scene.regions["dtb"].end - 0x100, b"\xff" * 0x100)


def old_image_at(address: int) -> Change:
    """An Image with the header of a kernel before 3.17, which tells of no size."""

    def change(scene: Scene) -> None:
        old = scene.read("kernel")[:0x1000]
        scene.write(scene.regions["kernel"].start, bytes(0x1000))
        scene.write(address, old[:8] + bytes(16) + old[24:])
        scene.regions["kernel"] = Range(address, FOOTPRINT)
        scene.change(pc=address)

    return change


def header_field(at: int, by: int) -> Change:
    """A number of the device tree's header, where the header has it, is `by` more than it was."""

    def change(scene: Scene) -> None:
        place = scene.regions["dtb"].start + at
        value = int.from_bytes(scene.read("dtb")[at : at + 4], "big")
        scene.write(place, struct.pack(">I", value + by))

    return change


def tree_of(size: int) -> Change:
    """A tree that is padded to that many bytes, and has room."""

    def pad(tree: DeviceTree) -> None:
        tree.nodes[0].properties[b"pad"] = b""
        tree.nodes[0].properties[b"pad"] = bytes(size - len(tree.to_bytes()))

    def change(scene: Scene) -> None:
        dtb_at(GIB + 40 * MIB)(scene)
        scene.tree(pad)

    return change


def without(name: bytes, key: bytes) -> Change:
    """A property of a node is missing."""

    def change(tree: DeviceTree) -> None:
        next(node for node in tree.nodes if node.name == name).properties.pop(key)

    return lambda scene: scene.tree(change)


def put(name: bytes, key: bytes, value: bytes) -> Change:
    """A property of a node is another one."""

    def change(tree: DeviceTree) -> None:
        next(node for node in tree.nodes if node.name == name).properties[key] = value

    return lambda scene: scene.tree(change)


def spin_table(*, reserved: bool) -> Change:
    """The second CPU waits for its entry, in RAM that the tree reserves or does not."""

    def change(tree: DeviceTree) -> None:
        node = next(node for node in tree.nodes if node.name == b"cpu@1")
        node.properties[b"enable-method"] = b"spin-table\0"
        node.properties[b"cpu-release-addr"] = struct.pack(">Q", SPIN)
        tree.reservations = [(SPIN, 0x1000)] if reserved else []

    return lambda scene: scene.tree(change)


EXHIBITS: Final = (
    Exhibit(
        "image-at-64-kib",
        *(ARM64, "the kernel's buffer is aligned to 64 KiB only", "image-base"),
        image_at(KERNEL + 0x10000),
        "systemd PR #42542",
    ),
    Exhibit(
        "image-at-4-kib",
        *(ARM64, "the kernel's buffer is aligned to 4 KiB only", "image-base"),
        image_at(KERNEL + 0x1000),
        "systemd PR #42463",
    ),
    Exhibit(
        "old-image-without-text-offset",
        *(ARM64, "image_size is 0, and text_offset is not taken to be 0x80000", "image-base"),
        old_image_at(KERNEL),
        fixed=old_image_at(KERNEL + 0x80000),
    ),
    Exhibit(
        "entry-behind-the-header",
        *(ARM64, "the header of the Image is skipped, though it begins with code", "entry"),
        lambda scene: scene.change(pc=KERNEL + 64),
    ),
    Exhibit(
        "compressed-image-entered",
        *(ARM64, "an Image.gz was loaded as it is, and nothing unpacks it", "entry"),
        lambda s: s.write(KERNEL, gzip.compress(s.read("kernel")[:0x1000], mtime=0)),
    ),
    Exhibit(
        "uimage-entered",
        *(ARM64, "a uImage was loaded as it is, and its header is entered", "entry"),
        lambda s: s.write(KERNEL, bytes.fromhex("27051956") + bytes(60)),
    ),
    Exhibit(
        "image-beyond-ram",
        *(ARM64, "the file fits into a small guest, image_size does not", "kernel"),
        image_at(END - 2 * MIB),
        "libkrun #460",
        fixed=initrd_at(GIB + 40 * MIB),
    ),
    Exhibit(
        "exception-level-0",
        *(ARM64, "the CPU is at EL0", "exception-level"),
        lambda s: s.change(pstate=0x3C0),
    ),
    Exhibit(
        "dtb-in-bss",
        *(ARM64, "room for the file, not for image_size: the kernel clears the DTB", "overlap"),
        dtb_at(KERNEL + FOOTPRINT - 0x60000),
        "archlinuxarm/PKGBUILDs PR #2223, rhboot/grub2 PR #110",
    ),
    Exhibit(
        "initrd-in-bss",
        *(ARM64, "the initrd begins before the end of image_size", "overlap"),
        initrd_at(KERNEL + FOOTPRINT - 0x1000),
    ),
    Exhibit(
        "dtb-in-the-initrd",
        *(ARM64, "the device tree lies in the initrd", "overlap"),
        lambda s: dtb_at(s.regions["initrd"].start + 0x1000)(s),
    ),
    Exhibit(
        "initrd-told-short",
        *(ARM64, "the initrd is larger than its range in the device tree", "initrd"),
        end_moved(-0x2000),
        "au-ts/libvmm #384",
    ),
    Exhibit(
        "initrd-told-long",
        *(ARM64, "linux,initrd-end lies behind the end of RAM", "ramdisk"),
        end_moved(16 * MIB),
    ),
    Exhibit(
        "initrd-ends-before-it-begins",
        *(ARM64, "linux,initrd-end is below linux,initrd-start", "chosen-initrd"),
        end_moved(-4 * MIB),
    ),
    Exhibit(
        "initrd-addresses-of-3-bytes",
        *(ARM64, "linux,initrd-start has neither 4 nor 8 bytes", "chosen-initrd"),
        lambda s: s.chosen(initrd_start=bytes(3)),
    ),
    Exhibit(
        "initrd-end-missing",
        *(ARM64, "there is a linux,initrd-start, and no linux,initrd-end", "chosen-initrd"),
        lambda s: s.chosen(initrd_end=None),
    ),
    Exhibit(
        "initrd-in-32-bits",
        *(HIGH, "the initrd lies above 4 GiB, its addresses have 32 bits", "region"),
        lambda s: told_initrd(s.regions["initrd"].start, s.regions["initrd"].end, size=4)(s),
        "riscv-isa-sim PR #2301",
        fixed=initrd_at(5 * GIB),
    ),
    Exhibit(
        "initrd-too-far",
        *(FAR, "initrd and Image are more than 32 GiB apart", "initrd-window"),
        initrd_at(36 * GIB),
    ),
    Exhibit(
        "dtb-does-not-end",
        *(ARM64, "the device tree was overwritten at its end", "dtb"),
        broken_tree,
    ),
    Exhibit(
        "dtb-strings-size-left-as-it-was",
        *(ARM64, "a name was added to the strings block, and not to size_dt_strings", "dtb"),
        header_field(32, -4),
    ),
    Exhibit(
        "dtb-struct-size-missing",
        *(ARM64, "size_dt_struct is too small for the nodes, as where it was left 0", "dtb"),
        header_field(36, -16),
    ),
    Exhibit(
        "dtb-at-0",
        *(ZERO, "RAM begins at 0 and so does the device tree: to a kernel there is none", "dtb"),
        dtb_at(0),
    ),
    Exhibit(
        "dtb-over-2-mib",
        *(ARM64, "the device tree has more than 2 MiB", "dtb-size"),
        tree_of(2 * MIB + 0x1000),
        fixed=tree_of(2 * MIB - 0x1000),
    ),
    Exhibit(
        "memory-node-without-type",
        *(ARM64, "the memory node has no device_type: to kernels it is none", "memory-node"),
        without(b"memory@40000000", b"device_type"),
    ),
    Exhibit(
        "memory-node-disabled",
        *(ARM64, "the memory node is disabled", "memory-node"),
        put(b"memory@40000000", b"status", b"disabled\0"),
    ),
    Exhibit(
        "memory-node-missing",
        *(ARM64, "the device tree tells of no memory", "memory-node"),
        memory(),
    ),
    Exhibit(
        "memory-node-has-more",
        *(ARM64, "/memory says 1 GiB, the machine has 64 MiB", "map-no-ram"),
        memory((GIB, GIB)),
    ),
    Exhibit(
        "memory-node-has-less",
        *(ARM64, "/memory ends before the initrd does", "map-misses"),
        memory((GIB, 32 * MIB)),
    ),
    Exhibit(
        "kernel-not-to-be-mapped",
        *(ARM64, "a no-map range of /reserved-memory lies over the kernel", "reserved-memory"),
        reserved(KERNEL + MIB),
        fixed=reserved(GIB + 32 * MIB),
    ),
    Exhibit(
        "reserved-memory-without-ranges",
        *(ARM64, "/reserved-memory has no ranges: it is as if it were not there"),
        "reserved-memory-format",
        without(b"reserved-memory", b"ranges"),
        fixed=reserved(GIB + 32 * MIB),
        tolerated=True,
    ),
    Exhibit(
        "bootargs-too-long",
        *(ARM64, "the command line is longer than kernels keep", "cmdline-size"),
        bootargs(2500),
    ),
    Exhibit(
        "bootargs-without-nul",
        *(ARM64, "the command line has no NUL: its last character is lost", "bootargs"),
        put(b"chosen", b"bootargs", CMDLINE),
    ),
    Exhibit(
        "first-cpu-not-told",
        *(ARM64, "/cpus does not have the CPU that enters the kernel", "cpu-in-dtb"),
        put(b"cpu@0", b"reg", struct.pack(">I", 5)),
    ),
    Exhibit(
        "one-cpu-told-twice",
        *(TWO, "both CPUs of /cpus have the same number", "cpu-twice"),
        put(b"cpu@1", b"reg", bytes(4)),
    ),
    Exhibit(
        "root-without-cells",
        *(ARM64, "the root has no #address-cells: kernels take 1, the specification 2"),
        "root-cells",
        without(b"", b"#address-cells"),
    ),
    Exhibit(
        "cpu-without-enable-method",
        *(TWO, "nothing says how the second CPU is started", "enable-method"),
        without(b"cpu@1", b"enable-method"),
    ),
    Exhibit(
        "psci-without-its-node",
        *(TWO, "the second CPU is started by PSCI, and there is no psci node", "enable-method"),
        without(b"psci", b"compatible"),
    ),
    Exhibit(
        "psci-without-a-method",
        *(TWO, "the psci node does not say how the firmware is called", "enable-method"),
        without(b"psci", b"method"),
    ),
    Exhibit(
        "spin-table-without-an-address",
        *(TWO, "the second CPU waits for a spin-table, and its node does not say where"),
        "spin-table",
        without(b"cpu@1", b"cpu-release-addr"),
        fixed=spin_table(reserved=True),
    ),
    Exhibit(
        "spin-table-in-free-ram",
        *(TWO, "where the second CPU waits for its entry is RAM for the kernel", "spin-table"),
        spin_table(reserved=False),
        fixed=spin_table(reserved=True),
    ),
    Exhibit(
        "spin-table-not-zeroed",
        *(TWO, "there is an entry already where the second CPU waits for one", "spin-table"),
        lambda s: s.write(SPIN, b"\1"),
        fixed=spin_table(reserved=True),
    ),
    Exhibit(
        "one-cpu-of-two-told",
        *(ARM64, "two CPUs are handed over, /cpus has one", "cpus"),
        lambda s: s.more_cpus.append(OFF),
    ),
    Exhibit(
        "both-cpus-enter",
        *(TWO, "every CPU is started in the kernel, not the first alone", "secondary-cpu"),
        lambda s: s.more_cpus.append(s.more_cpus.pop().entered_at(s.registers.pc)),
        fixed=lambda s: s.more_cpus.append(OFF),
    ),
)
