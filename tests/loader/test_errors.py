"""The tree of refusals: codes, one-line messages, where a fault is."""

from __future__ import annotations

import pickle

import pytest

from bootproof import loader
from bootproof.loader import errors
from bootproof.loader.errors import LoaderError

# Every variant of linux-loader 0.14: load, load_cmdline, load_dtb, Cmdline, configurators.
VARIANTS = {
    "": """
        InvalidCommandLine CommandLineCopy CommandLineOverflow InvalidKernelStartAddress
        MemoryOverflow MissingStartAddress Overflow InvalidAddress
        """,
    "Elf::": """
        Align BigEndianElfOnLittle InvalidElfMagicNumber InvalidProgramHeaderSize
        InvalidProgramHeaderOffset InvalidProgramHeaderAddress InvalidEntryAddress Overflow
        ReadElfHeader ReadKernelImage ReadProgramHeader SeekKernelStart SeekElfStart
        SeekProgramHeader SeekNoteHeader ReadNoteHeader InvalidPvhNote
        """,
    "Bzimage::": """
        InvalidBzImage Overflow ReadBzImageHeader ReadBzImageCompressedKernel SeekBzImageEnd
        SeekBzImageHeader SeekBzImageCompressedKernel Underflow
        """,
    "Pe::": """
        SeekImageEnd SeekImageHeader SeekDtbStart SeekDtbEnd DtbTooBig ReadKernelImage
        ReadImageHeader ReadDtbImage InvalidImage InvalidImageMagicNumber InvalidBaseAddrAlignment
        """,
    "Cmdline::": """
        NullTerminator NoBootArgsInserted InvalidCapacity InvalidAscii HasSpace HasEquals
        MissingVal MmioSize TooLarge NoQuoteSpace InvalidQuote
        """,
    "Linux::": "ZeroPagePastRamEnd ZeroPageSetup",
    "Pvh::": """
        MemmapTableMissing MemmapTableAddressMissing MemmapTablePastRamEnd MemmapTableSetup
        StartInfoPastRamEnd StartInfoSetup ModulesAddressMissing ModulesSetup
        """,
    "Fdt::": "FDTPastRamEnd WriteFDTToMemory",
}
CRATE_CODES = {group + name for group, names in VARIANTS.items() for name in names.split()}
OUR_CODES = {
    "GuestMemory",
    "Image::Missing",
    "Image::IsDirectory",
    "Image::NotRegular",
    "Image::Empty",
    "Image::Unreadable",
}


def all_errors() -> list[type[LoaderError]]:
    return [kind for kind in LoaderError.__subclasses__() if kind.__module__ == errors.__name__]


def test_every_variant_of_linux_loader_has_its_class() -> None:
    codes = [kind.code for kind in all_errors()]
    assert sorted(codes) == sorted(CRATE_CODES | OUR_CODES)


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.code)
def test_code_is_the_place_in_the_tree(kind: type[LoaderError]) -> None:
    place: object = errors
    for name in kind.code.split("::"):
        place = getattr(place, "GuestMemoryError" if name == "GuestMemory" else name)
    assert place is kind
    assert kind.__doc__
    assert kind.summary != LoaderError.summary


def test_loaders_carry_their_refusals() -> None:
    assert loader.Elf.InvalidPvhNote is errors.Elf.InvalidPvhNote
    assert loader.BzImage.Underflow is loader.Bzimage.Underflow is errors.Bzimage.Underflow
    assert loader.Pe.InvalidBaseAddrAlignment is errors.Pe.InvalidBaseAddrAlignment
    assert loader.Cmdline.TooLarge is errors.Cmdline.TooLarge


def test_message_is_file_detail_and_advice() -> None:
    error = errors.Elf.ReadKernelImage(
        "PT_LOAD[2] needs guest RAM 0x10-0x1f but RAM ends at 0xf",
        file="vmlinux",
        advice="give the guest at least 1 MiB (--memory)",
    )
    assert str(error) == (
        "vmlinux: PT_LOAD[2] needs guest RAM 0x10-0x1f but RAM ends at 0xf; "
        "give the guest at least 1 MiB (--memory)"
    )


def test_message_without_detail_is_made_from_the_fields() -> None:
    error = errors.Pe.DtbTooBig(file="a.dtb", field="totalsize", value=0x300000, limit=0x200000)
    assert str(error) == (
        "a.dtb: the device tree is too big: totalsize is 0x300000, the limit is 0x200000"
    )
    assert str(errors.MemoryOverflow()) == "guest memory is too small for the kernel"
    assert str(errors.Cmdline.MissingVal(value="key")).endswith("has no value: key")


def test_message_stays_on_one_line() -> None:
    error = LoaderError("strange\tname", file="a\nb\x1b[31m")
    assert str(error) == "a\\nb\\x1b[31m: strange\\tname"


def test_fields_survive_another_process() -> None:
    error = errors.Elf.InvalidPvhNote("too short", file="vmlinux", offset=4, value=3, limit=4)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert vars(again) == vars(error)
    assert str(again) == str(error)


def test_other_modules_derive_their_own() -> None:
    class NoRoom(LoaderError):
        code = "Layout::NoRoom"

    assert NoRoom("no room", value=1).code == "Layout::NoRoom"
    assert str(NoRoom()) == LoaderError.summary
