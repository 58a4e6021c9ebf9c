"""The known differences between our boots and QEMU's own -kernel: a table, one row per pattern.

Every code stands in docs/compare.md with its reason. A row is as narrow as its reason: a difference
that looks alike but has another cause must stay unexplained. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bootproof.harness.compare.differences import Contrast, Section, Side
from bootproof.harness.guest.memory_map import ABSENT, USABLE
from bootproof.loader.address import GIB, KIB, Range
from bootproof.loader.protocols import linux32, linux64, pvh
from bootproof.loader.protocols.e820 import LEGACY_HOLE

FIRMWARE_TOP: Final = 256 * KIB  # what SeaBIOS may keep for itself at the end of low RAM
TREE_PADDING: Final = 1024 * KIB  # QEMU's device tree is padded to 1 MiB, all of it reserved
KASLR_TABLES: Final = 64 * KIB  # early page tables that a kernel at a random address needs more


@dataclass(frozen=True, slots=True)
class Facts:
    """What an explanation may depend on, beside the difference itself."""

    protocol: str
    ram: tuple[Range, ...]
    firmware: bool
    without_acpi: bool
    without_seed: bool


@dataclass(frozen=True, slots=True)
class Known:
    """Differences of `section` whose whole name matches, and for which `holds`, have this code."""

    code: str
    section: Section
    name: str
    holds: Callable[[Contrast, Facts], bool]

    def explains(self, contrast: Contrast, facts: Facts) -> bool:
        return (
            contrast.section is self.section
            and re.fullmatch(self.name, contrast.name) is not None
            and self.holds(contrast, facts)
        )


def facts(ours: Side, ram: Sequence[Range], *, firmware: bool) -> Facts:
    """The facts of a comparison; `ram` is the guest-physical RAM of the machine.

    `firmware` says that the reference ran one before the kernel.
    """
    return Facts(
        protocol=ours.protocol,
        ram=tuple(ram),
        firmware=firmware,
        without_acpi=_NO_RSDP.search(ours.transcript) is not None,
        without_seed="/chosen kaslr-seed" not in ours.handed.values,
    )


def code_for(contrast: Contrast, facts: Facts) -> str | None:
    """The code of the first row that explains a difference; None when none does."""
    return next((row.code for row in KNOWN if row.explains(contrast, facts)), None)


_NO_RSDP: Final = re.compile(rb"A valid RSDP was not found")
_ARITHMETIC_FLAGS: Final = 0x8D5  # CF, PF, AF, ZF, SF, OF
_CONDITION_FLAGS: Final = 0xF << 28  # N, Z, C, V of PSTATE
_CR0_OF_THE_KERNEL: Final = 0x50022  # MP, NE, WP, AM
_ACCESSED: Final = 1
_CAN_USE_HEAP: Final = 0x80  # of loadflags; the heap is that of the 16-bit setup code
_OWN_ENTRY_PAGES: Final = 8
_ZERO: Final = ("0", "0x0")


def _always(_contrast: Contrast, _facts: Facts) -> bool:
    return True


def _protocol(*names: str) -> Callable[[Contrast, Facts], bool]:
    return lambda _, facts: facts.protocol in names


def _only_bits(mask: int, *names: str) -> Callable[[Contrast, Facts], bool]:
    def holds(contrast: Contrast, facts: Facts) -> bool:
        if names and facts.protocol not in names:
            return False
        return not (int(contrast.ours, 16) ^ int(contrast.reference, 16)) & ~mask

    return holds


def _ours_zero(contrast: Contrast, _facts: Facts) -> bool:
    return contrast.ours in _ZERO


def _both_set(contrast: Contrast, _facts: Facts) -> bool:
    return not {contrast.ours, contrast.reference} & {*_ZERO, ""}


def _values(ours: str, reference: str) -> Callable[[Contrast, Facts], bool]:
    return lambda contrast, _: (contrast.ours, contrast.reference) == (ours, reference)


def _only_reference(contrast: Contrast, _facts: Facts) -> bool:
    return not contrast.ours


def _only_ours(contrast: Contrast, _facts: Facts) -> bool:
    return not contrast.reference


def _without_acpi(_contrast: Contrast, facts: Facts) -> bool:
    return facts.without_acpi


def _without_seed(_contrast: Contrast, facts: Facts) -> bool:
    return facts.without_seed


def _firmware(_contrast: Contrast, facts: Facts) -> bool:
    return facts.firmware


def _firmware_map(contrast: Contrast, facts: Facts) -> bool:
    outside = contrast.range is not None and not any(map(contrast.range.overlaps, facts.ram))
    return outside and (contrast.ours, contrast.reference) == (ABSENT, "reserved")


def _firmware_top(contrast: Contrast, facts: Facts) -> bool:
    low = max(bank.end for bank in facts.ram if bank.start < 4 * GIB)
    return (
        contrast.range is not None
        and (contrast.ours, contrast.reference) == (USABLE, "reserved")
        and contrast.range.end == low
        and contrast.range.size <= FIRMWARE_TOP
    )


def _legacy_hole(contrast: Contrast, _facts: Facts) -> bool:
    inside = contrast.range is not None and LEGACY_HOLE.contains(contrast.range)
    return inside and contrast.ours == "reserved" and contrast.reference in (ABSENT, "ACPI NVS")


def _ram_cut(contrast: Contrast, facts: Facts) -> bool:
    """The same System RAM, but for its end, which the firmware keeps."""
    ours, reference = (
        re.findall(r"[0-9a-f]+", text) for text in (contrast.ours, contrast.reference)
    )
    if len(ours) != len(reference) or not ours:
        return False
    changed = [(int(a, 16), int(b, 16)) for a, b in zip(ours, reference, strict=True) if a != b]
    return facts.firmware and all(0 < a - b <= FIRMWARE_TOP for a, b in changed)


def _within(limit: int, *, firmware: bool = False) -> Callable[[Contrast, Facts], bool]:
    """Figures in KiB that are no further apart than `limit` bytes; `firmware` is the cause."""

    def holds(contrast: Contrast, facts: Facts) -> bool:
        figures = [re.match(r"\d+", text) for text in (contrast.ours, contrast.reference)]
        if None in figures or (firmware and not facts.firmware):
            return False
        ours, reference = (int(figure.group()) for figure in figures if figure)
        return abs(ours - reference) * KIB <= limit

    return holds


def _few_pages(contrast: Contrast, facts: Facts) -> bool:
    found = re.match(r"(\d+) of", contrast.reference)
    few = found is not None and int(found.group(1)) <= _OWN_ENTRY_PAGES
    return few and facts.protocol == linux64.NAME


_SETUP: Final = (linux32.NAME, linux64.NAME)
_R = Section.REGISTERS
_P = Section.PARAMETERS
_T = Section.DEVICE_TREE
_M = Section.MEMORY_MAP
_E = Section.EVIDENCE
_F = Section.MEMORY
_L = Section.LOG

KNOWN: Final = (
    # Registers.
    Known("pvh-only", _R, "protocol", _values("linux64", "pvh")),
    Known("place", _R, "rbx", _protocol(pvh.NAME)),
    Known("place", _R, "rsi", _protocol(*_SETUP)),
    Known("place", _R, "x0", _both_set),
    Known("free-register", _R, "r(ax|cx|dx|si|di|bp|sp)", _protocol(pvh.NAME)),
    Known("free-register", _R, "r(ax|cx|dx|sp)", _protocol(linux32.NAME)),
    Known("free-register", _R, "r(ax|bx|cx|dx|di|bp|sp|8|9|1[0-5])", _protocol(linux64.NAME)),
    Known("free-register", _R, "x([4-9]|[12][0-9]|30)", _always),
    Known("flags", _R, "rflags", _only_bits(_ARITHMETIC_FLAGS)),
    Known("flags", _R, "pstate", _only_bits(_CONDITION_FLAGS)),
    Known("accessed-bit", _R, "[cdefgs]s.attributes", _only_bits(_ACCESSED)),
    Known("tables", _R, "gdtr|idtr", _firmware),
    Known("pvh-tr", _R, r"tr\.(selector|limit|attributes)", _protocol(pvh.NAME)),
    Known("own-setup", _R, r"(tr|ldtr)\.\w+", _protocol(*_SETUP)),
    Known("own-entry", _R, "cr0", _only_bits(_CR0_OF_THE_KERNEL, linux64.NAME)),
    Known("own-entry", _R, "cr3", _protocol(linux64.NAME)),
    Known("own-entry", Section.KERNEL, "bytes", _few_pages),
    # Parameters.
    Known("acpi", _P, "start_info.rsdp_paddr|boot_params.acpi_rsdp_addr", _ours_zero),
    Known("place", _P, r"start_info\.(modlist|cmdline|memmap|modlist\[0\]\.)_?paddr", _both_set),
    Known("place", _P, r"boot_params\.hdr\.(ramdisk_image|cmd_line_ptr)", _both_set),
    Known("loader-id", _P, r"boot_params\.hdr\.type_of_loader", _values("0xff", "0xb0")),
    Known(
        "own-setup",
        _P,
        r"boot_params\.(screen_info|apm_bios_info|ist_info|edid_info|alt_mem_k|scratch|kbd_status"
        r"|eddbuf_entries|edd_mbr_sig_buf_entries|edd_mbr_sig_buffer|eddbuf)",
        _ours_zero,
    ),
    Known("own-setup", _P, r"boot_params\.hdr\.loadflags", _only_bits(_CAN_USE_HEAP)),
    Known("own-setup", _P, r"boot_params\.hdr\.heap_end_ptr", _both_set),
    # Device tree.
    Known("seed", _T, "/chosen kaslr-seed", _only_reference),
    Known("seed", _T, "/chosen rng-seed", _both_set),
    Known("request-label", _T, "/chosen bootproof,request", _only_ours),
    Known("place", _T, "/chosen linux,initrd-(start|end)", _both_set),
    Known("tree-padding", _T, "device tree.totalsize", _both_set),
    # Memory map.
    Known("firmware-map", _M, ".*", _firmware_map),
    Known("firmware-top", _M, ".*", _firmware_top),
    Known("legacy-hole", _M, ".*", _legacy_hole),
    # Evidence of the guest's init, and the kernel's figures.
    Known("loader-id", _E, "bootloader_type", _values("255", "176")),
    Known("request-label", _E, "request", _only_ours),
    Known("firmware-top", _E, "ram", _ram_cut),
    Known("firmware-top", _E, "memory", _within(FIRMWARE_TOP, firmware=True)),
    Known("tree-padding", _E, "memory", _within(TREE_PADDING)),
    Known("firmware-top", _F, "available|total|reserved", _within(FIRMWARE_TOP, firmware=True)),
    Known("tree-padding", _F, "available|reserved", _within(TREE_PADDING + KASLR_TABLES)),
    # Log lines: of the reference, ours, and both.
    Known("acpi", _L, r".*(ACPI|acpi|PNP|PnP|IOAPIC|IO-APIC|\bhpet).*", _without_acpi),
    Known("acpi", _L, r"(APIC: Switch to|\.\.TIMER:|NR_IRQS:|smpboot:).*", _without_acpi),
    Known("acpi", _L, r"PCI: (MMCONFIG|ECAM|Probing|Using E820).*", _without_acpi),
    Known("acpi", _L, r"pci_bus 0000:00: .*(resource|busn_res).*", _without_acpi),
    Known("acpi", _L, r"(i8042:|input: AT|(platform )?rtc_cmos\b).*", _without_acpi),
    Known("acpi", _L, r"(serial8250|00:0\d): ttyS0 .*|system 00:0\d: .*", _without_acpi),
    Known("acpi", _L, r"tsc: Refined .*|clocksource: .*", _without_acpi),
    Known("pci-bars", _L, r"pci 0000:.* BAR \d .*", _firmware),
    Known("smbios", _L, r"DMI.*|SMBIOS .* present\.", _firmware),
    Known("mtrr", _L, r".*MTRR.*|x86/PAT: .*|Disabled", _firmware),
    Known(
        "firmware-top", _L, r"Built \d+ zonelists.*|On node \d+, zone \w+: \d+ pages.*", _firmware
    ),
    Known("firmware-top", _L, r"e820: register RAM buffer resource .*", _only_reference),
    Known("own-setup", _L, r"Console: colour .*|Probing EDD .*", _protocol(*_SETUP)),
    Known("seed", _L, r"KASLR .*|CPU features: .*(KASLR|page table isolation).*", _without_seed),
    Known("seed", _L, r"ASID allocator .*|\w+ pages in range .*|2G module .*", _without_seed),
    Known("request-label", _L, r"/bootproof/init: .*bootproof,request.*", _only_reference),
)
