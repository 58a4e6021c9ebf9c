"""The digest of a boot image: equal for equal starts, whatever the files look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bootproof.loader.address import MIB, Range
from bootproof.loader.arch.aarch64 import Arm64Registers
from bootproof.loader.bootimage import BootImage
from bootproof.loader.imagedigest import digest
from bootproof.loader.layout import Region
from bootproof.loader.memory import Bank, GuestMemory

BANKS = ((MIB, MIB), (8 * MIB, 3 * 4096))


def made(
    writes: Sequence[tuple[int, bytes]],
    banks: Sequence[Bank | tuple[int, int]] = BANKS,
    pc: int = MIB,
    name: str = "kernel",
) -> str:
    with GuestMemory(banks) as memory:
        for address, data in writes:
            memory.write(address, data)
        image = BootImage(
            arch="aarch64",
            protocol="arm64",
            banks=memory.banks,
            cpus=(Arm64Registers(pc=pc),),
            regions=(Region(name, Range(MIB, 4096)),),
            provenance={"kernel": name},
        )
        return digest(image, memory)


DATA = [(MIB + 5, b"kernel"), (8 * MIB + 8000, b"end")]
PLAIN = made(DATA)


def test_same_start_has_the_same_digest() -> None:
    assert made(DATA) == PLAIN
    assert made(list(reversed(DATA))) == PLAIN


def test_where_the_file_is_sparse_does_not_matter() -> None:
    assert made([(MIB, bytes(MIB)), *DATA]) == PLAIN
    assert made([(8 * MIB, bytes(3 * 4096)), *DATA]) == PLAIN


def test_where_the_banks_lie_in_the_file_does_not_matter() -> None:
    assert made(DATA, list(reversed(BANKS))) == PLAIN
    apart = [Bank(MIB, MIB, 4 * MIB), Bank(8 * MIB, 3 * 4096, 0)]
    assert made(DATA, apart) == PLAIN


def test_names_and_origin_do_not_matter() -> None:
    assert made(DATA, name="something else") == PLAIN


def test_everything_the_guest_can_see_matters() -> None:
    others = [
        made([(MIB + 5, b"kerneL"), DATA[1]]),
        made([(MIB + 6, b"kernel"), DATA[1]]),
        made([DATA[0], (8 * MIB + 8001, b"end")]),
        made(DATA[:1]),
        made([(MIB, b"alike")]),
        made([(MIB + (64 << 10), b"alike")]),
        made(DATA, pc=MIB + 4),
        made(DATA, ((MIB, 2 * MIB), BANKS[1])),
        # The same bytes, a bank further.
        made([(2 * MIB - 4, b"12345678")], ((MIB, MIB), (2 * MIB, MIB))),
        made([(2 * MIB - 4, b"1234"), (4 * MIB, b"5678")], ((MIB, MIB), (4 * MIB, MIB))),
    ]
    assert len({PLAIN, *others}) == len(others) + 1


def test_cpus_matter() -> None:
    with GuestMemory(BANKS) as memory:
        one = BootImage("aarch64", "arm64", memory.banks, (Arm64Registers(pc=MIB),))
        two = replace(one, cpus=one.cpus * 2)
        assert digest(one, memory) != digest(two, memory)
