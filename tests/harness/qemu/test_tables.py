"""A user's device tree that is right on a machine which QEMU's board is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bootproof.harness import cli, exitcode
from tests.builders import images, trees
from tests.builders.trees import quad

OWN = "leave --dtb out, which gives the guest the machine's own"


def cpus(told: str, has: str) -> str:
    return (
        f"the guest is told of CPU {told} by its tables, but QEMU's {has}, and no other can be"
        f" started: number them like that, or {OWN}"
    )


def interrupts(told: str, board: str, has: str) -> str:
    return (
        f"the device tree has the interrupt controller at {told}, and {board} has it at {has}: no"
        " kernel can boot on that; "
    )


def tree(numbers: list[int], controller: tuple[int, int] = (0x800_0000, 0x801_0000)) -> bytes:
    """One for `virt`, whose CPUs have these numbers."""
    places = [quad(place, 0x1_0000) for place in controller]
    nodes: dict[str, dict[str, Any]] = {
        "/": {**trees.CELLS, "interrupt-parent": 1},
        "/cpus": {"#address-cells": 1, "#size-cells": 0},
        **{f"/cpus/cpu@{number:x}": {**trees.ARM, "reg": number} for number in numbers},
        "/memory@40000000": {"device_type": "memory", "reg": quad(1 << 30, 1 << 29)},
        "/chosen": {},
        "/intc": {"phandle": 1, "reg": b"".join(places)},
        "/psci": trees.PSCI,
    }
    return trees.device_tree(nodes).to_bytes()


VIRT = (0x800_0000, 0x801_0000)


@pytest.mark.parametrize(
    ("numbers", "controller", "words", "says"),
    [
        ([0, 0x100], VIRT, ["--smp", "2"], cpus("0x100", "2 CPUs are 0 to 1")),
        ([0x100], VIRT, [], cpus("0x100", "CPU is 0")),
        (
            [0],
            (0x800_0000, 0x80A_0000),
            [],
            interrupts("0x8000000, 0x80a0000", "virt", "0x8000000, 0x8010000")
            + "--machine virt,gic-version=3 has it there",
        ),
        (
            [0],
            (0x3FFF_0000, 0x3FFD_0000),
            ["--machine", "virt,gic-version=3"],
            interrupts("0x3fff0000, 0x3ffd0000", "virt,gic-version=3", "0x8000000, 0x80a0000")
            + OWN,
        ),
    ],
)
def test_a_tree_of_another_machine_is_refused_and_not_called_the_guests_failure(
    numbers: list[int],
    controller: tuple[int, int],
    words: list[str],
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kernel, dtb = tmp_path / "Image", tmp_path / "a.dtb"
    kernel.write_bytes(images.image() + images.LINUX)
    dtb.write_bytes(tree(numbers, controller))
    given = [str(kernel), "--dtb", str(dtb), *words, "--out", str(tmp_path / "out")]
    assert cli.main(["boot", *given]) == exitcode.USAGE
    assert capsys.readouterr().err == f"bootproof: {dtb}: {says}\n"


def test_an_image_for_another_vmm_may_have_a_tree_of_its_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which QEMU's does not become by that."""
    kernel, dtb = tmp_path / "Image", tmp_path / "a.dtb"
    kernel.write_bytes(images.image() + images.LINUX)
    dtb.write_bytes(tree([0x100]))
    words = ["--no-proof", "--dtb", str(dtb), "--out", str(tmp_path / "out")]
    assert cli.main(["image", str(kernel), *words]) == 0
    capsys.readouterr()
    ran = ["run", str(tmp_path / "out"), "--until", "x", "--out", str(tmp_path / "run")]
    assert cli.main(ran) == exitcode.USAGE
    says = cpus("0x100", "CPU is 0").replace(OWN, "take --only-handover")
    assert capsys.readouterr().err == f"bootproof: {tmp_path / 'out' / 'boot.json'}: {says}\n"
