"""Mutated images: whatever the bytes, a load answers or refuses, and a refusal changes nothing."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from bootproof.loader import (
    BzImage,
    Elf,
    GuestMemory,
    KernelLoaderResult,
    LoaderError,
    Pe,
    load_dtb,
)
from tests.builders.images import (
    ARM64,
    BUILD_ID,
    RISCV64,
    Segment,
    bss,
    bzimage,
    elf,
    image,
    load,
    notes,
    pvh_entry,
    pvh_reloc,
)

BANKS = [(0, 0x8000), (0x8000, 0x4000), (0x20_0000, 0x8000)]
U64 = st.one_of(
    st.integers(0, (1 << 64) - 1),
    st.sampled_from([0, 1, 0x7FFF, 0x8000, 0x20_0000, 1 << 63, (1 << 64) - 1]),
)
ADDRESSES = st.one_of(st.integers(0, 0xC000), st.integers(0x1F_FFF0, 0x20_8010), U64)
CONTENT = st.binary(max_size=200)

SEGMENTS = st.lists(
    st.one_of(
        st.builds(load, ADDRESSES, CONTENT, memsz=st.one_of(st.none(), U64)),
        st.builds(bss, ADDRESSES, U64),
        st.builds(
            lambda entries, filesz: notes(*entries, filesz=filesz),
            st.lists(
                st.sampled_from([BUILD_ID, pvh_entry(0x1000), pvh_reloc(4096, 1, 2), bytes(40)])
            ),
            st.one_of(st.none(), st.integers(0, 200), U64),
        ),
        st.builds(Segment, st.integers(0, 8), CONTENT, ADDRESSES),
    ),
    max_size=5,
)
ELFS = st.builds(lambda segments, entry: elf(*segments, entry=entry), SEGMENTS, ADDRESSES)
U32 = st.integers(0, (1 << 32) - 1)
BZIMAGES = st.builds(
    bzimage,
    CONTENT,
    sectors=st.integers(2, 6),
    setup_sects=st.one_of(st.integers(0, 6), st.integers(0, 255)),
    code32_start=st.one_of(st.integers(0, 0x9000), U32),
    kernel_alignment=U32,
    relocatable_kernel=st.integers(0, 1),
    version=st.integers(0x1FF, 0x210),
    pref_address=U64,
    init_size=U32,
)
IMAGES = st.builds(
    image,
    st.sampled_from([ARM64, RISCV64]),
    text_offset=ADDRESSES,
    image_size=U64,
    flags=U64,
    size=st.integers(0, 400),
)
DAMAGE = st.lists(
    st.tuples(st.integers(0, 700), st.one_of(st.binary(max_size=8), st.integers(0, 60))),
    max_size=3,
)
OFFSETS = st.one_of(st.none(), ADDRESSES, st.sampled_from([0, 0x20_0000]))


def damaged(content: bytes, damage: list[tuple[int, bytes | int]]) -> bytes:
    """`content` with bytes replaced, or cut off that many bytes before the end."""
    for place, what in damage:
        if isinstance(what, int):
            content = content[: max(len(content) - what, 0)]
        else:
            start = place % (len(content) + 1)
            content = content[:start] + what + content[start + len(what) :]
    return content


def check(action: Callable[[GuestMemory], KernelLoaderResult | None]) -> None:
    """A refusal is a LoaderError of one line and leaves memory alone; an answer is consistent."""
    with GuestMemory(BANKS) as memory:
        try:
            result = action(memory)
        except LoaderError as error:
            assert str(error).isprintable()
            assert list(memory.data_extents()) == []
            return
        if result is not None:
            assert all(finding.sentence.isprintable() for finding in result.findings)
            for written in memory.data_extents():
                assert result.footprint.size
                assert result.footprint.start < written.end
                assert written.start < result.footprint.end


@given(ELFS, DAMAGE, OFFSETS, OFFSETS)
def test_damaged_elf(
    content: bytes,
    damage: list[tuple[int, bytes | int]],
    kernel_offset: int | None,
    highmem_start: int | None,
) -> None:
    content = damaged(content, damage)
    check(
        lambda memory: Elf().load(
            memory, content, kernel_offset=kernel_offset, highmem_start=highmem_start
        )
    )


@given(BZIMAGES, DAMAGE, OFFSETS, OFFSETS)
def test_damaged_bzimage(
    content: bytes,
    damage: list[tuple[int, bytes | int]],
    kernel_offset: int | None,
    highmem_start: int | None,
) -> None:
    content = damaged(content, damage)
    check(
        lambda memory: BzImage().load(
            memory, content, kernel_offset=kernel_offset, highmem_start=highmem_start
        )
    )


@given(IMAGES, DAMAGE, OFFSETS)
def test_damaged_image(
    content: bytes, damage: list[tuple[int, bytes | int]], kernel_offset: int | None
) -> None:
    content = damaged(content, damage)
    check(lambda memory: Pe().load(memory, content, kernel_offset=kernel_offset))


@given(CONTENT, ADDRESSES)
def test_any_device_tree(content: bytes, address: int) -> None:
    check(lambda memory: load_dtb(memory, address, content))
