"""What the default matrix claims, per kernel: read it as a table.

Offsets are linux-loader's kernel_offset: added to the addresses of an ELF kernel, the load address
of a bzImage, the base of an Image (its RAM begins at 1 GiB on `virt`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from harness.case import Case, Expectation
from harness.realise import Placement
from harness.verdict import Verdict
from kernels import Kind, load_catalog
from loader.address import GIB, KIB, MIB
from loader.result import PvhState

TIB: Final = 1 << 40
RAM: Final = GIB  # where RAM begins on `virt`


def kernels(arch: str) -> list[str]:
    """The kernels of the default set for an architecture."""
    return [entry.name for entry in load_catalog().default(arch) if entry.kind is Kind.KERNEL]


def _elf(kernel: str, protocol: str, offset: int | None, expect: Expectation) -> Case:
    return Case("x86_64", kernel, "elf", protocol, offset, expect=expect)


def _image(kernel: str, offset: int | None, expect: Expectation = Expectation()) -> Case:
    return Case("aarch64", kernel, "image", "arm64", offset, expect=expect)


# --- x86_64: what boots ------------------------------------------------------------------------


def elf_linux64(kernel: str) -> list[Case]:
    """vmlinux through the 64-bit protocol: it runs where it was linked, plus the offset."""
    present = Expectation(pvh=PvhState.PRESENT)
    ignored = Expectation(pvh=PvhState.IGNORED)
    offsets = (0, 2 * MIB, 16 * MIB, 256 * MIB)
    return [
        _elf(kernel, "linux64", None, present),
        *(_elf(kernel, "linux64", offset, ignored) for offset in offsets),
    ]


def pvh(kernel: str) -> list[Case]:
    """The three states of the PVH capability, and the boot each of them leads a VMM to."""
    present = Expectation(pvh=PvhState.PRESENT, protocol="pvh")
    ignored = Expectation(pvh=PvhState.IGNORED, protocol="linux64")
    absent = Expectation(pvh=PvhState.NOT_PRESENT, protocol="linux64")
    auto = _elf(kernel, "auto", None, present)
    return [
        _elf(kernel, "pvh", None, present),
        *(
            replace(auto, claim="pvh-ignored", offset=offset, expect=ignored)
            for offset in (0, 16 * MIB)
        ),
        replace(auto, claim="pvh-not-present", variant="no-pvh-note", expect=absent),
    ]


def pvh_relocated(kernel: str) -> list[Case]:
    """PVH at an offset: Linux 6.12 and newer say in a note that they can; older ones cannot."""
    at = [
        Case("x86_64", kernel, "elf", "pvh", offset, pvh_relocate=True)
        for offset in (2 * MIB, 16 * MIB, 256 * MIB)
    ]
    if kernel.startswith("6.1-"):
        crash = Expectation(Verdict.CPU_RESET, why="its PVH code is linked to one address")
        return [
            *(replace(case, expect=refused("Pvh::NotRelocatable")) for case in at[:1]),
            replace(at[1], unsafe=True, expect=crash),
        ]
    beyond = replace(
        at[0], offset=GIB, memory=2 * GIB, expect=refused("Pvh::NotRelocatable", "0x3fffffff")
    )
    present = Expectation(pvh=PvhState.PRESENT, protocol="pvh")
    return [*(replace(case, expect=present) for case in at), beyond]


def bzimage(kernel: str) -> list[Case]:
    """bzImage through both entries; the decompressor moves the kernel up to a multiple of 2 MiB."""
    return [
        Case("x86_64", kernel, "bzimage", protocol, offset)
        for protocol in ("linux64", "linux32")
        for offset in (None, 16 * MIB, 32 * MIB, 256 * MIB)
    ]


def x86_64_ways(kernel: str) -> list[Case]:
    """Other ways to the same end: RAM as a file, other boards, KASLR left on."""
    elf = _elf(kernel, "pvh", None, Expectation(pvh=PvhState.PRESENT))
    return [
        replace(elf, placement=Placement.MAPPED),
        replace(elf, board="microvm"),
        replace(elf, board="pc", memory=4 * GIB, protocol="linux64"),
        Case(
            "x86_64",
            kernel,
            "bzimage",
            "linux64",
            claim="linux64-kaslr",
            cmdline="console=ttyS0 reboot=t panic=-1",
        ),
    ]


# --- aarch64: what boots -----------------------------------------------------------------------


def image(kernel: str) -> list[Case]:
    """Image at the start of RAM, which QEMU overwrites with its device tree, and above it."""
    return [
        _image(kernel, RAM),
        _image(kernel, RAM + 2 * MIB),
        _image(kernel, RAM + 64 * MIB),
        replace(_image(kernel, RAM + GIB), memory=2 * GIB),
    ]


def aarch64_ways(kernel: str) -> list[Case]:
    """RAM as a file, also at the start of RAM, where a part still has to be staged."""
    return [
        replace(_image(kernel, RAM + offset), placement=Placement.MAPPED) for offset in (0, 2 * MIB)
    ]


# --- what must be refused, or must fail --------------------------------------------------------


def refused(code: str, reason: str | None = None) -> Expectation:
    return Expectation(Verdict.LOAD_REFUSED, code=code, reason=reason)


def x86_64_refusals(kernel: str) -> list[Case]:
    elf = _elf(kernel, "linux64", None, Expectation())
    bz = Case("x86_64", kernel, "bzimage", "linux64")
    return [
        replace(elf, offset=MIB, expect=refused("Protocol::Refused", "multiple of 2 MiB")),
        replace(elf, offset=TIB, expect=refused("Elf::ReadKernelImage")),
        replace(elf, offset=(1 << 64) - MIB, expect=refused("Elf::Overflow")),
        replace(
            elf,
            claim="small-memory",
            memory=24 * MIB,
            expect=refused("Elf::ReadKernelImage", "--memory"),
        ),
        replace(
            elf,
            claim="pvh",
            protocol="pvh",
            offset=0,
            expect=refused("Protocol::Refused", "ignored"),
        ),
        replace(
            elf, claim="truncated", variant="truncated", expect=refused("Elf::ReadKernelImage")
        ),
        replace(
            elf, claim="no-kernel", variant="no-kernel", expect=refused("Assemble::Unloadable")
        ),
        replace(bz, claim="truncated", variant="truncated", expect=refused("Assemble::Truncated")),
        replace(bz, offset=TIB, expect=refused("Bzimage::ReadBzImageCompressedKernel")),
        replace(bz, offset=(1 << 64) - MIB, expect=refused("Bzimage::ReadBzImageCompressedKernel")),
        replace(
            bz, claim="small-memory", memory=32 * MIB, expect=refused("Layout::NoRoom", "--memory")
        ),
    ]


def aarch64_refusals(kernel: str) -> list[Case]:
    at_2m = _image(kernel, RAM + 2 * MIB)
    return [
        _image(kernel, None, refused("Pe::ReadKernelImage", "RAM begins at 0x40000000")),
        _image(kernel, RAM + MIB, refused("Pe::InvalidBaseAddrAlignment")),
        _image(kernel, TIB, refused("Pe::ReadKernelImage")),
        _image(kernel, (1 << 64) - 2 * MIB, refused("Pe::ReadKernelImage")),
        replace(
            at_2m,
            claim="small-memory",
            memory=16 * MIB,
            expect=refused("Pe::ReadKernelImage", "--memory"),
        ),
        replace(
            at_2m, claim="truncated", variant="truncated", expect=refused("Assemble::Truncated")
        ),
        replace(
            at_2m, claim="no-kernel", variant="no-kernel", expect=refused("Assemble::Unloadable")
        ),
    ]


def hangs(kernel: str) -> list[Case]:
    """linux-loader accepts these offsets; the guest then hangs without a word."""
    expect = Expectation(
        Verdict.SILENT, why="the kernel's first page tables have 2 MiB pages; it stops in head_64"
    )
    return [
        replace(_elf(kernel, "linux64", offset, expect), unsafe=True)
        for offset in (4 * KIB, MIB, 3 * MIB)
    ]
