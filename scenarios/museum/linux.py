"""Exhibits of the boot protocols of x86 Linux: entry, zero page, command line, initrd."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Final

from bootproof.loader.address import GIB, MIB, Range, align_up
from bootproof.loader.arch.x86_64 import DescriptorTable, Segment
from bootproof.scenarios.museum import Exhibit
from bootproof.scenarios.museum.scene import CMDLINE, SPLIT, Change, Scene, Setting

ELF: Final = Setting("linux64")
PACKED: Final = Setting("linux64", packed=True)
PACKED32: Final = Setting("linux32", packed=True)
MOVED: Final = Setting("linux64", packed=True, load=8 * MIB)
MOVED32: Final = Setting("linux32", packed=True, load=8 * MIB)
UNALIGNED: Final = Setting("linux64", packed=True, load=24 * MIB + 0x1000)
HIGH: Final = Setting("linux64", banks=SPLIT, board="q35")
HIGH32: Final = Setting("linux32", packed=True, banks=SPLIT, board="q35")
LARGE: Final = Setting("linux64", banks=((0, 2560 * MIB),))
KERNEL: Final = 16 * MIB
FREE: Final = 0x200_0000


def initrd_at(address: int, *, high: int = 0, size: int | None = None) -> Change:
    """The initrd's bytes to another place, and the zero page says so."""

    def change(scene: Scene) -> None:
        scene.move("initrd", address)
        told = scene.regions["initrd"].size if size is None else size
        low = address & 0xFFFFFFFF
        scene.zero_page(ramdisk_image=low, ramdisk_size=told, ext_ramdisk_image=high)

    return change


def told_initrd(address: int, size: int) -> Change:
    """The zero page tells of an initrd that nobody put there, and boot.json of none."""

    def change(scene: Scene) -> None:
        scene.regions.pop("initrd")
        scene.zero_page(ramdisk_image=address, ramdisk_size=size)

    return change


def cmdline(text: bytes, address: int = 0x20000, *, high: int = 0) -> Change:
    def change(scene: Scene) -> None:
        scene.write(scene.regions["cmdline"].start, bytes(scene.regions["cmdline"].size))
        scene.write(address, text + b"\0")
        scene.regions["cmdline"] = Range(address, len(text) + 1)
        scene.zero_page(cmd_line_ptr=address & 0xFFFFFFFF, ext_cmd_line_ptr=high)

    return change


def zero_page_at(address: int) -> Change:
    def change(scene: Scene) -> None:
        scene.move("boot_params", address)
        scene.change(rsi=address)

    return change


def tables_at(address: int) -> Change:
    """The page tables to another place, their entries with them."""

    def change(scene: Scene) -> None:
        old = scene.regions["page tables"]
        data = bytearray(scene.read("page tables"))
        for offset in range(0, 0x2000, 8):
            (entry,) = struct.unpack_from("<Q", data, offset)
            if entry:
                struct.pack_into("<Q", data, offset, entry - old.start + address)
        scene.write(old.start, bytes(old.size))
        scene.write(address, bytes(data))
        scene.regions["page tables"] = Range(address, old.size)
        scene.change(cr3=address)

    return change


def kernel_initrd_unnamed(scene: Scene) -> None:
    initrd_at(KERNEL - 0x40000)(scene)
    scene.regions.pop("kernel")
    scene.regions.pop("initrd")


def setup_data(*nodes: tuple[int, int, int, bytes]) -> Change:
    """Nodes of setup_data: address, next, type and data."""

    def change(scene: Scene) -> None:
        for address, following, kind, data in nodes:
            scene.write(address, struct.pack("<QII", following, kind, len(data)) + data)
        scene.zero_page(setup_data=nodes[0][0])

    return change


def indirect(address: int) -> Change:
    """A node of setup_data whose data lies elsewhere."""
    where = struct.pack("<2I2Q", 9 | 1 << 31, 0, 32, address)
    return setup_data((0x20000, 0, 1 << 31, where))


def blob(scene: Scene) -> None:
    """A CC blob, of which nothing is read but its magic."""
    scene.write(0x30000, b"AMDE")
    setup_data((0x20000, 0, 7, struct.pack("<I", 0x30000)))(scene)


def efi_info(table: int, descriptor: int, signature: bytes = b"") -> Change:
    """What a kernel is told of UEFI: its system table, and three descriptors behind it."""

    def change(scene: Scene) -> None:
        scene.write(table, signature)
        told = table, descriptor, 1, table + 0x1000, 3 * descriptor, 0, 0
        scene.zero_page(efi_info=struct.pack("<4s7I", b"EL64", *told))

    return change


def dirty_zero_page(scene: Scene) -> None:
    page = scene.page
    scene.write(scene.registers.rsi, b"\xff" * 0x1E8)
    scene.write(scene.registers.rsi + 0x1E9, b"\xff" * 8)
    scene.zero_page(acpi_rsdp_addr=page.acpi_rsdp_addr)


def no_gdt(scene: Scene) -> None:
    scene.write(scene.registers.gdtr.base, bytes(scene.registers.gdtr.limit + 1))


def cut_archive(scene: Scene) -> None:
    """The last pages of the initrd were not copied."""
    place = scene.regions["initrd"]
    scene.write(place.end - 0x200, bytes(0x200))


def with_sums(more: int) -> Change:
    """The initrd's first member with a checksum, which is `more` than that of its bytes."""

    def change(scene: Scene) -> None:
        start, data = scene.regions["initrd"].start, scene.read("initrd")
        size, name = int(data[54:62], 16), int(data[94:102], 16)
        content = align_up(110 + name, 4)
        total = sum(data[content : content + size]) + more
        scene.write(start, b"070702" + data[6:102] + b"%08x" % total)

    return change


def zeros_first(scene: Scene) -> None:
    """Two pages of zeros before the archive belong to the initrd, as buffer-format.rst allows."""
    place = scene.regions["initrd"]
    whole = scene.regions["initrd"] = Range.between(place.start - 0x2000, place.end)
    scene.zero_page(ramdisk_image=whole.start, ramdisk_size=whole.size)


EXHIBITS: Final = (
    Exhibit(
        "entry-in-nothing",
        *(ELF, "a raw load puts entry and kernel at fixed addresses that do not fit", "entry"),
        lambda s: s.change(rip=0x80_0000),
        "tinylabscom/mvm #3532, firecracker PR #418",
    ),
    Exhibit(
        "entry-32-for-64",
        *(PACKED, "the CPU is in 64-bit mode at the 32-bit entry of a bzImage", "entry"),
        lambda s: s.change(rip=MIB),
    ),
    Exhibit(
        "entry-64-for-32",
        *(PACKED32, "the CPU is in 32-bit mode at the 64-bit entry of a bzImage", "entry"),
        lambda s: s.change(rip=MIB + 0x200),
    ),
    Exhibit(
        "idt-in-the-hole",
        *(ELF, "the IDT of the VMM's own is left in IDTR, where the guest has no RAM", "idt"),
        lambda s: s.change(idtr=DescriptorTable(0xFE000000, 0xFFF)),
        tolerated=True,
    ),
    Exhibit(
        "no-selectors",
        *(ELF, "the segments are set, and their selectors are left as a reset has them"),
        "null-selector",
        lambda s: s.change(**{name: Segment(0) for name in ("ds", "es", "fs", "gs", "ss")}),
        tolerated=True,
    ),
    Exhibit(
        "no-data-segments",
        *(ELF, "DS, ES and SS are null, as 64-bit code may have them", "ds-type"),
        lambda s: s.change(**{n: Segment(0, limit=0, attributes=0) for n in ("ds", "es", "ss")}),
        tolerated=True,
    ),
    Exhibit(
        "another-selector",
        *(ELF, "CS is right, but its selector is not __BOOT_CS", "cs-selector"),
        lambda s: s.change(cs=replace(s.registers.cs, selector=0x28)),
        tolerated=True,
    ),
    Exhibit(
        "no-long-mode",
        *(ELF, "the CPU is in 64-bit paging by CR0 and CR4, not by EFER", "long-mode"),
        lambda s: s.change(efer=0),
    ),
    Exhibit(
        "single-step",
        *(ELF, "the trap flag is left set, and there is no IDT", "eflags-tf"),
        lambda s: s.change(rflags=0x102),
    ),
    Exhibit(
        "16-bit-stack",
        *(PACKED32, "SS is read/write from 0 to 4 GiB, but for 16 bits", "ss-32-bit"),
        lambda s: s.change(ss=Segment(0x28, attributes=0x8093)),
        tolerated=True,
    ),
    Exhibit(
        "32-bit-code-segment",
        *(ELF, "the 64-bit entry with a 32-bit code segment", "cs-64-bit"),
        lambda s: s.change(cs=replace(s.registers.cs, attributes=0xC09B)),
    ),
    Exhibit(
        "code-segment-of-no-size",
        *(ELF, "CS is of 64 and of 32 bits at once: its descriptor has L and D", "cs-64-bit"),
        lambda s: s.change(cs=replace(s.registers.cs, attributes=0xE09B)),
    ),
    Exhibit(
        "empty-gdt",
        *(ELF, "the segment registers are right, the GDT in memory holds nothing", "gdt"),
        no_gdt,
        tolerated=True,
    ),
    Exhibit(
        "short-gdt",
        *(ELF, "GDTR's limit leaves __BOOT_DS out", "gdt"),
        lambda s: s.change(gdtr=replace(s.registers.gdtr, limit=0x17)),
        tolerated=True,
    ),
    Exhibit(
        "zero-page-whole-sector",
        *(ELF, "the first sectors of the bzImage, 0xff and all, lie over boot_params", "sentinel"),
        dirty_zero_page,
        "sysprog21/kvm-host PR #37",
    ),
    Exhibit(
        "zero-page-not-zeroed",
        *(ELF, "boot_params was not zeroed first: the sentinel says so", "sentinel"),
        lambda s: s.zero_page(sentinel=0xFF),
        "sysprog21/kvm-host PR #37",
    ),
    Exhibit(
        "setup-header-cut",
        *(PACKED, "the end of the setup header is miscounted: init_size is lost", "setup-header"),
        lambda s: s.zero_page(pref_address=0, init_size=0, handover_offset=0),
        "intel/kernelflinger PR #101",
    ),
    Exhibit(
        "setup-header-without-magic",
        *(PACKED, "neither HdrS nor 0xaa55 in the setup header", "setup-header-magic"),
        lambda s: s.zero_page(header=0, boot_flag=0, version=0),
        tolerated=True,
    ),
    Exhibit(
        "aligned-too-little",
        *(UNALIGNED, "kernel_alignment is lowered below min_alignment", "alignment"),
        lambda s: s.zero_page(kernel_alignment=0x1000),
    ),
    Exhibit(
        "cc-blob-left",
        *(ELF, "boot_params was not zeroed first: cc_blob_address leads anywhere", "cc-blob"),
        lambda s: s.zero_page(cc_blob_address=FREE),
    ),
    Exhibit(
        "cc-blob-without-magic",
        *(PACKED, "a node of setup_data leads to no CC blob", "cc-blob"),
        setup_data((0x20000, 0, 7, struct.pack("<I", FREE))),
        fixed=blob,
    ),
    Exhibit(
        "efi-info-left",
        *(PACKED, "efi_info is left from another boot: no system table, no memory map", "efi"),
        efi_info(FREE + 0x10000, 48),
        fixed=efi_info(FREE, 48, b"IBI SYST"),
    ),
    Exhibit(
        "efi-descriptors-of-no-size",
        *(PACKED, "the size of UEFI's memory descriptors is not told", "efi"),
        efi_info(FREE, 0, b"IBI SYST"),
        fixed=efi_info(FREE, 48, b"IBI SYST"),
    ),
    Exhibit(
        "zero-page-in-bss",
        *(ELF, "room for the file, not for the kernel in memory: it clears its BSS", "overlap"),
        zero_page_at(KERNEL + 2 * MIB),
        "systemd #33816",
    ),
    Exhibit(
        "page-tables-over-cmdline",
        *(ELF, "one structure is written over another: the command line is gone", "overlap"),
        lambda s: s.zero_page(cmd_line_ptr=s.regions["page tables"].start + 0x2800),
    ),
    Exhibit(
        "page-tables-over-initrd",
        *(ELF, "one structure is written over another: pages of the initrd are gone", "overlap"),
        lambda s: tables_at(s.regions["initrd"].start + 0x1000)(s),
    ),
    Exhibit(
        "initrd-lost-its-upper-half",
        *(HIGH, "the initrd lies at the end of RAM, above 4 GiB; ext_ramdisk_image is 0", "initrd"),
        lambda s: s.zero_page(ext_ramdisk_image=0),
        "libkrun PR #821",
        fixed=initrd_at(0x13F000000, high=1),
    ),
    Exhibit(
        "initrd-where-the-kernel-unpacks",
        *(PACKED, "the initrd lies right behind the file, which is not all a kernel needs"),
        "overlap",
        initrd_at(KERNEL - 0x40000 + 0x80000),
        "machyve/xhyve #116, moby/hyperkit #63",
    ),
    Exhibit(
        "initrd-where-the-kernel-unpacks-unnamed",
        *(PACKED, "the same without a region in boot.json: the setup header says it all"),
        "overlap",
        kernel_initrd_unnamed,
        "machyve/xhyve #116, moby/hyperkit #63",
    ),
    Exhibit(
        "cmdline-where-the-kernel-unpacks",
        *(PACKED, "the command line lies where the kernel unpacks itself", "overlap"),
        cmdline(CMDLINE, KERNEL + 0x100000),
    ),
    Exhibit(
        "initrd-begins-in-the-hole",
        *(HIGH, "the address comes from the amount of RAM; its last byte is RAM again", "ramdisk"),
        told_initrd(0xFFF00000, 0x1EB000),
        "moby/hyperkit PR #66",
    ),
    Exhibit(
        "initrd-over-the-hole",
        *(HIGH, "both ends of the initrd are RAM, its middle is the MMIO hole", "ramdisk"),
        told_initrd(0x7FF00000, 0x90000000),
        "moby/hyperkit PR #66",
    ),
    Exhibit(
        "initrd-beyond-32-bits",
        *(HIGH, "address and size fit 32 bits, the end does not", "ramdisk"),
        told_initrd(0xFFE00000, 0x300000),
        "moby/hyperkit PR #66",
    ),
    Exhibit(
        "initrd-above-its-limit",
        *(LARGE, "the initrd lies above initrd_addr_max", "initrd-addr-max"),
        initrd_at(0x90000000),
        "rust-hypervisor-firmware #175",
        tolerated=True,
    ),
    Exhibit(
        "cmdline-too-long",
        *(ELF, "the end of the command line, which mattered, is dropped", "cmdline-size"),
        cmdline(CMDLINE + b" filler=" + b"x" * 2500),
        "tinylabscom/mvm PR #1894",
    ),
    Exhibit(
        "cmdline-upper-half-of-ones",
        *(ELF, "ext_cmd_line_ptr is 0xffffffff", "cmdline"),
        lambda s: s.zero_page(ext_cmd_line_ptr=0xFFFFFFFF),
        "sysprog21/kvm-host PR #37",
    ),
    Exhibit(
        "cmdline-lost-its-upper-half",
        *(HIGH, "the command line lies above 4 GiB, ext_cmd_line_ptr is 0: no RAM", "cmdline"),
        lambda s: s.zero_page(ext_cmd_line_ptr=0),
        fixed=cmdline(CMDLINE, 0x1A0001000, high=1),
    ),
    Exhibit(
        "cmdline-in-zeros",
        *(HIGH, "the same where the lower half alone is RAM: an empty command line", "region"),
        lambda s: s.zero_page(ext_cmd_line_ptr=0),
        fixed=cmdline(CMDLINE, 0x140001000, high=1),
    ),
    Exhibit(
        "cmdline-above-4-gib-for-32-bits",
        *(HIGH32, "the kernel is entered in 32 bits, its command line lies above 4 GiB"),
        "above-4-gib",
        cmdline(CMDLINE, 0x1A0001000, high=1),
    ),
    Exhibit(
        "no-64-bit-entry",
        *(PACKED, "a kernel without XLF_KERNEL_64 is entered at 0x200", "xloadflags"),
        lambda s: s.zero_page(xloadflags=2),
    ),
    Exhibit(
        "kernel-above-4-gib-unasked",
        *(Setting("linux64", packed=True, banks=SPLIT, board="q35", load=5 * GIB),),
        "the kernel lies above 4 GiB, XLF_CAN_BE_LOADED_ABOVE_4G is not set",
        "xloadflags",
        lambda s: s.zero_page(xloadflags=1),
        "systemd PR #27474",
    ),
    Exhibit(
        "initrd-above-4-gib-unasked",
        *(Setting("linux64", packed=True, banks=SPLIT, board="q35"),),
        "the initrd lies above 4 GiB, XLF_CAN_BE_LOADED_ABOVE_4G is not set",
        "xloadflags",
        lambda s: s.zero_page(xloadflags=1),
        fixed=initrd_at(0x13F000000, high=1),
    ),
    Exhibit(
        "not-relocatable",
        *(MOVED, "relocatable_kernel is 0, and the kernel lies elsewhere", "not-relocatable"),
        lambda s: s.zero_page(relocatable_kernel=0),
        tolerated=True,
    ),
    Exhibit(
        "older-than-relocation",
        *(MOVED32, "a kernel of before there was relocation does not lie at 1 MiB"),
        "not-relocatable",
        lambda s: s.zero_page(version=0x204),
    ),
    Exhibit(
        "loaded-low",
        *(PACKED, "loadflags lacks LOADED_HIGH although the kernel is at 1 MiB", "loadflags"),
        lambda s: s.zero_page(loadflags=0),
        tolerated=True,
    ),
    Exhibit(
        "code32-start-not-moved",
        *(PACKED32, "the kernel was moved, code32_start was not", "code32-start"),
        lambda s: s.zero_page(code32_start=2 * MIB),
        "rust-vmm/linux-loader #12",
        tolerated=True,
    ),
    Exhibit(
        "another-kernel",
        *(PACKED, "the setup header is that of another bzImage", "payload"),
        lambda s: s.zero_page(payload_offset=0x700),
    ),
    Exhibit(
        "setup-data-outside",
        *(ELF, "the list of setup_data leads out of RAM", "setup-data"),
        lambda s: s.zero_page(setup_data=8 * GIB),
    ),
    Exhibit(
        "setup-data-in-a-circle",
        *(ELF, "the list of setup_data leads back to its first node", "setup-data"),
        setup_data((0x20000, 0x20100, 9, b"seed"), (0x20100, 0x20000, 9, b"seed")),
        fixed=setup_data((0x20000, 0x20100, 9, b"seed"), (0x20100, 0, 9, b"seed")),
    ),
    Exhibit(
        "setup-data-in-the-initrd",
        *(ELF, "a node of setup_data lies in the initrd", "overlap"),
        lambda s: setup_data((s.regions["initrd"].start + 0x1000, 0, 9, b"seed"))(s),
    ),
    Exhibit(
        "setup-indirect-in-the-initrd",
        *(ELF, "data that a node of setup_data leads to lies in the initrd", "overlap"),
        lambda s: indirect(s.regions["initrd"].start + 0x1000)(s),
        fixed=indirect(FREE),
    ),
    Exhibit(
        "initrd-cut",
        *(ELF, "the last bytes of the initrd were not copied: its archive has no end", "initrd"),
        cut_archive,
        fixed=zeros_first,
    ),
    Exhibit(
        "initrd-of-another-format",
        *(ELF, "the initrd is no archive: a U-Boot header was left on it", "initrd"),
        lambda s: s.write(s.regions["initrd"].start, bytes.fromhex("27051956")),
    ),
    Exhibit(
        "initrd-checked-by-crc64",
        *(ELF, "the initrd is packed by xz as it is by default, with a CRC64", "initrd"),
        lambda s: s.write(s.regions["initrd"].start, b"\xfd7zXZ\0\0\4"),
        fixed=lambda s: s.write(s.regions["initrd"].start, b"\xfd7zXZ\0\0\1"),
    ),
    Exhibit(
        "initrd-file-damaged",
        *(ELF, "a file of an archive with checksums was damaged", "initrd"),
        with_sums(1),
        fixed=with_sums(0),
    ),
    Exhibit(
        "initrd-forgotten",
        *(ELF, "the initrd is loaded, the zero page does not tell of it", "not-told"),
        lambda s: s.zero_page(ramdisk_image=0, ramdisk_size=0),
        tolerated=True,
    ),
    Exhibit(
        "regions-overlap",
        *(ELF, "boot.json says that two things lie in one place", "regions"),
        lambda s: s.regions.update({"queue": Range(FREE + 0x800, 0x1000)}),
        fixed=lambda s: s.regions.update({"log": Range(FREE, 0x1000)}),
        tolerated=True,
    ),
)
