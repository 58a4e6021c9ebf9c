"""Exhibits of what an x86 kernel is told of its machine: memory, CPUs, page tables."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from bootproof.loader.address import GIB, MIB
from bootproof.scenarios.museum import Exhibit
from bootproof.scenarios.museum.linux import ELF, HIGH, KERNEL, PACKED
from bootproof.scenarios.museum.scene import Change, Scene, Setting

MAX: Final = Setting("linux64", cpu="max")
# Higher than a table of four levels maps by luck when it is walked in five.
MAX_HIGH: Final = Setting("linux64", banks=((0, 2 * GIB),), load=1536 * MIB, cpu="max")
TWO: Final = Setting("linux64", cpus=2)
RAM: Final = 63 * MIB
EBDA: Final = 0x9FC00
LOW: Final = ((0, EBDA, 1), (EBDA, 0x60400, 2))
RIGHT: Final = (*LOW, (MIB, RAM, 1))

_CR0_WP, _CR4_LA57, _CR4_SMEP, _CR4_SMAP = 1 << 16, 1 << 12, 1 << 20, 1 << 21
_EFER_NXE, _NX, _USER = 1 << 11, 1 << 63, 4


def e820(*rows: tuple[int, int, int], count: int | None = None) -> Change:
    return lambda scene: scene.e820(*rows, count=count)


# --- tables -------------------------------------------------------------------------------------


def summed(data: bytes, at: int, size: int | None = None) -> bytes:
    """The table with its checksum, the byte at `at`, put right."""
    fixed = bytearray(data)
    length = len(data) if size is None else size
    fixed[at] = (fixed[at] - sum(fixed[:length])) & 0xFF
    return bytes(fixed)


def table(scene: Scene, signature: bytes) -> int:
    """Where an ACPI table lies."""
    place = scene.regions["acpi"]
    return place.start + scene.read("acpi").index(signature)


def acpi(signature: bytes, change: Callable[[bytearray], None], *, checksum: bool = True) -> Change:
    """Bytes of an ACPI table, changed; its checksum is right again unless it is to stay."""

    def spoil(scene: Scene) -> None:
        at = table(scene, signature)
        (size,) = struct.unpack("<I", scene.memory.read(at + 4, 4))
        data = bytearray(scene.memory.read(at, size))
        change(data)
        scene.write(at, summed(bytes(data), 9) if checksum else bytes(data))

    return spoil


def put(offset: int, value: bytes) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[offset : offset + len(value)] = value

    return change


def mp_table(
    cpus: int, *, count: int | None = None, wrong: int = 0, apics: int = 0xFEE00000
) -> bytes:
    """A configuration table with processors, a bus and an I/O APIC."""
    entries = b"".join(
        struct.pack("<BBBBIIQ", 0, i, 0x14, 1 | 2 * (i == 0), 0x600, 0x201, 0) for i in range(cpus)
    )
    entries += struct.pack("<BB6s", 1, 0, b"ISA   ")
    entries += struct.pack("<BBBBI", 2, 0, 0x11, 1, 0xFEC00000)
    said = cpus + 2 if count is None else count
    sizes = 44 + len(entries), 4, 0
    names = b"VMM     ", b"000000000000"
    head = struct.pack("<4sHBB8s12sIHHIHBB", b"PCMP", *sizes, *names, 0, 0, said, apics, 0, 0, 0)
    right = bytearray(summed(head + entries, 7))
    right[7] = (right[7] + wrong) & 0xFF
    return bytes(right)


def floating_pointer(to: int) -> bytes:
    return summed(struct.pack("<4sIBBB5B", b"_MP_", to, 1, 4, *bytes(6)), 10)


def mp(cpus: int = 2, *, to: int = EBDA + 16, at: int = EBDA, **others: int) -> Change:
    """An MP table behind its floating pointer."""

    def change(scene: Scene) -> None:
        scene.write(at, floating_pointer(to))
        scene.write(at + 16, mp_table(cpus, **others))

    return change


def mp_over_acpi(offset: int) -> Change:
    """An MP table for 60 CPUs whose end is `offset` bytes into the ACPI tables."""

    def change(scene: Scene) -> None:
        data = floating_pointer(0) + mp_table(60)
        scene.write(scene.regions["acpi"].start + offset - len(data), data)

    return change


def rsdp_by_scan(scene: Scene) -> None:
    """The RSDP in the last KiB of base memory, where kernels look that are told nothing."""
    place = scene.regions["acpi"]
    scene.write(EBDA, scene.read("acpi")[:36])
    scene.write(place.start, bytes(36))
    scene.write(0x40E, struct.pack("<H", EBDA >> 4))
    scene.zero_page(acpi_rsdp_addr=0)


def xsdt_missed(scene: Scene) -> None:
    """The RSDP leads 4 KiB past the XSDT."""
    rsdp = bytearray(scene.memory.read(EBDA, 36))
    rsdp[24:32] = (int.from_bytes(rsdp[24:32], "little") - 0x1000).to_bytes(8, "little")
    scene.write(EBDA, summed(bytes(rsdp), 32))


def rsdt_alone(scene: Scene) -> None:
    """An RSDT instead of the XSDT, and the RSDP leads to it."""
    at = table(scene, b"XSDT")
    rows = struct.unpack("<2Q", scene.memory.read(at + 36, 16))
    head = b"RSDT" + struct.pack("<IB", 44, 1) + scene.memory.read(at + 9, 27)
    scene.write(at, summed(head + struct.pack("<2I", *rows), 9))
    rsdp = bytearray(scene.memory.read(scene.regions["acpi"].start, 36))
    rsdp[16:20], rsdp[24:32] = struct.pack("<I", at), bytes(8)
    scene.write(scene.regions["acpi"].start, summed(summed(bytes(rsdp), 8, 20), 32))


# --- page tables --------------------------------------------------------------------------------


def five_levels(first: int | None = None) -> Change:
    """CR4.LA57 with a table above the others; `first` is what its entry leads to instead."""

    def change(scene: Scene) -> None:
        leads_to = scene.registers.cr3 if first is None else first
        scene.write(0xE000, struct.pack("<Q", leads_to | 3))
        scene.change(cr3=0xE000, cr4=scene.registers.cr4 | _CR4_LA57)

    return change


def page(address: int, bits: int, *, without: int = 0, **registers: int) -> Change:
    """The entry of the 2 MiB page with an address, changed, and registers beside it."""

    def change(scene: Scene) -> None:
        at = scene.registers.cr3 + 0x2000 + 8 * (address >> 21)
        (entry,) = struct.unpack("<Q", scene.memory.read(at, 8))
        scene.write(at, struct.pack("<Q", entry & ~without | bits))
        values = {name: getattr(scene.registers, name) | more for name, more in registers.items()}
        scene.change(**values)

    return change


def user_pages(scene: Scene) -> None:
    """Every entry of the tables is for users."""
    place = scene.regions["page tables"]
    rows = struct.unpack(f"<{place.size // 8}Q", scene.read("page tables"))
    data = struct.pack(f"<{len(rows)}Q", *(row | _USER if row else 0 for row in rows))
    scene.write(place.start, data)


EXHIBITS: Final = (
    Exhibit(
        "map-has-more",
        *(ELF, "the memory map's last entry says 1 GiB: the map is computed twice", "map-no-ram"),
        e820(*LOW, (MIB, GIB - MIB, 1)),
    ),
    Exhibit(
        "map-has-the-hole",
        *(HIGH, "one entry from 1 MiB on claims the MMIO hole as RAM", "map-no-ram"),
        e820(*LOW, (MIB, 7 * GIB - MIB, 1)),
        "ACRN #2843, cloud-hypervisor PR #6094",
    ),
    Exhibit(
        "map-has-less",
        *(ELF, "the map ends before the kernel and its initrd do", "map-misses"),
        e820(*LOW, (MIB, 16 * MIB, 1)),
    ),
    Exhibit(
        "map-takes-the-kernel",
        *(ELF, "a reserved entry lies over the kernel", "map-misses"),
        e820(*RIGHT, (KERNEL, MIB, 2)),
    ),
    Exhibit(
        "map-takes-the-initrd",
        *(ELF, "the initrd lies in a reserved entry: kernels copy it to where there is RAM"),
        "map-misses",
        e820(*LOW, (MIB, 62 * MIB, 1), (63 * MIB, MIB, 2)),
        tolerated=True,
    ),
    Exhibit(
        "map-without-low-ram",
        *(ELF, "no RAM below 1 MiB is told of, where kernels put the real-mode code", "map-low"),
        e820((0, MIB, 2), (MIB, RAM, 1)),
    ),
    Exhibit(
        "acpi-where-real-mode-goes",
        *(TWO, "ACPI tables lie at the end of the low RAM, which the map leaves to kernels"),
        "acpi-in-ram",
        e820(*RIGHT),
        "microsoft/openvmm PR #3103",
    ),
    Exhibit(
        "map-says-twice",
        *(ELF, "two entries overlap", "map-overlap"),
        e820(*RIGHT, (48 * MIB, MIB, 1)),
        tolerated=True,
    ),
    Exhibit(
        "map-of-200-entries",
        *(ELF, "e820_entries is larger than the table", "map-count"),
        e820(*RIGHT, count=200),
    ),
    Exhibit(
        "map-with-an-empty-entry",
        *(ELF, "an entry has the size 0", "map-empty-entry"),
        e820(*LOW, (0x80000, 0, 1), (MIB, RAM, 1)),
        "ACRN #8617",
        tolerated=True,
    ),
    Exhibit(
        "map-of-one-entry",
        *(ELF, "all of the memory is one entry, which Linux takes for no map", "map-count"),
        e820((0, 64 * MIB, 1)),
    ),
    Exhibit(
        "map-has-the-rom",
        *(ELF, "what is below 1 MiB is all RAM, devices and ROM too", "map-hole"),
        e820((0, MIB, 1), (MIB, RAM, 1)),
        tolerated=True,
    ),
    Exhibit(
        "map-without-ram",
        *(ELF, "all of the memory is of a type that is no RAM", "map-without-ram"),
        e820((0, 64 * MIB, 2)),
    ),
    Exhibit(
        "map-beyond-64-bits",
        *(ELF, "an entry does not end within 64 bits", "map-wraps"),
        e820(*RIGHT, ((1 << 64) - 0x1000, 0x2000, 2)),
    ),
    Exhibit(
        "map-of-half-the-ram",
        *(ELF, "the map leaves out half of the RAM", "map-less"),
        e820(*LOW, (MIB, 31 * MIB, 1), (60 * MIB, 4 * MIB, 1)),
        tolerated=True,
    ),
    Exhibit(
        "mp-table-without-entries",
        *(ELF, "the entry count of the MP table is 0", "mp-table"),
        mp(count=0),
        "firecracker #3045",
        fixed=mp(),
        tolerated=True,
    ),
    Exhibit(
        "mp-table-checksum",
        *(ELF, "the checksum of the MP table is off by one: kernels ignore it", "mp-table"),
        mp(wrong=1),
        fixed=mp(),
    ),
    Exhibit(
        "mp-table-nowhere",
        *(ELF, "the floating pointer leads out of RAM", "mp-table"),
        mp(to=0xFFFF0000),
        fixed=mp(),
    ),
    Exhibit(
        "mp-table-local-apics",
        *(ELF, "the MP table has the local APICs where the I/O APIC is", "mp-table"),
        mp(apics=0xFEC00000),
        fixed=mp(),
    ),
    Exhibit(
        "mp-pointer-checksum",
        *(ELF, "the floating pointer's checksum is wrong: kernels look on", "mp-table"),
        lambda s: s.write(EBDA + 10, b"\0"),
        fixed=mp(),
    ),
    Exhibit(
        "mp-table-not-in-the-map",
        *(ELF, "the memory map ends at 639 KiB, the MP table lies behind that", "map-misses"),
        e820(LOW[0], (MIB, RAM, 1)),
        "firecracker #3044",
        fixed=mp(),
        tolerated=True,
    ),
    Exhibit(
        "mp-table-over-the-rsdp",
        *(TWO, "from some number of CPUs on, the MP table grows over the RSDP", "acpi"),
        mp_over_acpi(24),
        "cloud-hypervisor #1132",
    ),
    Exhibit(
        "mp-table-over-the-madt",
        *(TWO, "the MP table has grown over ACPI tables behind an intact RSDP", "acpi"),
        lambda s: mp_over_acpi(table(s, b"APIC") - s.regions["acpi"].start + 24)(s),
        "cloud-hypervisor #1132",
    ),
    Exhibit(
        "rsdp-too-low",
        *(TWO, "acpi_rsdp_addr is 0x40 too low", "acpi"),
        lambda s: s.zero_page(acpi_rsdp_addr=s.regions["acpi"].start - 0x40),
    ),
    Exhibit(
        "rsdp-by-scan-leads-on",
        *(TWO, "the RSDP that kernels scan for leads 4 KiB past the XSDT", "acpi"),
        xsdt_missed,
        fixed=rsdp_by_scan,
    ),
    Exhibit(
        "rsdp-without-xsdt",
        *(TWO, "an RSDP of revision 2 leads to an RSDT, and to no XSDT", "acpi"),
        rsdt_alone,
        tolerated=True,
    ),
    Exhibit(
        "rsdp-by-scan-checksum",
        *(TWO, "the RSDP that kernels scan for was filled in after its checksum", "acpi"),
        lambda scene: scene.write(EBDA + 9, b"X"),
        fixed=rsdp_by_scan,
    ),
    Exhibit(
        "madt-checksum",
        *(TWO, "the MADT was filled in after its checksum", "acpi"),
        acpi(b"APIC", put(62, b"\7"), checksum=False),
        tolerated=True,
    ),
    Exhibit(
        "madt-one-id-twice",
        *(TWO, "two CPUs have the same APIC id", "acpi"),
        acpi(b"APIC", put(44 + 8 + 3, b"\0")),
    ),
    Exhibit(
        "madt-id-of-all",
        *(TWO, "a CPU has the APIC id 0xff, which means all of them", "acpi"),
        acpi(b"APIC", put(44 + 8 + 3, b"\xff")),
    ),
    Exhibit(
        "madt-entry-length",
        *(TWO, "an entry of the MADT has the length of another type", "acpi"),
        acpi(b"APIC", put(44 + 16 + 1, b"\10")),
    ),
    Exhibit(
        "madt-local-apics",
        *(TWO, "the local APICs are said to be where the I/O APIC is", "acpi"),
        acpi(b"APIC", put(36, struct.pack("<I", 0xFEC00000))),
    ),
    Exhibit(
        "madt-io-apic-nowhere",
        *(TWO, "the I/O APIC has the address 0", "acpi"),
        acpi(b"APIC", put(44 + 16 + 4, bytes(4))),
    ),
    Exhibit(
        "fadt-without-dsdt",
        *(TWO, "the FADT leads to no DSDT", "acpi"),
        acpi(b"FACP", lambda data: (put(40, bytes(4))(data), put(140, bytes(8))(data))[0]),
    ),
    Exhibit(
        "facs-elsewhere",
        *(TWO, "the FADT leads to a FACS that is not there", "acpi"),
        acpi(b"FACP", put(36, struct.pack("<I", 0x30000))),
    ),
    Exhibit(
        "cpus-not-told",
        *(ELF, "two CPUs are handed over, and the kernel is told of one", "cpus"),
        lambda s: s.more_cpus.append(s.registers),
    ),
    Exhibit(
        "cpu-1-runs",
        *(TWO, "the second CPU is not halted: it runs beside the first", "secondary-cpu"),
        lambda s: s.more_cpus.append(replace(s.more_cpus.pop(), rflags=0x202)),
        fixed=lambda s: s.more_cpus.append(s.registers.entered_at(KERNEL + 1)),
    ),
    Exhibit(
        "four-levels-for-five",
        *(MAX_HIGH, "CR4.LA57 is set, the page tables have four levels", "identity-map"),
        lambda s: s.change(cr4=s.registers.cr4 | _CR4_LA57),
        "cloud-hypervisor PR #1309",
    ),
    Exhibit(
        "five-levels-to-nothing",
        *(MAX, "the table of the fifth level leads to a PML4 that maps nothing", "identity-map"),
        five_levels(0xD000),
        fixed=five_levels(),
    ),
    Exhibit(
        "read-only-kernel",
        *(ELF, "the kernel's pages are read-only, and CR0.WP is set", "mapped-read-only"),
        page(KERNEL + 2 * MIB, 0, without=2),
        fixed=lambda s: s.change(cr0=s.registers.cr0 | _CR0_WP),
    ),
    Exhibit(
        "no-execute-at-the-entry",
        *(ELF, "the page of the first instruction is not executable", "mapped-no-execute"),
        page(KERNEL, _NX),
        fixed=lambda s: s.change(efer=s.registers.efer | _EFER_NXE),
    ),
    Exhibit(
        "no-execute-where-the-kernel-moves-to",
        *(PACKED, "the pages that a bzImage moves its own code to are not executable"),
        "mapped-no-execute",
        page(KERNEL + 2 * MIB, _NX, efer=_EFER_NXE),
    ),
    Exhibit(
        "no-execute-not-enabled",
        *(ELF, "bit 63 of a page-table entry is set while EFER.NXE is not", "identity-map"),
        page(KERNEL + 2 * MIB, _NX),
    ),
    Exhibit(
        "unaligned-large-page",
        *(ELF, "a 2 MiB page has an address that is no multiple of 2 MiB", "identity-map"),
        page(KERNEL + 2 * MIB, 0x4000),
    ),
    Exhibit(
        "user-pages-with-smep",
        *(MAX, "the kernel's pages are for users, and CR4.SMEP is set", "mapped-for-users"),
        lambda s: s.change(cr4=s.registers.cr4 | _CR4_SMEP),
        fixed=user_pages,
    ),
    Exhibit(
        "user-pages-with-smap",
        *(MAX, "the kernel's pages are for users, and CR4.SMAP is set", "mapped-for-users"),
        lambda s: s.change(cr4=s.registers.cr4 | _CR4_SMAP),
        fixed=user_pages,
    ),
)
