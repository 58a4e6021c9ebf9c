"""The arm64 protocol: what lies where, and a device tree that a real kernel would find."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from bootproof.harness.qemu import devicetree
from bootproof.harness.qemu.machine import Machine
from bootproof.loader import Pe, device_tree
from bootproof.loader.address import GIB, MIB, Range
from bootproof.loader.arch.aarch64 import Arm64Registers
from bootproof.loader.device_tree import DeviceTree, Node
from bootproof.loader.layout import LayoutError, Region
from bootproof.loader.memory import GuestMemory
from bootproof.loader.protocols import BootRequest, ProtocolError, arm64, by_tree
from bootproof.loader.protocols.protocol import Handover
from tests.builders import images

INITRD = bytes(range(256)) * 32
QEMUS_OWN = Region("QEMU's device tree", Range(GIB, MIB))
BANKS = [(GIB, 64 * MIB)]


@pytest.fixture(scope="module")
def dtb() -> bytes:
    """The device tree of a real machine."""
    tree = devicetree.device_tree(Machine.with_defaults("aarch64", memory=64 * MIB))
    assert tree is not None
    return tree


def handed_over(
    request: BootRequest,
    *,
    offset: int = GIB + 2 * MIB,
    banks: list[tuple[int, int]] | None = None,
    **image: Any,
) -> tuple[GuestMemory, Handover, dict[str, Range], Arm64Registers]:
    memory = GuestMemory(banks or BANKS)
    kernel = Pe().load(memory, images.image(**image), kernel_offset=offset)
    handover = arm64.configure(memory, kernel, request)
    registers = handover.registers
    assert isinstance(registers, Arm64Registers)
    return memory, handover, {r.name: r.range for r in handover.regions}, registers


def test_state_at_the_entry(dtb: bytes) -> None:
    request = BootRequest(b"quiet", INITRD, dtb, (QEMUS_OWN,), "the request")
    memory, _, regions, r = handed_over(request, text_offset=0x80000)
    assert r.pc == GIB + 2 * MIB + 0x80000
    assert r.x == (regions["dtb"].start, *(0,) * 30)
    assert (r.exception_level, r.pstate) == (1, 0x3C5)
    assert memory.read(regions["initrd"].start, len(INITRD)) == INITRD
    tree = DeviceTree.parse(memory.read(regions["dtb"].start, regions["dtb"].size)).chosen
    assert tree[b"bootargs"] == b"quiet\0"
    assert tree[b"bootproof,request"] == b"the request\0"
    start, end = tree[b"linux,initrd-start"], tree[b"linux,initrd-end"]
    assert (
        Range.between(int.from_bytes(start, "big"), int.from_bytes(end, "big"))
        == (regions["initrd"])
    )


def test_entered_as_a_hypervisor(dtb: bytes) -> None:
    _, _, regions, r = handed_over(BootRequest(b"x", None, dtb, (QEMUS_OWN,), hypervisor=True))
    assert (r.exception_level, r.pstate, r.x[0]) == (2, 0x3C9, regions["dtb"].start)


def test_kernel_that_does_not_tell_its_size_has_all_ram_behind_it(dtb: bytes) -> None:
    _, _, regions, _ = handed_over(BootRequest(b"x", INITRD, dtb, (QEMUS_OWN,)), image_size=0)
    assert regions["kernel"].end < regions["dtb"].start
    assert regions["dtb"].end > GIB + 62 * MIB


def test_no_device_tree_at_address_0(dtb: bytes) -> None:
    """To a kernel x0 = 0 is no device tree, where RAM begins at 0 as well."""
    _, _, regions, r = handed_over(BootRequest(dtb=dtb), offset=2 * MIB, banks=[(0, 64 * MIB)])
    assert r.x[0] == regions["dtb"].start == 0x1000
    _, _, regions, _ = handed_over(BootRequest(dtb=dtb), offset=0, banks=[(0, 64 * MIB)])
    assert regions["kernel"].start == 0


def test_where_the_pieces_lie(dtb: bytes) -> None:
    request = BootRequest(b"x", INITRD, dtb, (QEMUS_OWN,))
    _, _, regions, _ = handed_over(request, image_size=20 * MIB)
    assert regions["kernel"] == Range(GIB + 2 * MIB, 20 * MIB)
    assert regions["initrd"].end == GIB + 64 * MIB
    tree = regions["dtb"]
    assert tree.start % 8 == 0
    assert tree.start // (2 * MIB) == (tree.end - 1) // (2 * MIB)
    pieces = [*regions.values(), QEMUS_OWN.range]
    assert not any(a.overlaps(b) for a in pieces for b in pieces if a is not b)


def test_nothing_lies_in_ram_that_the_tree_does_not_leave_to_the_kernel() -> None:
    """It ends at 56 MiB, of which 1 MiB is not to be mapped, and 2 MiB are reserved."""
    cells = {name: struct.pack(">I", 2) for name in (b"#address-cells", b"#size-cells")}
    typed = {b"device_type": b"memory\0"}
    low = struct.pack(">2Q", GIB, 56 * MIB)
    kept = struct.pack(">2Q", GIB + 55 * MIB, MIB)
    nodes = [
        Node(b"", 0, cells),
        Node(b"memory@0", 1, {**typed, b"reg": low}),
        Node(b"reserved-memory", 1, {**cells, b"ranges": b""}),
        Node(b"kept@0", 2, {b"reg": kept, b"no-map": b""}),
    ]
    tree = DeviceTree(nodes, [(GIB + 53 * MIB, 2 * MIB)]).to_bytes()
    reserved = by_tree.withheld(tree)
    _, _, regions, _ = handed_over(BootRequest(b"x", INITRD, tree, reserved))
    assert regions["initrd"].end == GIB + 53 * MIB
    assert by_tree.withheld(DeviceTree([Node(b"", 0)]).to_bytes()) == ()


def test_kernel_may_lie_where_qemu_keeps_its_tree(dtb: bytes) -> None:
    """The start of RAM: the kernel is put there by the stub, nothing else may be."""
    request = BootRequest(b"x", INITRD, dtb, (QEMUS_OWN,))
    _, _, regions, r = handed_over(request, offset=GIB, image_size=0x8000)
    assert r.pc == GIB
    assert not any(
        area.overlaps(QEMUS_OWN.range) for name, area in regions.items() if name != "kernel"
    )


def test_device_tree_crosses_no_2_mib_boundary(dtb: bytes) -> None:
    """booting.rst: it is mapped with blocks of that size."""
    boundary = GIB + 4 * MIB
    reserved = (Region("all before", Range.between(GIB, boundary - 0x100)),)
    _, _, regions, _ = handed_over(BootRequest(b"x", None, dtb, reserved), offset=GIB + 32 * MIB)
    assert regions["dtb"].start == boundary


@pytest.mark.parametrize(
    ("kernel", "window"),
    [
        (Range(GIB + 2 * MIB, MIB), Range(GIB, 32 * GIB)),
        (Range(GIB - MIB, 4 * MIB), Range(0, 32 * GIB)),
        (Range(40 * GIB + 5 * MIB, MIB), Range(40 * GIB, 32 * GIB)),
    ],
)
def test_initrd_window_is_the_kernels_32_gib(kernel: Range, window: Range) -> None:
    """booting.rst: within a 1 GiB-aligned window of up to 32 GiB that covers the kernel as well."""
    assert arm64.initrd_window(kernel) == window


def test_initrd_stays_within_reach_of_a_kernel_at_the_end(dtb: bytes) -> None:
    _, _, regions, _ = handed_over(
        BootRequest(b"x", INITRD, dtb), offset=GIB + 50 * GIB, banks=[(GIB, 51 * GIB)]
    )
    assert regions["initrd"].start >= 50 * GIB


def test_without_an_initrd_there_is_none(dtb: bytes) -> None:
    memory, _, regions, _ = handed_over(BootRequest(b"x", None, dtb))
    tree = DeviceTree.parse(memory.read(regions["dtb"].start, regions["dtb"].size)).chosen
    assert not {*device_tree.INITRD, device_tree.LABEL} & set(tree)


def test_device_tree_is_needed() -> None:
    with pytest.raises(ProtocolError, match="arm64 kernels need a device tree"):
        handed_over(BootRequest(b"x"))
    with GuestMemory(BANKS) as memory:
        kernel = Pe().load(memory, images.image(), kernel_offset=GIB + 2 * MIB)
        with pytest.raises(ProtocolError, match="arm64 kernels need a device tree"):
            arm64.plan([Range(*BANKS[0])], kernel, BootRequest(b"x"))


def test_unsafe_starts_without_a_device_tree() -> None:
    _, _, regions, r = handed_over(BootRequest(b"x", unsafe=True))
    assert (r.x[0], "dtb" in regions) == (0, False)


def test_command_line_as_long_as_the_kernel_takes(dtb: bytes) -> None:
    memory, _, regions, _ = handed_over(BootRequest(b"x" * 2047, None, dtb))
    tree = DeviceTree.parse(memory.read(regions["dtb"].start, regions["dtb"].size)).chosen
    assert tree[b"bootargs"] == b"x" * 2047 + b"\0"
    with pytest.raises(ProtocolError, match="has 2048 bytes but the kernel takes at most 2047"):
        handed_over(BootRequest(b"x" * 2048, None, dtb))
    with pytest.raises(ProtocolError, match="has a NUL at byte 3"):
        handed_over(BootRequest(b"foo\0bar", None, dtb))


def test_initrd_too_large(dtb: bytes) -> None:
    with pytest.raises(LayoutError, match=r"^no room for initrd: 63 MiB aligned to 0x1000 in "):
        handed_over(BootRequest(b"x", bytes(63 * MIB), dtb))


def test_kernel_that_needs_more_than_there_is(dtb: bytes) -> None:
    with pytest.raises(LayoutError, match=r"^kernel needs guest RAM 0x40200000-0x441fffff but"):
        handed_over(BootRequest(b"x", None, dtb), image_size=64 * MIB)


def test_kernel_of_another_architecture(dtb: bytes) -> None:
    with GuestMemory(BANKS) as memory:
        kernel = Pe().load(memory, images.image(images.RISCV64), kernel_offset=GIB + 2 * MIB)
        with pytest.raises(ProtocolError, match="cannot be entered through arm64; it offers: ris"):
            arm64.configure(memory, kernel, BootRequest(b"x", None, dtb))
