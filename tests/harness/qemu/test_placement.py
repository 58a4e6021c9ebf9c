"""How a boot image is put in place: pieces, stubs, staging; the bytes that QEMU really gets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bootproof.harness.observation import Placement
from bootproof.harness.qemu.machine import Machine
from bootproof.harness.qemu.placement import (
    PIECES_DIRECTORY,
    Realisation,
    file_offset,
    guest_ram,
    realise,
    write,
)
from bootproof.loader.address import GIB, KIB, MIB, Range
from bootproof.loader.arch import Registers, StubError
from bootproof.loader.arch.aarch64 import Arm64Registers
from bootproof.loader.bootimage import BootImage
from bootproof.loader.layout import LayoutError, Region
from bootproof.loader.memory import GuestMemory
from tests.builders.guests import flat32, machine

PAGE = 4 * KIB
STAGED_SOURCE = 0  # index of a piece's source in what `pieces` gives


@contextmanager
def realised(
    arch: str,
    contents: Mapping[int, bytes],
    placement: Placement = Placement.PIECES,
    *,
    on: Machine | None = None,
    regions: tuple[Region, ...] = (),
    cpus: tuple[Registers, ...] | None = None,
) -> Iterator[tuple[Realisation, GuestMemory]]:
    computer = on or machine(arch)
    entry: tuple[Registers, ...] = (
        (flat32(2 * MIB),) if arch == "x86_64" else (Arm64Registers(GIB + 2 * MIB),)
    )
    with GuestMemory(computer.banks) as memory:
        for address, data in contents.items():
            memory.write(address, data)
        image = BootImage(arch, "none", memory.banks, cpus or entry, regions)
        yield realise(image, memory, computer, placement), memory


def pieces(realisation: Realisation) -> list[tuple[int, int, int]]:
    """(source, size, address) of each piece."""
    return [(piece.source, piece.size, piece.address) for piece in realisation.pieces]


def full(pages: int) -> bytes:
    return b"\xa5" * (pages * PAGE)


# --- pieces ------------------------------------------------------------------------------------


def test_a_piece_for_each_run_of_data() -> None:
    contents = {0x20000: full(2), 2 * MIB: full(1), 15 * MIB: full(3)}
    with realised("x86_64", contents) as (found, _):
        assert pieces(found) == [
            (0x20000, 2 * PAGE, 0x20000),
            (2 * MIB, PAGE, 2 * MIB),
            (15 * MIB, 3 * PAGE, 15 * MIB),
        ]
        assert not found.launch.mapped
        assert [(blob.path, blob.address) for blob in found.launch.blobs[:3]] == [
            (piece.path, piece.address) for piece in found.pieces
        ]


def test_near_runs_are_one_piece_with_the_zeros_between() -> None:
    gap = 64 * KIB
    contents = {2 * MIB: full(1), 2 * MIB + PAGE + gap: full(1), 4 * MIB: full(1)}
    with realised("x86_64", contents) as (found, _):
        assert pieces(found)[0] == (2 * MIB, 2 * PAGE + gap, 2 * MIB)
        assert len(found.pieces) == 2
    apart = {2 * MIB: full(1), 2 * MIB + 2 * PAGE + gap: full(1)}
    with realised("x86_64", apart) as (found, _):
        assert len(found.pieces) == 2


def test_no_piece_crosses_banks() -> None:
    computer = machine("x86_64", memory=2816 * MIB)  # 2 GiB low, the rest from 4 GiB
    contents = {2 * GIB - PAGE: full(1), 4 * GIB: full(1)}
    with realised("x86_64", contents, on=computer) as (found, memory):
        assert pieces(found) == [
            (2 * GIB - PAGE, PAGE, 2 * GIB - PAGE),
            (4 * GIB, PAGE, 4 * GIB),
        ]
        assert file_offset(memory, 4 * GIB + 5) == 2 * GIB + 5


def test_a_thousand_runs_are_few_pieces() -> None:
    """Each is a device: the smallest gaps are filled first."""
    contents = {MIB + number * 80 * KIB: full(1) for number in range(150)}
    contents |= {13 * MIB + number * 72 * KIB: full(1) for number in range(40)}
    many = {2 * MIB * number: full(1) for number in range(1, 500)}
    with realised("x86_64", contents) as (found, _):
        assert len(found.pieces) == 190
    with realised("x86_64", many, on=machine("x86_64", memory=1000 * MIB)) as (found, _):
        assert len(found.pieces) <= 256
        covered = [Range(piece.source, piece.size) for piece in found.pieces]
        assert all(any(area.contains(Range(start, PAGE)) for area in covered) for start in many)


@pytest.mark.parametrize(
    "name", ["kernel", "a b/c", "../../etc/passwd", "$(id)", "a,b", "\n", "x" * 500, ""]
)
def test_names_of_pieces_are_plain(name: str) -> None:
    """A region's name comes out of boot.json, and goes into a command line and a script."""
    regions = (Region(name, Range(2 * MIB, PAGE)),)
    with realised("x86_64", {2 * MIB: full(1)}, regions=regions) as (found, _):
        (piece,) = found.pieces
    directory, _, file = piece.path.partition("/")
    assert directory == PIECES_DIRECTORY
    assert file.endswith("-0x200000.bin") and len(file) < 100
    assert not set(file) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


def test_pieces_hold_the_bytes_of_ram(tmp_path: Path) -> None:
    contents = {2 * MIB: full(1), 2 * MIB + 5 * PAGE: full(2), 15 * MIB: full(3)}
    with realised("x86_64", contents) as (found, memory):
        write(found, memory, tmp_path)
        for piece in found.pieces:
            assert (tmp_path / piece.path).read_bytes() == memory.read(piece.source, piece.size)
        for name, code in found.stubs:
            assert (tmp_path / name).read_bytes() == code
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"stub0.bin", PIECES_DIRECTORY}


def test_empty_ram_has_a_stub_and_nothing_else(tmp_path: Path) -> None:
    with realised("x86_64", {}) as (found, memory):
        write(found, memory, tmp_path)
        assert found.pieces == ()
    assert [path.name for path in tmp_path.iterdir()] == ["stub0.bin"]


# --- mapped ------------------------------------------------------------------------------------


def test_mapped_ram_needs_no_pieces() -> None:
    with realised("x86_64", {2 * MIB: full(1)}, Placement.MAPPED) as (found, _):
        assert found.pieces == ()
        assert found.launch.mapped
        assert len(found.launch.blobs) == 1


@pytest.mark.parametrize("mapped", [True, False])
def test_ram_for_qemu(mapped: bool) -> None:
    with (
        GuestMemory([(0, MIB), (GIB, MIB)]) as memory,
        guest_ram(memory, mapped=mapped) as empty,
    ):
        assert list(empty.data_extents()) == []
    with GuestMemory([(0, MIB), (GIB, MIB)]) as memory:
        memory.write(0x3000, b"low")
        memory.write(GIB + 0x8000, b"high")
        with guest_ram(memory, mapped=mapped) as ram:
            assert ram.banks == memory.banks
            wanted = (b"low", b"high") if mapped else (bytes(3), bytes(4))
            assert (ram.read(0x3000, 3), ram.read(GIB + 0x8000, 4)) == wanted
            ram.write(0x3000, b"new")
            assert memory.read(0x3000, 3) == b"low"


# --- stubs and staging -------------------------------------------------------------------------


def test_stub_lies_apart_from_data_and_regions() -> None:
    regions = (Region("mine", Range(0x1000, 0x4000)),)
    with realised("x86_64", {0x6000: full(1)}, regions=regions) as (found, _):
        assert found.launch.blobs[-1].address == 0x5000
        assert found.launch.entries == (0x15000,)
        assert found.working_areas == (Range(0x5000, PAGE), Range(0xA0000, 0x60000))


def test_a_stub_for_each_cpu() -> None:
    cpus = (Arm64Registers(GIB + 2 * MIB), Arm64Registers(GIB + 4 * MIB))
    with realised("aarch64", {}, cpus=cpus) as (found, _):
        assert [name for name, _ in found.stubs] == ["stub0.bin", "stub1.bin"]
        assert len(set(found.launch.entries)) == 2
        assert found.stubs[0] != found.stubs[1]


@pytest.mark.parametrize("placement", Placement)
def test_what_the_machine_overwrites_is_staged(placement: Placement) -> None:
    contents = {GIB + 0x8000: full(2), GIB + MIB - PAGE: full(3), GIB + 4 * MIB: full(1)}
    with realised("aarch64", contents, placement) as (found, _):
        staged = [piece for piece in found.pieces if piece.source != piece.address]
        assert [(piece.source, piece.size) for piece in staged] == [
            (GIB + 0x8000, 2 * PAGE),
            (GIB + MIB - PAGE, PAGE),
        ]
        for piece in staged:
            area = Range(piece.address, piece.size)
            assert area.start >= GIB + MIB
            assert area in found.working_areas
            assert not any(
                area.overlaps(Range(start, len(data))) for start, data in contents.items()
            )
        direct = [item for item in pieces(found) if item[0] == item[2]]
        wanted = [(GIB + MIB, 2 * PAGE, GIB + MIB), (GIB + 4 * MIB, PAGE, GIB + 4 * MIB)]
        assert direct == (wanted if placement is Placement.PIECES else [])


@pytest.mark.parametrize(
    ("arch", "regions", "what"),
    [
        ("x86_64", (Region("all", Range(0, MIB)),), "reset stub of CPU 0"),
        ("aarch64", (Region("all", Range(GIB, 16 * MIB)),), "reset stub of CPU 0"),
    ],
)
def test_no_room_for_the_stub(arch: str, regions: Any, what: str) -> None:
    with pytest.raises(LayoutError) as refused, realised(arch, {}, regions=regions):
        pass
    assert refused.value.field == what


def test_no_room_for_staging() -> None:
    regions = (Region("all but a page", Range(GIB + MIB + PAGE, 15 * MIB - PAGE)),)
    with (
        pytest.raises(LayoutError, match="no room for staging area for 0x40008000-0x40009fff"),
        realised("aarch64", {GIB + 0x8000: full(2)}, regions=regions),
    ):
        pass


def test_state_that_no_stub_reaches() -> None:
    with pytest.raises(StubError), realised("x86_64", {}, cpus=(flat32(0, cr0=0),)):
        pass
