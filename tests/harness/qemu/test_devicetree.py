"""Device trees, as QEMU makes them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bootproof.harness.arch.table import ARCHES
from bootproof.harness.errors import UserError
from bootproof.harness.host.to_end import run_to_end
from bootproof.harness.qemu.argv import machine_words
from bootproof.harness.qemu.binary import find_qemu
from bootproof.harness.qemu.devicetree import device_tree
from bootproof.harness.qemu.machine import Machine
from bootproof.loader.address import GIB, MIB, Range
from bootproof.loader.device_tree import DeviceTree


def test_device_tree_is_the_machines_own() -> None:
    small, large = (
        device_tree(Machine.with_defaults("aarch64", memory=size * MIB)) for size in (512, 1024)
    )
    assert small is not None and large is not None
    assert small[:4] == b"\xd0\x0d\xfe\xed"
    assert small != large
    assert device_tree(Machine.with_defaults("x86_64", memory=512 * MIB)) is None


def test_device_tree_that_qemu_does_not_make() -> None:
    """It tells of what QEMU has: its RAM, CPUs, serial port and interrupt controller."""
    board = "xlnx-zcu102"
    machine = Machine.with_defaults("aarch64", memory=3 * GIB, board=board, cpus=3)
    tree = DeviceTree.parse(device_tree(machine) or b"")
    assert tree.memory == tuple(Range(*bank) for bank in machine.banks)
    assert [cpu.number for cpu in tree.cpus] == [0, 1, 2]
    there = subprocess.run(
        [*machine_words(machine), "-S", "-display", "none", "-monitor", "stdio"],
        input="info mtree -f\nquit\n",
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name, device in (("serial@", "uart"), ("interrupt-controller@", "gic_dist")):
        node = next(node for node in tree.nodes if node.name.startswith(name.encode()))
        address = int(node.name.decode().removeprefix(name), 16)
        assert re.search(rf"\b{address:016x}-\w+ \(prio 0, i/o\): {device}", there)


@pytest.mark.parametrize(
    ("arch", "board"),
    [(arch, board) for arch in ("aarch64", "riscv64") for board in ARCHES[arch].boards],
)
def test_a_board_has_its_interrupts_and_firmware_as_qemu_says(arch: str, board: str) -> None:
    machine = Machine.with_defaults(arch, memory=512 * MIB, board=board)
    tree = DeviceTree.parse(device_tree(machine) or b"")
    assert tree.interrupts == machine.traits.interrupts != ()
    calls = tree.psci.texts(b"method") if tree.psci else [b""]
    assert calls == [machine.traits.firmware_call.encode()]


def test_device_tree_is_made_once() -> None:
    machine = Machine.with_defaults("aarch64", memory=768 * MIB)
    first = device_tree(machine)
    began = time.monotonic()
    assert device_tree(replace(machine)) is first
    assert time.monotonic() - began < 0.02


def test_another_run_asks_the_same_program_no_more(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "qemu-system-aarch64"
    shutil.copy(find_qemu("aarch64").path, program)
    here = Machine.with_defaults("aarch64", memory=640 * MIB, binary=str(program))
    asked: list[list[str]] = []

    def noted(words: list[str], seconds: float) -> subprocess.CompletedProcess[bytes]:
        asked.append(words)
        return run_to_end(words, seconds)

    monkeypatch.setattr("bootproof.harness.qemu.devicetree.run_to_end", noted)

    def tree(machine: Machine) -> bytes | None:
        device_tree.cache_clear()
        return device_tree(machine)

    first = tree(here)
    assert tree(here) == first and len(asked) == 1
    tree(replace(here, memory=704 * MIB))
    assert len(asked) == 2
    os.utime(program, (0, 0))  # another program, for all that one can see
    tree(here)
    assert len(asked) == 3
    monkeypatch.setenv("BOOTPROOF_CACHE", "/proc/nowhere")
    assert (tree(here) or b"")[:4] == b"\xd0\x0d\xfe\xed" and len(asked) == 4


def test_a_script_may_start_another_program(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "qemu-system-aarch64"
    script.write_text(f'#!/bin/sh\nexec {find_qemu("aarch64").path} "$@"\n')
    script.chmod(0o755)
    assert device_tree(Machine.with_defaults("aarch64", memory=576 * MIB, binary=str(script)))
    assert not (tmp_path / "cache").exists()


def test_device_tree_of_a_machine_that_qemu_refuses() -> None:
    machine = Machine.with_defaults("aarch64", memory=512 * MIB, cpu="no-such-cpu")
    with pytest.raises(UserError) as refused:
        device_tree(machine)
    text = str(refused.value)
    assert text.startswith("qemu-system-aarch64 ") and "no device tree for virt: " in text
    assert "no-such-cpu" in text and "\n" not in text
