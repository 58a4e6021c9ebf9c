"""Which cases a kernel's own headers lead to, and which are left out with a reason."""

from __future__ import annotations

import pytest

from bootproof.harness.arch.table import ARCHES
from bootproof.harness.case import Case
from bootproof.harness.cases.derive import Derived, Given, Kernel, LeftOut, derive
from bootproof.harness.cases.schema import case_from_data, case_to_data, contradiction
from bootproof.harness.verdict import Verdict
from bootproof.loader.address import GIB, MIB
from bootproof.loader.inspect import inspect
from bootproof.loader.result import PvhState
from tests.builders.images import bzimage, elf, image, load, notes, pvh_entry, pvh_reloc

START = 16 * MIB
X86, ARM = "x86_64", "aarch64"


def vmlinux(*xen: bytes, size: int = 0x4000) -> bytes:
    """A kernel that takes `size` bytes from 16 MiB on."""
    found = (load(START, b"text" * 64, memsz=size), *((notes(*xen),) if xen else ()))
    return elf(*found, entry=START)


def derived(*forms: bytes, arch: str = X86, given: Given | None = None) -> Derived:
    board = (given or Given()).values.get("board")
    offset = ARCHES[arch].ram_base(board) if arch == ARM else None
    looked = tuple(inspect(form, offset=offset) for form in forms)
    found = derive(Kernel("mine", "/kernels/mine", arch, looked), given or Given())
    ids = [case.id for case in found.cases]
    assert len(ids) == len(set(ids))
    for case in found.cases:
        assert contradiction(case) is None
        assert case_from_data(case_to_data(case)) == case
        assert case.expect.why
        assert (case.expect.code is None) == (case.expect.verdict is Verdict.BOOTED)
    return found


def labels(found: Derived, *, boots: bool | None = None, protocol: str = "") -> list[str]:
    """The ids without what all have in common."""
    return [
        case.id.split("mine-", 1)[1]
        for case in found.cases
        if boots in (None, case.expect.verdict is Verdict.BOOTED) and protocol in case.protocol
    ]


def one(found: Derived, label: str) -> Case:
    (case,) = (case for case in found.cases if case.id.endswith(f"mine-{label}"))
    return case


def reasons(found: Derived) -> list[LeftOut]:
    return list(found.left_out)


# --- vmlinux -------------------------------------------------------------------------------------


def test_vmlinux_without_a_pvh_note() -> None:
    found = derived(vmlinux())
    assert labels(found) == [
        "elf-linux64-none",
        "elf-linux64-+0",
        "elf-linux64-+2M",
        "elf-linux64-+16M",
        "elf-linux64-+256M",
        "elf-linux64-+1M",
        "elf-linux64-+1024G",
        "elf-linux64-+0xfffffffffff00000",
        "elf-small-memory-none",
        "elf-pvh-not-present-none",
        "elf-pvh-none",
    ]
    assert one(found, "elf-linux64-none").expect.pvh is PvhState.NOT_PRESENT
    assert one(found, "elf-linux64-+0").expect.pvh is PvhState.IGNORED
    taken = one(found, "elf-pvh-not-present-none")
    assert (taken.protocol, taken.expect.protocol) == ("auto", "linux64")
    assert one(found, "elf-pvh-none").expect.code == "Protocol::Refused"
    assert one(found, "elf-small-memory-none").memory == 17 * MIB
    assert reasons(found) == []


def test_vmlinux_with_a_pvh_note_that_cannot_be_moved() -> None:
    found = derived(vmlinux(pvh_entry(START + 0x100)))
    assert labels(found, protocol="pvh") == ["elf-pvh-none", "elf-pvh-+0", "elf-pvh-+2M-relocate"]
    assert labels(found, boots=True, protocol="auto") == ["elf-pvh-ignored-+16M"]
    entered = one(found, "elf-pvh-none").expect
    assert (entered.pvh, entered.why) == (PvhState.PRESENT, "its note names the entry 0x1000100")
    assert one(found, "elf-pvh-+2M-relocate").expect.code == "Pvh::NotRelocatable"


def test_both_sides_of_each_edge_of_a_relocation_note() -> None:
    note = pvh_reloc(2 * MIB, START, GIB - 1)
    found = derived(vmlinux(pvh_entry(START), note, size=2 * MIB))
    assert labels(found, boots=True, protocol="pvh") == [
        "elf-pvh-none",
        "elf-pvh-+0-relocate",
        "elf-pvh-+2M-relocate",
        "elf-pvh-+16M-relocate",
        "elf-pvh-+256M-relocate",
        "elf-pvh-last-+1006M-relocate",
    ]
    assert labels(found, boots=False, protocol="pvh") == [
        "elf-pvh-+0",
        "elf-pvh-too-high-+1008M-relocate",
        "elf-pvh-+1M-relocate",
    ]
    last, beyond = (one(found, f"elf-pvh-{n}-relocate") for n in ("last-+1006M", "too-high-+1008M"))
    assert last.offset is not None and last.offset + START + 2 * MIB == GIB
    assert (last.memory, beyond.memory) == (2 * GIB, 2 * GIB)
    assert beyond.expect.reason == "0x3fffffff"


def test_a_narrow_relocation_note_leaves_no_place_but_its_own() -> None:
    """The note that allows 8 MiB from 32 MiB on, in steps of 4 MiB; the kernel is at 16 MiB."""
    found = derived(vmlinux(pvh_entry(START), pvh_reloc(4 * MIB, 32 * MIB, 40 * MIB - 1)))
    assert labels(found, boots=True, protocol="pvh") == [
        "elf-pvh-none",
        "elf-pvh-+16M-relocate",
        "elf-pvh-last-+20M-relocate",
    ]
    assert labels(found, boots=False, protocol="pvh") == [
        "elf-pvh-+0",
        "elf-pvh-too-high-+24M-relocate",
        "elf-pvh-+2M-relocate",
        "elf-pvh-+0-relocate",
    ]
    assert "below 0x2000000" in one(found, "elf-pvh-+0-relocate").expect.why


def test_a_relocation_note_without_a_place_at_all() -> None:
    found = derived(vmlinux(pvh_entry(START), pvh_reloc(2 * MIB, START, START + 0x1000)))
    assert labels(found, boots=True, protocol="pvh") == ["elf-pvh-none"]
    assert "elf-pvh-too-high-+0-relocate" in labels(found, boots=False)


def test_a_relocation_note_without_values_reaches_beyond_this_guests_ram() -> None:
    found = derived(vmlinux(pvh_entry(START), pvh_reloc()))
    assert reasons(found) == [
        LeftOut(
            "elf, pvh, the last place that the note allows",
            "the note allows places up to 0xffffffff, more than this guest's RAM",
        )
    ]


# --- bzImage -------------------------------------------------------------------------------------


def test_bzimage_through_both_entries() -> None:
    found = derived(bzimage())
    assert labels(found) == [
        "bzimage-linux64-none",
        "bzimage-linux64-at16M",
        "bzimage-linux64-at32M",
        "bzimage-linux64-at256M",
        "bzimage-linux64-at1024G",
        "bzimage-linux64-at0xfffffffffff00000",
        "bzimage-small-memory-none",
        "bzimage-linux32-none",
        "bzimage-linux32-at16M",
        "bzimage-linux32-at32M",
        "bzimage-linux32-at256M",
    ]
    assert reasons(found) == []


def test_bzimage_without_a_64_bit_entry() -> None:
    found = derived(bzimage(xloadflags=0))
    assert {case.protocol for case in found.cases} == {"linux32"}
    assert reasons(found) == [LeftOut("bzimage, linux64", "its header offers no such entry")]


def test_bzimage_that_is_not_relocatable() -> None:
    found = derived(bzimage(relocatable_kernel=0), vmlinux(pvh_entry(START), pvh_reloc()))
    why = "relocatable_kernel is 0 in the setup header: no other place is promised"
    assert reasons(found) == [
        LeftOut("bzimage at another load address", why),
        LeftOut("elf at an offset", why),
    ]
    assert labels(found, boots=True) == [
        "bzimage-linux64-none",
        "bzimage-linux32-none",
        "elf-linux64-none",
        "elf-pvh-none",
    ]


@pytest.mark.parametrize("alignment", [0, 0x300000])
def test_bzimage_with_an_alignment_that_is_none(alignment: int) -> None:
    found = derived(bzimage(kernel_alignment=alignment))
    assert labels(found, boots=True) == ["bzimage-linux64-none", "bzimage-linux32-none"]
    why = f"kernel_alignment {alignment:#x} is not a power of two: no address is known as legal"
    assert reasons(found) == [LeftOut("bzimage at another load address", why)]


def test_bzimage_with_a_large_alignment_and_a_smaller_one_that_will_do() -> None:
    found = derived(bzimage(kernel_alignment=16 * MIB, min_alignment=21, pref_address=24 * MIB))
    boots = labels(found, boots=True, protocol="linux64")
    assert boots == [
        "bzimage-linux64-none",
        "bzimage-linux64-at24M",
        "bzimage-linux64-at32M",
        "bzimage-linux64-at256M",
        "bzimage-linux64-at258M",
    ]
    assert "min_alignment" in one(found, "bzimage-linux64-at258M").expect.why


def test_bzimage_of_an_old_protocol_promises_no_place_and_no_size() -> None:
    found = derived(bzimage(version=0x204))
    assert labels(found, boots=True) == ["bzimage-linux32-none"]
    assert [left_out.what for left_out in found.left_out] == [
        "bzimage, linux64",
        "bzimage at another load address",
        "bzimage with too little memory",
    ]


@pytest.mark.parametrize(("init_size", "memory"), [(48 * MIB, 63), (48 * MIB + 1, 64)])
def test_one_mebibyte_less_than_init_size_asks_for(init_size: int, memory: int) -> None:
    case = one(derived(bzimage(init_size=init_size)), "bzimage-small-memory-none")
    assert (case.memory, case.expect.code) == (memory * MIB, "Layout::NoRoom")


def test_a_kernel_that_needs_much_memory_gets_it_or_is_left_out() -> None:
    found = derived(bzimage(init_size=600 * MIB))
    assert one(found, "bzimage-linux64-none").memory == GIB
    assert one(found, "bzimage-linux64-at256M").memory == GIB
    found = derived(bzimage(init_size=1900 * MIB))
    assert "bzimage-linux64-none" in labels(found)
    assert reasons(found)[0] == LeftOut(
        "bzimage, linux64, offset 256M", "it would need more than 2 GiB of RAM"
    )


# --- Image ---------------------------------------------------------------------------------------


def test_image() -> None:
    found = derived(image(size=2 * MIB, image_size=3 * MIB), arch=ARM)
    assert labels(found) == [
        "image-arm64-ram+0",
        "image-arm64-ram+2M",
        "image-arm64-ram+64M",
        "image-arm64-ram+1G",
        "image-arm64-none",
        "image-arm64-ram+1M",
        "image-arm64-ram+1023G",
        "image-arm64-ram+0xffffffffbfe00000",
        "image-small-memory-ram+0",
    ]
    assert {case.cpu for case in found.cases} == {None}
    assert one(found, "image-arm64-ram+1G").memory == 2 * GIB
    starved = one(found, "image-small-memory-ram+0")
    assert (starved.memory, starved.expect.code) == (2 * MIB, "Layout::NoRoom")


def test_image_on_a_board_whose_ram_begins_at_0() -> None:
    given = Given({"board": "xlnx-zcu102"})
    found = derived(image(size=2 * MIB, image_size=3 * MIB), arch=ARM, given=given)
    booting = [case.offset for case in found.cases if case.expect.verdict is Verdict.BOOTED]
    assert booting == [None, 0, 2 * MIB, 64 * MIB, GIB]
    starved = one(found, "image-small-memory-+0-xlnx-zcu102")
    assert (starved.memory, starved.expect.code) == (2 * MIB, "Layout::NoRoom")


def test_image_with_text_offset_is_larger_from_its_base() -> None:
    found = derived(image(size=MIB, image_size=3 * MIB, text_offset=0x80000), arch=ARM)
    assert one(found, "image-small-memory-ram+0").memory == 3 * MIB


def test_image_that_must_be_near_the_start_of_ram() -> None:
    found = derived(image(flags=0x2, image_size=2 * MIB), arch=ARM)
    assert labels(found, boots=True) == ["image-arm64-ram+0"]
    assert reasons(found)[0].why.startswith("its flags say that it must be as near")


def test_image_that_does_not_say_its_size() -> None:
    found = derived(image(image_size=0), arch=ARM)
    assert reasons(found) == [
        LeftOut(
            "image with too little memory",
            "its header has no image_size: what it needs is not known",
        )
    ]


# --- what the user gives -------------------------------------------------------------------------


def test_command_line_and_initrd_go_to_every_guest() -> None:
    given = Given({"cmdline": "console=ttyS0 quiet", "initrd": "/tmp/initrd"}, 400 * MIB)
    found = derived(bzimage(), vmlinux(), given=given)
    assert {(case.cmdline, case.initrd) for case in found.cases} == {
        ("console=ttyS0 quiet", "/tmp/initrd")
    }
    assert one(found, "bzimage-linux64-none").memory == GIB
