"""Structural lies are refused with their own error, fast, in little memory, and without a trace.

The bounds are for an idle machine 50 ms of CPU time and 64 MiB (`python -m bench.hostile` prints
what it is); here CPU time has room for a machine that is not idle.
"""

from __future__ import annotations

import gc
import struct
import time
from collections.abc import Iterator

import pytest

from bench.hostile import cpu_seconds, peak_memory
from bootproof.loader import Elf, GuestMemory, LoaderError
from tests.builders.hostile import MOST, RAM, START, Lie, lies, small_loads, table, then
from tests.builders.images import PT_LOAD

CPU_SECONDS = 0.5
MEMORY = 64 << 20


@pytest.fixture(scope="module")
def memory() -> Iterator[GuestMemory]:
    with GuestMemory([(0, RAM)]) as memory:
        yield memory


def test_structural_lies_cost_nothing(memory: GuestMemory) -> None:
    for lie in lies():
        assert cpu_seconds(memory, lie) < CPU_SECONDS, lie.name
        assert peak_memory(memory, lie) < MEMORY, lie.name
        assert list(memory.data_extents()) == [], lie.name


def test_the_measures_measure() -> None:
    """Both checks above would see what they are to see."""

    def waste(_memory: GuestMemory, _content: object) -> object:
        started = time.process_time()
        while time.process_time() - started < 0.06:
            pass
        bytearray(MEMORY + 1)
        raise LoaderError(file="a file", field="a field", value=1)

    def vague(_memory: GuestMemory, _content: object) -> object:
        raise LoaderError(file="a file", value=1)

    lie = Lie("waste", b"", waste, "LoaderError")
    with GuestMemory([(0, RAM)]) as memory:
        assert cpu_seconds(memory, lie) > 0.05
        assert peak_memory(memory, lie) > MEMORY
        with pytest.raises(AssertionError, match="none instead of X"):
            cpu_seconds(memory, Lie("accepted", b"", lambda *_: None, "X"))
        with pytest.raises(AssertionError, match="does not say where"):
            cpu_seconds(memory, Lie("vague", b"", vague, "LoaderError"))


def test_refusal_in_a_cycle_of_garbage_is_collected() -> None:
    """CPython crashes when it collects a view together with an iterator that reads from it."""
    content = table(then(small_loads(3), (PT_LOAD, 7, 64, 0, RAM, 16, 16, 0)))
    with GuestMemory([(0, RAM)]) as memory:
        for _ in range(5):
            error = None
            try:
                Elf().load(memory, content)
            except LoaderError as refused:
                error = refused
            assert error is not None
            error.value = error  # a cycle through the traceback's frames
            del error
            gc.collect()


def test_as_many_segments_as_there_can_be_are_loaded(memory: GuestMemory) -> None:
    """65,535 is much, but no lie: all are loaded, in order, and the findings stay readable."""
    rows = then(small_loads(MOST - 1, 20), (PT_LOAD, 7, 64, 0, START + 8, 16, 16, 0))
    content = table(rows, bytes(range(16)))
    with GuestMemory([(0, RAM)]) as memory:
        result = Elf().load(memory, content)
        expected = b"".join(content[64 + i : 80 + i] for i in range(MOST - 1))
        expected = expected[:8] + content[64:80] + expected[24:]
        assert memory.read(START, len(expected)) == expected
    assert result.kernel_end == START + (MOST - 2) * 16 + 20
    assert len(result.findings) == 10
    assert result.findings[8].sentence == (
        f"RAM is needed behind the bytes of {MOST - 1 - 8} more segments in the file"
    )


def test_segment_in_a_smaller_bank_is_judged_as_in_the_largest() -> None:
    """The quick test knows only the largest bank; the others get the closer look."""
    with GuestMemory([(0, 0x1000), (0x10_0000, RAM), (1 << 32, 0x1000)]) as memory:
        for address, fits in ((0xFF0, True), (0xFF1, False), ((1 << 32) + 0xFF0, True)):
            content = table(iter([(PT_LOAD, 7, 0, 0, address, 16, 16, 0)]))
            if fits:
                Elf().load(memory, content)
                assert memory.read(address, 4) == struct.pack("4s", b"\x7fELF")
                continue
            with pytest.raises(Elf.ReadKernelImage):
                Elf().load(memory, content)
