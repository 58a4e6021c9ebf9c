"""A user's device tree that keeps RAM from the kernel: what the kernel then sees is right."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bootproof.harness.arch.table import ARCHES
from bootproof.harness.case import Case
from bootproof.harness.cases.kernels import default_kernels
from bootproof.harness.inputs import images
from bootproof.harness.prepare import Options, machine_for
from bootproof.harness.prove import prove
from bootproof.harness.qemu.devicetree import device_tree
from bootproof.harness.verdict import Verdict
from bootproof.loader.address import MIB
from bootproof.loader.device_tree import DeviceTree, Node

RunDirectory = Callable[[str], Path]
DISABLED = {b"status": b"disabled\0"}


def tree_of(case: Case, parent: dict[bytes, bytes]) -> bytes:
    """The machine's, in two ranges that share a page and end before the RAM does, with one part of
    RAM kept at its place, one wherever the kernel likes, and one that is disabled.
    """
    dtb = device_tree(machine_for(case, images.kernel_file(case.kernel_source), Options()))
    assert dtb is not None
    tree = DeviceTree.parse(dtb)
    start = ARCHES[case.arch].ram_base()
    base = start + 128 * MIB
    ranges = start, 144 * MIB + 0x1800, start + 144 * MIB + 0x1800, 80 * MIB
    memory = next(node for node in tree.nodes if node.is_memory)
    memory.properties[b"reg"] = struct.pack(">4Q", *ranges)
    kept = {b"reg": struct.pack(">2Q", base + 0x800, MIB), b"no-map": b""}
    pool = {b"size": struct.pack(">Q", 2 * MIB), b"no-map": b""}
    off = {b"reg": struct.pack(">2Q", base + 4 * MIB, MIB), b"no-map": b"", **DISABLED}
    two = struct.pack(">I", 2)
    cells = {b"#address-cells": two, b"#size-cells": two}
    tree.nodes += [
        Node(b"reserved-memory", 1, cells | parent),
        Node(b"kept", 2, kept),
        Node(b"pool", 2, pool),
        Node(b"pool-disabled", 2, {**pool, **DISABLED}),
        Node(b"off", 2, off),
    ]
    return tree.to_bytes()


@pytest.mark.beside
@pytest.mark.parametrize(
    ("arch", "ranges"), [("aarch64", True), ("aarch64", False), ("riscv64", True)]
)
def test_ram_that_a_tree_keeps_is_not_missed(
    arch: str, ranges: bool, tmp_path: Path, run_directory: RunDirectory
) -> None:
    """Without ranges, kernels look at nothing of it."""
    base = ARCHES[arch].ram_base() + 32 * MIB
    words = (arch, default_kernels(arch)[0], "image", "auto", base)
    case = Case(*words, profile="fast", memory=256 * MIB)
    dtb = tmp_path / "machine.dtb"
    dtb.write_bytes(tree_of(case, {b"ranges": b""} if ranges else {}))
    proven = prove(replace(case, dtb=str(dtb)), run_directory(f"tree-{arch}-{ranges}"))
    assert proven.verdict is Verdict.BOOTED, proven.reason
    assert ("unmapped: it was told to" in proven.reason) is ranges
