"""How a boot image is put in place: loader devices, stubs, staging, the bytes that QEMU gets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bootproof.harness.host.rundir import DEVICES_DIRECTORY
from bootproof.harness.qemu.machine import Machine
from bootproof.harness.qemu.placement import PlacedImage, guest_ram, place_image, write
from bootproof.harness.terms import Placement
from bootproof.loader.address import GIB, KIB, MIB, PAGE, Banks, Range
from bootproof.loader.arch import Registers, StubError
from bootproof.loader.arch.aarch64 import Arm64Registers
from bootproof.loader.bootimage import BootImage
from bootproof.loader.layout import LayoutError, Region
from bootproof.loader.memory import GuestMemory
from tests.builders.guests import flat32, machine

STAGED_SOURCE = 0  # index of a file's source in what `files` gives


@contextmanager
def placing(
    arch: str,
    contents: Mapping[int, bytes],
    placement: Placement = Placement.DEVICES,
    *,
    on: Machine | None = None,
    regions: tuple[Region, ...] = (),
    cpus: tuple[Registers, ...] | None = None,
    banks: Banks | None = None,
) -> Iterator[tuple[PlacedImage, GuestMemory]]:
    computer = on or machine(arch)
    entry: tuple[Registers, ...] = (
        (flat32(2 * MIB),) if arch == "x86_64" else (Arm64Registers(GIB + 2 * MIB),)
    )
    with GuestMemory(banks or computer.banks) as memory:
        for address, data in contents.items():
            memory.write(address, data)
        image = BootImage(arch, "none", memory.banks, cpus or entry, regions)
        yield place_image(image, memory, computer, placement), memory


def files(placed: PlacedImage) -> list[tuple[int, int, int]]:
    """(source, size, address) of each file."""
    return [(file.source, file.size, file.address) for file in placed.files]


def full(pages: int) -> bytes:
    return b"\xa5" * (pages * PAGE)


# --- devices -------------------------------------------------------------------------------------


def test_a_piece_for_each_run_of_data() -> None:
    contents = {0x20000: full(2), 2 * MIB: full(1), 15 * MIB: full(3)}
    with placing("x86_64", contents) as (placed, _):
        assert files(placed) == [
            (0x20000, 2 * PAGE, 0x20000),
            (2 * MIB, PAGE, 2 * MIB),
            (15 * MIB, 3 * PAGE, 15 * MIB),
        ]
        assert not placed.launch.mapped
        assert [(blob.path, blob.address) for blob in placed.launch.blobs[:3]] == [
            (file.path, file.address) for file in placed.files
        ]


def test_near_runs_are_one_piece_with_the_zeros_between() -> None:
    gap = 64 * KIB
    contents = {2 * MIB: full(1), 2 * MIB + PAGE + gap: full(1), 4 * MIB: full(1)}
    with placing("x86_64", contents) as (placed, _):
        assert files(placed)[0] == (2 * MIB, 2 * PAGE + gap, 2 * MIB)
        assert len(placed.files) == 2
    apart = {2 * MIB: full(1), 2 * MIB + 2 * PAGE + gap: full(1)}
    with placing("x86_64", apart) as (placed, _):
        assert len(placed.files) == 2


def test_no_piece_crosses_banks() -> None:
    computer = machine("x86_64", memory=2816 * MIB)  # 2 GiB low, the rest from 4 GiB
    contents = {2 * GIB - PAGE: full(1), 4 * GIB: full(1)}
    with placing("x86_64", contents, on=computer) as (placed, memory):
        assert files(placed) == [
            (2 * GIB - PAGE, PAGE, 2 * GIB - PAGE),
            (4 * GIB, PAGE, 4 * GIB),
        ]
        assert memory.file_offset(4 * GIB + 5) == 2 * GIB + 5


def test_a_thousand_runs_are_few_devices() -> None:
    """Each is a device: the smallest gaps are filled first."""
    contents = {MIB + number * 80 * KIB: full(1) for number in range(150)}
    contents |= {13 * MIB + number * 72 * KIB: full(1) for number in range(40)}
    many = {2 * MIB * number: full(1) for number in range(1, 500)}
    with placing("x86_64", contents) as (placed, _):
        assert len(placed.files) == 190
    with placing("x86_64", many, on=machine("x86_64", memory=1000 * MIB)) as (placed, _):
        assert len(placed.files) <= 256
        covered = [Range(file.source, file.size) for file in placed.files]
        assert all(any(area.contains(Range(start, PAGE)) for area in covered) for start in many)


@pytest.mark.parametrize(
    "name", ["kernel", "a b/c", "../../etc/passwd", "$(id)", "a,b", "\n", "x" * 500, ""]
)
def test_names_of_files_are_plain(name: str) -> None:
    """A region's name comes out of boot.json, and goes into a command line and a script."""
    regions = (Region(name, Range(2 * MIB, PAGE)),)
    with placing("x86_64", {2 * MIB: full(1)}, regions=regions) as (placed, _):
        (file,) = placed.files
    directory, _, name = file.path.partition("/")
    assert directory == DEVICES_DIRECTORY
    assert name.endswith("-0x200000.bin") and len(name) < 100
    assert not set(name) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


def test_files_hold_the_bytes_of_ram(tmp_path: Path) -> None:
    contents = {2 * MIB: full(1), 2 * MIB + 5 * PAGE: full(2), 15 * MIB: full(3)}
    with placing("x86_64", contents) as (placed, memory):
        write(placed, memory, tmp_path)
        for file in placed.files:
            assert (tmp_path / file.path).read_bytes() == memory.read(file.source, file.size)
        for name, code in [("stub0.bin", placed.stub)]:
            assert (tmp_path / name).read_bytes() == code
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"stub0.bin", DEVICES_DIRECTORY}


def test_empty_ram_has_a_stub_and_nothing_else(tmp_path: Path) -> None:
    with placing("x86_64", {}) as (placed, memory):
        write(placed, memory, tmp_path)
        assert placed.files == ()
    assert [path.name for path in tmp_path.iterdir()] == ["stub0.bin"]


# --- mapped ------------------------------------------------------------------------------------


def test_mapped_ram_needs_no_files() -> None:
    with placing("x86_64", {2 * MIB: full(1)}, Placement.MAPPED) as (placed, _):
        assert placed.files == ()
        assert placed.launch.mapped
        assert len(placed.launch.blobs) == 1


@pytest.mark.parametrize("placement", Placement)
def test_ram_for_qemu(placement: Placement) -> None:
    banks, mapped = machine("x86_64").banks, placement is Placement.MAPPED
    data = {0x3000: b"low".ljust(PAGE, b"\0") + bytes(PAGE), 8 * MIB: b"high"}
    with (
        placing("x86_64", data, placement) as (placed, memory),
        guest_ram(memory, banks, placed.mapped) as ram,
    ):
        assert ram.banks == memory.banks
        wanted = (b"low", b"high") if mapped else (bytes(3), bytes(4))
        assert (ram.read(0x3000, 3), ram.read(8 * MIB, 4)) == wanted
        pages = [Range(0x3000, PAGE), Range(8 * MIB, PAGE)]  # and none of zeros
        assert list(ram.data_extents()) == (pages if mapped else [])
        ram.write(0x3000, b"new")
        assert memory.read(0x3000, 3) == b"low"


# --- stubs and staging -------------------------------------------------------------------------


def test_stub_lies_apart_from_data_and_regions() -> None:
    regions = (Region("mine", Range(0x1000, 0x4000)),)
    with placing("x86_64", {0x6000: full(1)}, regions=regions) as (placed, _):
        assert placed.launch.blobs[-1].address == 0x5000
        assert placed.launch.entries == (0x15000,)
        assert placed.working_areas == (Range(0x5000, PAGE), Range(0xA0000, 0x60000))


def test_no_stub_lies_at_address_0() -> None:
    """There QEMU's loader device would not start a CPU."""
    board = Machine.with_defaults("aarch64", memory=16 * MIB, board="xlnx-zcu102")
    with placing("aarch64", {2 * MIB: full(1)}, on=board) as (placed, _):
        assert placed.launch.entries == (PAGE,)


def test_a_second_cpu_is_started_by_the_kernel_alone() -> None:
    cpus = (Arm64Registers(GIB + 2 * MIB), Arm64Registers(GIB + 4 * MIB))
    with placing("aarch64", {}, cpus=cpus) as (placed, _):
        assert len(placed.launch.entries) == 1
    with (
        pytest.raises(StubError, match=r"^CPU 1 is at 0x40400000, in code that waits for nothing;"),
        placing("aarch64", {GIB + 4 * MIB: full(1)}, cpus=cpus),
    ):
        pass


@pytest.mark.parametrize("placement", Placement)
def test_what_the_machine_overwrites_is_staged(placement: Placement) -> None:
    contents = {GIB + 0x8000: full(2), GIB + MIB - PAGE: full(3), GIB + 4 * MIB: full(1)}
    with placing("aarch64", contents, placement) as (placed, _):
        staged = [file for file in placed.files if file.source != file.address]
        assert [(file.source, file.size) for file in staged] == [
            (GIB + 0x8000, 2 * PAGE),
            (GIB + MIB - PAGE, PAGE),
        ]
        for file in staged:
            area = Range(file.address, file.size)
            assert area.start >= GIB + MIB
            assert area in placed.working_areas
            assert not any(
                area.overlaps(Range(start, len(data))) for start, data in contents.items()
            )
        direct = [item for item in files(placed) if item[0] == item[2]]
        wanted = [(GIB + MIB, 2 * PAGE, GIB + MIB), (GIB + 4 * MIB, PAGE, GIB + 4 * MIB)]
        assert direct == (wanted if placement is Placement.DEVICES else [])


@pytest.mark.parametrize(
    ("arch", "regions", "contents"),
    [
        ("x86_64", (Region("kernel", Range(0, 16 * MIB)),), {}),
        ("x86_64", (), {PAGE: full(0x9F), MIB: full(0xF00)}),
        ("aarch64", (Region("kernel", Range(GIB, 16 * MIB)),), {}),
    ],
)
def test_no_room_for_the_stub(arch: str, regions: Any, contents: dict[int, bytes]) -> None:
    with pytest.raises(LayoutError) as refused, placing(arch, contents, regions=regions):
        pass
    assert refused.value.field == "reset stub"
    assert "leave as much zero" in str(refused.value)


@pytest.mark.parametrize("page", [0x7000, 0xF000, 0x10000, 0x9F000, MIB, 15 * MIB])
def test_one_free_page_is_enough(page: int) -> None:
    """Also where all of RAM is some region's."""
    contents = {PAGE: full(0x9F), MIB: full(0xF00)}
    below, above = (
        {address: data for address, data in contents.items() if address < MIB},
        {address: data for address, data in contents.items() if address >= MIB},
    )
    area = below if page < MIB else above
    ((start, data),) = area.items()
    area.clear()
    area |= {start: data[: page - start], page + PAGE: data[page + PAGE - start :]}
    regions = (Region("all", Range(0, 16 * MIB)),)
    with placing("x86_64", below | above, regions=regions) as (placed, _):
        assert placed.launch.blobs[-1].address == page


def test_no_room_for_staging() -> None:
    regions = (Region("kernel", Range(GIB + MIB + PAGE, 15 * MIB - PAGE)),)
    with (
        pytest.raises(LayoutError, match="staging area for 0x40008000-0x40009fff"),
        placing("aarch64", {GIB + 0x8000: full(2)}, regions=regions),
    ):
        pass


@pytest.mark.parametrize("placement", Placement)
def test_what_may_lie_under_rom_is_written_by_devices(placement: Placement) -> None:
    with placing("x86_64", {0xA0000: full(1), 0xDF000: full(1)}, placement) as (placed, _):
        assert files(placed) == [(0xA0000, PAGE, 0xA0000), (0xDF000, PAGE, 0xDF000)]
        assert placed.covered == (Range(0xA0000, PAGE), Range(0xDF000, PAGE))
        assert placed.launch.rom is None


@pytest.mark.parametrize("placement", Placement)
def test_what_lies_where_a_firmware_shows_is_the_whole_rom(placement: Placement) -> None:
    """Which of a firmware and a loader device writes last is nobody's choice."""
    with placing("x86_64", {0xDF000: full(2), 0xF5000: full(1)}, placement) as (placed, _):
        rest, rom = placed.files
        assert files(placed) == [(0xDF000, PAGE, 0xDF000), (0xE0000, 128 * KIB, 0xE0000)]
        assert (placed.launch.rom, placed.launch.blobs[0].path) == (rom.path, rest.path)
        assert placed.covered == (Range(0xDF000, PAGE), Range(0xE0000, 128 * KIB))
        assert placed.working_areas[1:] == (Range(0xA0000, 0x3F000),)


def test_rom_that_the_image_has_in_part_is_written_by_devices() -> None:
    with placing("x86_64", {0xE0000: full(1)}, banks=((0, 0xF0000), (MIB, MIB))) as (placed, _):
        assert files(placed) == [(0xE0000, PAGE, 0xE0000)]
        assert placed.launch.rom is None


def test_state_that_no_stub_reaches() -> None:
    with pytest.raises(StubError), placing("x86_64", {}, cpus=(flat32(0, cr0=0),)):
        pass
