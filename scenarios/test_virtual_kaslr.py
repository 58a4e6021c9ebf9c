"""Kernels at another virtual address, as x86_64.toml claims of them: what is wrong fails."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bootproof.harness.case import Case
from bootproof.harness.cases.kernels import default_kernels
from bootproof.harness.prove import Proven, prove
from bootproof.harness.verdict import Verdict
from bootproof.loader.address import MIB, Range
from bootproof.loader.protocols import virtual_kaslr

RunDirectory = Callable[[str], Path]

LINKED = 0xFFFFFFFF81000000
CASE = Case(
    *("x86_64", default_kernels("x86_64")[1], "elf", "auto"),
    memory=256 * MIB,
    virtual_offset=4 * MIB,
    profile="fast",
)


def proved(run_directory: RunDirectory) -> Proven:
    return prove(CASE, run_directory(f"virtual-{CASE.id}"))


def load_by(patches: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes the loader, but not for the threads that load other kernels meanwhile."""
    honest, here = virtual_kaslr._patches, threading.get_ident()

    def either(*words: Any) -> Any:
        return (patches if threading.get_ident() == here else honest)(*words)

    monkeypatch.setattr(virtual_kaslr, "_patches", either)


def test_a_kernel_that_runs_elsewhere_is_named(
    run_directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loader moves it 2 MiB less than it says."""
    honest = virtual_kaslr._patches

    def less(relocations: Any, linked: Range, offset: int) -> Any:
        return honest(relocations, linked, offset - 2 * MIB)

    load_by(less, monkeypatch)
    proven = proved(run_directory)
    assert proven.verdict is Verdict.BOOTED_WRONG
    at, wanted = LINKED + 2 * MIB, LINKED + 4 * MIB
    assert f"first byte is at virtual {at:#x}, not at {wanted:#x}" in proven.reason


@pytest.mark.parametrize("size", [4, 8])
def test_places_that_are_left_out_do_not_pass(
    size: int, run_directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = virtual_kaslr._patches
    load_by(lambda *words: [patch for patch in honest(*words) if patch[1] != size], monkeypatch)
    proven = proved(run_directory)
    assert not proven.verdict.passed
