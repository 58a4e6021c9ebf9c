"""Device trees, as QEMU makes them."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from bootproof.harness.errors import UserError
from bootproof.harness.qemu.devicetree import device_tree
from bootproof.harness.qemu.machine import Machine
from bootproof.loader.address import MIB


def test_device_tree_is_the_machines_own() -> None:
    small, large = (
        device_tree(Machine.with_defaults("aarch64", memory=size * MIB)) for size in (512, 1024)
    )
    assert small is not None and large is not None
    assert small[:4] == b"\xd0\x0d\xfe\xed"
    assert small != large
    assert device_tree(Machine.with_defaults("x86_64", memory=512 * MIB)) is None


def test_device_tree_is_made_once() -> None:
    machine = Machine.with_defaults("aarch64", memory=768 * MIB)
    first = device_tree(machine)
    began = time.monotonic()
    assert device_tree(replace(machine)) is first
    assert time.monotonic() - began < 0.02


def test_device_tree_of_a_machine_that_qemu_refuses() -> None:
    machine = Machine.with_defaults("aarch64", memory=512 * MIB, cpu="no-such-cpu")
    with pytest.raises(UserError) as refused:
        device_tree(machine)
    text = str(refused.value)
    assert text.startswith("qemu-system-aarch64 ") and "no device tree for virt: " in text
    assert "no-such-cpu" in text and "\n" not in text
