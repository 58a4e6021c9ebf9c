"""Where everything lies, for any machine, kernel and offset: what holds of every layout.

Through each protocol's plan(), on the banks that the boards of harness/arch/ really have.
The rules are spelled out here once more, from the boot protocols. A refusal has to name the memory
that would do, and that memory does.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from bootproof.harness.arch.table import ARCHES
from bootproof.loader import (
    LoaderError,
    PvhBootCapability,
    PvhState,
    Range,
    SetupHeader,
    parse_size,
)
from bootproof.loader.assemble import Assembly, Machine, assemble
from bootproof.loader.device_tree import DeviceTree, Node
from bootproof.loader.layout import LayoutError, Region
from bootproof.loader.protocols import BootRequest, ProtocolError
from bootproof.loader.protocols.table import PROTOCOLS
from bootproof.loader.result import KernelLoaderResult
from tests.builders import images

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
LEGACY_HOLE = Range.between(0xA0000, 0x100000)
ALIGNMENTS = {
    "boot_params": 4096,
    "page tables": 4096,
    "start_info": 4,
    "memmap": 8,
    "modlist": 8,
    "gdt": 8,
    "dtb": 8,
    "initrd": 4096,
}
SIZES = st.one_of(
    st.integers(1, 8 * MIB), st.integers(1, 64).map(lambda n: n * MIB), st.just(300 * MIB)
)


def device_tree(size: int) -> bytes:
    return DeviceTree([Node(b"", 0, {b"filling": bytes(size)})]).to_bytes()


def kernel_at(footprint: Range, entry: str, header: SetupHeader | None) -> KernelLoaderResult:
    return KernelLoaderResult(
        kernel_load=footprint.start,
        kernel_end=footprint.end,
        setup_header=header,
        pvh_boot_cap=PvhBootCapability(PvhState.IGNORED),
        footprint=footprint,
        entry_points={entry: footprint.start},
    )


def banks(arch: str, board: str, memory: int) -> list[Range]:
    return [Range(*bank) for bank in ARCHES[arch].boards[board].banks(memory)]


def addresses(ram: list[Range], alignment: int) -> st.SearchStrategy[int]:
    """Addresses in or near RAM, many of them near the start or end of a bank, or a GiB."""
    near = sorted({edge for bank in ram for edge in (bank.start, bank.end)} | {GIB, 4 * GIB})
    return st.one_of(
        st.integers(0, max(bank.end for bank in ram)),
        st.builds(
            lambda edge, distance: max(edge + distance, 0),
            st.sampled_from(near),
            st.integers(-80 * MIB, 80 * MIB),
        ),
    ).map(lambda address: address // alignment * alignment)


@st.composite
def x86_plans(draw: st.DrawFn) -> tuple[str, list[Range], KernelLoaderResult, BootRequest]:
    name = draw(st.sampled_from(["linux64", "linux32", "pvh"]))
    board = draw(st.sampled_from(["q35", "pc", "microvm"]))
    ram = banks("x86_64", board, draw(st.integers(8, 6000)) * MIB)
    header = None
    if name != "pvh" and draw(st.booleans()):
        highest = st.sampled_from([0x37FF_FFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, 0x12F_FFFF])
        blank = SetupHeader.from_bytes(bytes(SetupHeader.SIZE))
        header = replace(blank, version=0x20F, initrd_addr_max=draw(highest), cmdline_size=2047)
    start = draw(addresses(ram, 16 if header else 2 * MIB))
    kernel = kernel_at(Range(start, draw(SIZES)), name, header)
    reserved = ARCHES["x86_64"].boards[board].reserved(0)
    initrd = draw(st.none() | SIZES)
    request = BootRequest(
        cmdline=b"x" * draw(st.integers(0, 2047)),
        initrd=None if initrd is None else bytes(initrd),
        reserved=(*reserved, *draw(st.sampled_from([(), (Region("mine", Range(0, 0x20000)),)]))),
    )
    return name, ram, kernel, request


@st.composite
def arm64_plans(draw: st.DrawFn) -> tuple[str, list[Range], KernelLoaderResult, BootRequest]:
    memory = draw(st.one_of(st.integers(8, 6000), st.integers(32, 72).map(lambda n: n * 1024)))
    ram = banks("aarch64", "virt", memory * MIB)
    if draw(st.booleans()):  # not `virt`, but legal: two banks with a hole
        ram = [ram[0], Range(draw(st.integers(40, 100)) * GIB, draw(st.integers(1, 70)) * GIB)]
        assume(not ram[0].overlaps(ram[1]))
    kernel = kernel_at(Range(draw(addresses(ram, 2 * MIB)), draw(SIZES)), "arm64", None)
    initrd = draw(st.none() | SIZES)
    request = BootRequest(
        cmdline=b"x" * draw(st.integers(0, 2047)),
        initrd=None if initrd is None else bytes(initrd),
        dtb=device_tree(draw(st.sampled_from([8, 8 * KIB, MIB, 2 * MIB - 8 * KIB]))),
        reserved=ARCHES["aarch64"].boards["virt"].reserved(0),
    )
    return "arm64", ram, kernel, request


PLANS = st.one_of(x86_plans(), arm64_plans())


def planned(
    name: str, ram: list[Range], kernel: KernelLoaderResult, request: BootRequest
) -> dict[str, Range]:
    """The regions by name; a request that is refused is another test's business."""
    try:
        regions = PROTOCOLS[name].plan(ram, kernel, request)
    except (LayoutError, ProtocolError):
        assume(False)
        raise
    assert len({region.name for region in regions}) == len(regions)
    return {region.name: region.range for region in regions}


@settings(suppress_health_check=[HealthCheck.filter_too_much], max_examples=300)
@given(PLANS)
def test_every_layout(
    plan: tuple[str, list[Range], KernelLoaderResult, BootRequest],
) -> None:
    name, ram, kernel, request = plan
    regions = planned(*plan)

    assert regions.pop("kernel") == kernel.footprint
    placed = list(regions.items())
    for number, (piece, place) in enumerate(placed):
        assert any(bank.contains(place) for bank in ram), f"{piece} is outside RAM"
        assert not place.overlaps(kernel.footprint), f"{piece} is in the kernel's footprint"
        assert not any(place.overlaps(other) for _, other in placed[number + 1 :])
        assert not any(place.overlaps(taken.range) for taken in request.reserved)
        assert place.start % ALIGNMENTS.get(piece, 1) == 0
    assert ("initrd" in regions) == (request.initrd is not None)
    if name == "arm64":
        check_arm64(kernel, regions)
    else:
        check_x86(name, kernel, regions, request)


def check_x86(
    name: str, kernel: KernelLoaderResult, regions: dict[str, Range], request: BootRequest
) -> None:
    expected = {
        "linux64": {"gdt", "boot_params", "page tables", "cmdline"},
        "linux32": {"gdt", "boot_params", "cmdline"},
        "pvh": {"gdt", "start_info", "memmap", "modlist", "cmdline"},
    }[name]
    assert set(regions) - {"initrd"} == expected
    assert regions["cmdline"].size == len(request.cmdline) + 1
    for place in regions.values():
        assert not place.overlaps(LEGACY_HOLE)
        assert place.start >= 4096  # the real-mode vectors
    if "initrd" in regions:
        header = kernel.setup_header
        highest = header.initrd_addr_max if header else 0x7FFF_FFFF
        assert regions["initrd"].end - 1 <= highest
        assert regions["initrd"].size == len(request.initrd or b"")


def check_arm64(kernel: KernelLoaderResult, regions: dict[str, Range]) -> None:
    tree = regions["dtb"]
    assert tree.size <= 2 * MIB
    assert tree.start // (2 * MIB) == (tree.end - 1) // (2 * MIB)
    if "initrd" in regions:
        both = (kernel.footprint, regions["initrd"])
        window = min(piece.start for piece in both) // GIB * GIB
        assert max(piece.end for piece in both) <= window + 32 * GIB


@st.composite
def tight_arm64_plans(draw: st.DrawFn) -> tuple[list[Range], KernelLoaderResult, BootRequest]:
    """A bank that hardly holds more than the kernel, and another one, near or far."""
    size, slack, initrd = draw(st.tuples(*[st.integers(1, 12).map(lambda n: n * MIB)] * 3))
    base = 40 * GIB + draw(st.sampled_from([0, GIB - 8 * MIB]))
    near = Range(base, size + slack)
    start = base + draw(st.integers(0, slack // (2 * MIB))) * 2 * MIB
    distance = draw(st.integers(-33, 33).filter(bool)) * GIB
    far = Range(base + distance + draw(st.integers(-8, 8)) * MIB, draw(st.integers(1, 12)) * MIB)
    request = BootRequest(initrd=bytes(initrd), dtb=device_tree(8))
    return [near, far], kernel_at(Range(start, size), "arm64", None), request


@settings(max_examples=300)
@given(tight_arm64_plans())
def test_arm64_initrd_is_only_refused_where_no_window_has_room(
    plan: tuple[list[Range], KernelLoaderResult, BootRequest],
) -> None:
    """Every address that could be the first legal one is tried, beside kernel and device tree."""
    ram, kernel, request = plan
    arm64 = PROTOCOLS["arm64"]
    regions = arm64.plan(ram, kernel, replace(request, initrd=None))
    taken = [region.range for region in regions]
    size, reach = len(request.initrd or b""), 32 * GIB
    lowest = -(-(kernel.footprint.end - reach) // GIB) * GIB
    legal = []
    for start in {bank.start for bank in ram} | {piece.end for piece in taken} | {lowest}:
        place = Range(-(-start // 4096) * 4096, size)
        window = min(place.start, kernel.footprint.start) // GIB * GIB
        if (
            any(bank.contains(place) for bank in ram)
            and not any(place.overlaps(piece) for piece in taken)
            and max(place.end, kernel.footprint.end) <= window + reach
        ):
            legal.append(place)
    event("legal" if legal else "none")
    try:
        arm64.plan(ram, kernel, request)
        placed = True
    except LayoutError:
        placed = False
    assert placed == bool(legal), legal


def test_arm64_initrd_below_a_kernel_that_fills_the_top_of_ram() -> None:
    ram = [Range(GIB, 3 * GIB)]
    kernel = kernel_at(Range(3 * GIB, GIB - 2 * MIB), "arm64", None)
    request = BootRequest(initrd=bytes(8 * MIB), dtb=device_tree(8))
    regions = planned("arm64", ram, kernel, request)
    assert regions["initrd"] == Range(3 * GIB - 8 * MIB, 8 * MIB)


@pytest.mark.parametrize("far", [Range(64 * GIB, GIB), Range(7 * GIB, GIB)])
def test_arm64_initrd_out_of_reach_is_refused(far: Range) -> None:
    """RAM near the kernel is full; the rest is more than 32 GiB above it or below."""
    near = Range(40 * GIB if far.start < 40 * GIB else GIB, 64 * MIB)
    kernel = kernel_at(Range(near.start, 60 * MIB), "arm64", None)
    request = BootRequest(initrd=bytes(8 * MIB), dtb=device_tree(8))
    with pytest.raises(LayoutError) as caught:
        PROTOCOLS["arm64"].plan([near, far], kernel, request)
    assert caught.value.field == "initrd"
    within_reach = Range(near.start - 32 * GIB + GIB, GIB) if far.start < near.start else far
    if within_reach is not far:
        regions = planned("arm64", [near, within_reach], kernel, request)
        assert regions["initrd"].end == within_reach.end


def test_arm64_initrd_stays_off_reserved_ram() -> None:
    """The only room is where QEMU has its own device tree."""
    ram, reserved = [Range(GIB, 8 * MIB)], ARCHES["aarch64"].boards["virt"].reserved(0)
    kernel = kernel_at(Range(GIB + 2 * MIB, 6 * MIB), "arm64", None)
    request = BootRequest(initrd=bytes(MIB), dtb=device_tree(8))
    assert planned("arm64", ram, kernel, request)["initrd"].overlaps(reserved[0].range)
    with pytest.raises(LayoutError):
        PROTOCOLS["arm64"].plan(ram, kernel, replace(request, reserved=reserved))


# --- the memory that would do --------------------------------------------------------------------


@st.composite
def assemblies(draw: st.DrawFn) -> tuple[bytes, Assembly]:
    """A vmlinux with a large BSS, or an Image, on a board with mostly too little memory."""
    board = draw(st.sampled_from(["q35", "pc", "microvm", "virt"]))
    arch = "aarch64" if board == "virt" else "x86_64"
    memory = draw(st.one_of(st.integers(1, 200), st.integers(2000, 5000))) * MIB
    machine = Machine(arch, memory, ARCHES[arch].memory_limit, ARCHES[arch].boards[board].banks)
    initrd = draw(st.none() | st.integers(1, 100 * MIB).map(bytes))
    request = BootRequest(
        b"console=x",
        initrd,
        device_tree(8 * KIB) if arch == "aarch64" else None,
        ARCHES[arch].boards[board].reserved(memory),
    )
    size = draw(st.integers(1, 300 * MIB))
    offset = draw(st.one_of(st.integers(0, 100), st.integers(900, 2600))) * 2 * MIB
    if arch == "aarch64":
        kernel = images.image(image_size=size, flags=0xA, size=0x100)
        return kernel, Assembly(machine, request, kernel_offset=offset)
    kernel = images.elf(images.load(0x10_0000 * 16, b"code", memsz=size))
    return kernel, Assembly(machine, request, "linux64", offset)


def refusal(kernel: bytes, assembly: Assembly) -> LoaderError | None:
    with tempfile.TemporaryDirectory() as directory:
        try:
            assemble(kernel, assembly, Path(directory))
        except LoaderError as error:
            assert list(Path(directory).iterdir()) == []
            return error
    return None


def with_memory(assembly: Assembly, memory: int) -> Assembly:
    return replace(assembly, machine=replace(assembly.machine, memory=memory))


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(assemblies())
def test_refusal_names_the_memory_that_does(case: tuple[bytes, Assembly]) -> None:
    kernel, assembly = case
    error = refusal(kernel, assembly)
    if error is None:
        event("accepted")
        return
    advice = re.search(r"give the guest (?:at least )?([0-9.]+ \w+) \(--memory\)", str(error))
    event(str(advice[0])[:22] if advice else "no amount")
    if advice is None:
        assert "no amount of memory helps" in str(error)
        for memory in (16 * MIB, 700 * MIB, 2815 * MIB, 3583 * MIB, 3 * GIB, 9 * GIB, 64 * GIB):
            assert refusal(kernel, with_memory(assembly, memory)) is not None
        return
    enough = parse_size(advice[1])
    assert refusal(kernel, with_memory(assembly, enough)) is None
    assert enough == MIB or refusal(kernel, with_memory(assembly, enough - MIB)) is not None


def test_memory_that_moves_a_kernel_out_of_ram_is_not_advised() -> None:
    """q35 keeps 2 GiB low from 2816 MiB on: a kernel at 2.2 GiB needs less than that."""
    machine = Machine("x86_64", 4 * GIB, 64 * GIB, ARCHES["x86_64"].boards["q35"].banks)
    kernel = images.elf(images.load(16 * MIB, b"code", memsz=MIB))
    assembly = Assembly(machine, BootRequest(b""), "linux64", 2200 * MIB)
    error = refusal(kernel, assembly)
    assert error is not None
    assert error.advice == "give the guest 2217 MiB (--memory): RAM moves as it grows"
    assert refusal(kernel, with_memory(assembly, 2217 * MIB)) is None
    assert refusal(kernel, with_memory(assembly, 2216 * MIB)) is not None


def test_kernel_where_no_board_has_ram() -> None:
    machine = Machine("x86_64", GIB, 64 * GIB, ARCHES["x86_64"].boards["q35"].banks)
    kernel = images.elf(images.load(16 * MIB, b"code"))
    error = refusal(kernel, Assembly(machine, BootRequest(b""), "linux64", 3 * GIB))
    assert error is not None
    assert error.advice == (
        "no amount of memory helps on this machine; load it elsewhere (--offset)"
    )
