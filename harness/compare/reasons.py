"""Why our boots and those of QEMU's own -kernel differ: a table of reasons, one row per pattern.

Every code stands in docs/compare.md with its reason. A row is as narrow as its reason: a difference
that looks alike but has another cause must stay unexplained. What is handed over is compared value
by value. A log line is told by what it is about, whatever kernel says it: by what firmware has left
in this very boot, by the devices of the machine, or by the map. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.harness.compare.differences import BootDifference, ComparedBoot, Section
from bootproof.harness.compare.firmware_tables import Table
from bootproof.harness.compare.memory_at_entry import MemoryAtEntry
from bootproof.harness.guest.memory_map import ABSENT, USABLE
from bootproof.loader.address import GIB, KIB, MIB, Range
from bootproof.loader.protocols import linux32, linux64, pvh
from bootproof.loader.protocols.e820 import LEGACY_HOLE
from bootproof.loader.protocols.table import PROTOCOLS

FIRMWARE_TOP: Final = 256 * KIB  # what SeaBIOS may keep for itself at the end of low RAM
FIRMWARE_RAM: Final = 2 * MIB  # what OpenSBI may keep for itself at the start of RAM
_NOBODY: Final = "0xffffffff"  # an interrupt that goes nowhere
TREE_PADDING: Final = 1024 * KIB  # QEMU's device tree is padded to 1 MiB, all of it reserved
KASLR_TABLES: Final = 64 * KIB  # early page tables that a kernel at a random address needs more


@dataclass(frozen=True, slots=True)
class Facts:
    """What an explanation may depend on, beside the difference itself."""

    protocol: str  # of our boot
    ram: tuple[Range, ...]  # of the machine, guest-physical
    firmware: bool  # the reference ran one before the kernel
    tables: frozenset[Table]  # that only the reference's kernel could find
    without_seed: bool  # our kernel had no seed for KASLR
    code_anywhere: bool = False  # the kernel takes a place of its own choice
    # PCI devices that have no interrupt in our boot, and their drivers, as the kernel calls them.
    unrouted: frozenset[str] = frozenset()
    firmware_stays: bool = False  # in RAM, with ours as well
    hosts_clock: bool = False  # is that of the reference


@dataclass(frozen=True, slots=True)
class Reason:
    """Why some differences are there."""

    code: str  # in docs/compare.md
    section: Section
    name: str  # a pattern of the whole name
    holds: Callable[[BootDifference, Facts], bool]

    def explains(self, difference: BootDifference, facts: Facts) -> bool:
        return (
            difference.section is self.section
            and re.fullmatch(self.name, difference.name) is not None
            and self.holds(difference, facts)
        )


def facts(
    ours: ComparedBoot, reference: ComparedBoot, ram: Sequence[Range], **others: bool
) -> Facts:
    """The facts of a comparison; what the boots and their RAM do not tell is one of `others`."""
    return Facts(
        protocol=ours.protocol,
        ram=tuple(ram),
        tables=_tables(reference.memory) - _tables(ours.memory),
        without_seed="/chosen kaslr-seed" not in ours.memory.values,
        unrouted=frozenset(
            word.decode() for found in _UNROUTED.findall(ours.transcript) for word in found
        ),
        **others,
    )


def _tables(memory: MemoryAtEntry) -> frozenset[Table]:
    """What a kernel finds by looking, or is pointed to."""
    pointed = any(memory.values.get(name, "0x0") not in _ZERO for name in _RSDP)
    return memory.tables | ({Table.ACPI} if pointed else frozenset())


def code_for(difference: BootDifference, facts: Facts) -> str | None:
    """The code of the first row that explains a difference; None when none does."""
    return next((row.code for row in REASONS if row.explains(difference, facts)), None)


_RSDP: Final = ("start_info.rsdp_paddr", "boot_params.acpi_rsdp_addr")
# pcibios_lookup_irq() and acpi_pci_irq_enable() of a device that nobody has routed.
_UNROUTED: Final = re.compile(
    rb"^(?:\[[ 0-9.]{,20}\] )?([\w-]{1,40}) ([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]): "
    rb"(?:can't find IRQ for PCI INT [A-D]|PCI INT [A-D]: (?:no GSI|not connected))",
    re.MULTILINE,
)
_PROBING: Final = re.compile(r"\b(?:local_pci_probe|pci_device_probe)\b")
_ARITHMETIC_FLAGS: Final = 0x8D5  # CF, PF, AF, ZF, SF, OF
_CONDITION_FLAGS: Final = 0xF << 28 | 3 << 10  # N, Z, C, V and BTYPE of PSTATE
_CR0_OF_THE_KERNEL: Final = 0x50022  # MP, NE, WP, AM
_ACCESSED: Final = 1
_CAN_USE_HEAP: Final = 0x80  # of loadflags; the heap is that of the 16-bit setup code
_OWN_ENTRY_PAGES: Final = 8
_ZERO: Final = ("0", "0x0")


def _protocol(*names: str) -> Callable[[BootDifference, Facts], bool]:
    return lambda _, facts: facts.protocol in names


def _only_bits(mask: int, *names: str) -> Callable[[BootDifference, Facts], bool]:
    def holds(difference: BootDifference, facts: Facts) -> bool:
        if names and facts.protocol not in names:
            return False
        return not (int(difference.ours, 16) ^ int(difference.reference, 16)) & ~mask

    return holds


def _ours_zero(difference: BootDifference, _facts: Facts) -> bool:
    return difference.ours in _ZERO


def _both_set(difference: BootDifference, _facts: Facts) -> bool:
    return not {difference.ours, difference.reference} & {*_ZERO, ""}


def _values(ours: str, reference: str) -> Callable[[BootDifference, Facts], bool]:
    return lambda difference, _: (difference.ours, difference.reference) == (ours, reference)


def _only_reference(difference: BootDifference, _facts: Facts) -> bool:
    return not difference.ours


def _only_ours(difference: BootDifference, _facts: Facts) -> bool:
    return not difference.reference


def _left(*tables: Table) -> Callable[[BootDifference, Facts], bool]:
    """Firmware has left one of these, and we have not."""
    return lambda _, facts: not facts.tables.isdisjoint(tables)


def _device(difference: BootDifference, facts: Facts) -> bool:
    """A device that does not work with us only is no matter of how it was found."""
    return facts.firmware and _FAILURE.search(difference.ours) is None


def _unrouted(difference: BootDifference, facts: Facts) -> bool:
    """What a driver says and does of a device without an interrupt, also with a trace."""
    if not facts.unrouted or not _routing(difference, facts):
        return False
    names = "|".join(map(re.escape, facts.unrouted))
    named = re.search(rf"(?<![\w-])(?:{names})(?![\w-])", difference.ours)
    return named is not None or _PROBING.search(difference.ours) is not None


def _hosts_clock(difference: BootDifference, facts: Facts) -> bool:
    return facts.hosts_clock and not difference.ours


def _without_seed(_difference: BootDifference, facts: Facts) -> bool:
    return facts.without_seed


def _firmware(_difference: BootDifference, facts: Facts) -> bool:
    return facts.firmware


def _firmware_map(difference: BootDifference, facts: Facts) -> bool:
    outside = difference.range is not None and not any(map(difference.range.overlaps, facts.ram))
    return outside and (difference.ours, difference.reference) == (ABSENT, "reserved")


def _firmware_top(difference: BootDifference, facts: Facts) -> bool:
    low = max(bank.end for bank in facts.ram if bank.start < 4 * GIB)
    return (
        difference.range is not None
        and (difference.ours, difference.reference) == (USABLE, "reserved")
        and difference.range.end == low
        and difference.range.size <= FIRMWARE_TOP
    )


def _legacy_hole(difference: BootDifference, _facts: Facts) -> bool:
    inside = difference.range is not None and LEGACY_HOLE.contains(difference.range)
    return inside and difference.ours == "reserved" and difference.reference in (ABSENT, "ACPI NVS")


def _ram_cut(difference: BootDifference, facts: Facts) -> bool:
    """The same System RAM, but for its end, which the firmware keeps."""
    ours, reference = (
        re.findall(r"[0-9a-f]+", text) for text in (difference.ours, difference.reference)
    )
    if len(ours) != len(reference) or not ours or ours[::2] != reference[::2]:
        return False
    ends = zip(ours[1::2], reference[1::2], strict=True)
    kept = [int(a, 16) - int(b, 16) for a, b in ends if a != b]
    return facts.firmware and all(0 < size <= FIRMWARE_TOP for size in kept)


def _stays(_difference: BootDifference, facts: Facts) -> bool:
    return facts.firmware_stays


def _leads_to_tree(difference: BootDifference, facts: Facts) -> bool:
    known = difference.name == PROTOCOLS[facts.protocol].tree_register
    return known and _both_set(difference, facts)


def _left_open(difference: BootDifference, facts: Facts) -> bool:
    pattern = PROTOCOLS[facts.protocol].left_open
    return pattern is not None and re.fullmatch(pattern, difference.name) is not None


def _firmware_ram(difference: BootDifference, facts: Facts) -> bool:
    """The same System RAM, but for its start, where a firmware stays."""
    ours, reference = difference.ours.partition("-"), difference.reference.partition("-")
    starts = [int(text[0], 16) for text in (ours, reference) if re.fullmatch("[0-9a-f]+", text[0])]
    few = len(starts) == 2 and 0 <= starts[0] - starts[1] <= FIRMWARE_RAM
    return facts.firmware_stays and few and ours[2] == reference[2]


def _fixed_up(difference: BootDifference, facts: Facts) -> bool:
    """What a firmware changes in its tree: it takes for itself, and adds nothing."""
    words = difference.reference.split()
    pairs = zip(words, difference.ours.split(), strict=False)
    taken = all(word in (_NOBODY, own) for word, own in pairs)
    return facts.firmware_stays and (not words or taken)


def _within(
    limit: int, *, firmware: bool = False, stays: bool = False
) -> Callable[[BootDifference, Facts], bool]:
    """Figures in KiB that are no further apart than `limit` bytes; `firmware` is the cause, or that
    it `stays`.
    """

    def holds(difference: BootDifference, facts: Facts) -> bool:
        figures = [re.match(r"\d+", text) for text in (difference.ours, difference.reference)]
        if None in figures or (firmware and not facts.firmware):
            return False
        if stays and not facts.firmware_stays:
            return False
        ours, reference = (int(figure.group()) for figure in figures if figure)
        return abs(ours - reference) * KIB <= limit

    return holds


def _few_pages(difference: BootDifference, facts: Facts) -> bool:
    count = re.match(r"(\d+) of", difference.reference)
    few = count is not None and int(count.group(1)) <= _OWN_ENTRY_PAGES
    return few and facts.protocol == linux64.NAME


_SETUP: Final = (linux32.NAME, linux64.NAME)
_acpi: Final = _left(Table.ACPI)
_mp_table: Final = _left(Table.MULTIPROCESSOR)
_routing: Final = _left(Table.ACPI, Table.MULTIPROCESSOR)

# How Linux calls a device at the head of a line, behind the name of its driver.
_DEVICES: Final = "|".join(
    (
        r"[0-9a-f]{4}:[0-9a-f]{2}(?::[0-9a-f]{2}\.[0-7])?",  # PCI: function, bus
        r"[0-9a-f]{2}:[0-9a-f]{2}",  # PnP
        r"(?:ata|hpet|host|i2c-|input|rtc|serio|tty\w|usb|virtio)\d[\d.:-]*",
        r"i8042|rtc_cmos|serial8250|floppy|pcspkr",
    )
)
_FAILURE: Final = re.compile(
    r"(?i)fail|fatal|error|no space|can't|cannot|unable|tim(?:ed|e) ?out|conflict|invalid|collision"
)
# What the kernel's memory management says of the map, which is compared range by range.
_MAP_IN_THE_LOG: Final = "|".join(
    (
        r"Built \d+ zonelists",
        r"On node \d+,? ",
        r"  \w+ zone: ",
        r"PM: hibernation: Registered nosave memory: ",
        r"e820: ",
    )
)
_R = Section.REGISTERS
_P = Section.PARAMETERS
_T = Section.DEVICE_TREE
_M = Section.MEMORY_MAP
_E = Section.EVIDENCE
_F = Section.MEMORY
_L = Section.LOG

REASONS: Final = (
    # Registers.
    Reason("pvh-only", _R, "protocol", _values(linux64.NAME, pvh.NAME)),
    Reason("place", _R, "rbx", _protocol(pvh.NAME)),
    Reason("place", _R, "rsi", _protocol(*_SETUP)),
    Reason("place", _R, r"x\d+", _leads_to_tree),
    Reason("free-register", _R, "r(ax|cx|dx|si|di|bp|sp)", _protocol(pvh.NAME)),
    Reason("free-register", _R, "r(ax|cx|dx|sp)", _protocol(linux32.NAME)),
    Reason("free-register", _R, "r(ax|bx|cx|dx|di|bp|sp|8|9|1[0-5])", _protocol(linux64.NAME)),
    Reason("free-register", _R, r"x\d+", _left_open),
    Reason("flags", _R, "rflags", _only_bits(_ARITHMETIC_FLAGS)),
    Reason("flags", _R, "pstate", _only_bits(_CONDITION_FLAGS)),
    Reason("accessed-bit", _R, "[cdefgs]s.attributes", _only_bits(_ACCESSED)),
    Reason("tables", _R, "gdtr|idtr", _firmware),
    Reason("pvh-tr", _R, r"tr\.(selector|limit|attributes)", _protocol(pvh.NAME)),
    Reason("own-setup", _R, r"(tr|ldtr)\.\w+", _protocol(*_SETUP)),
    Reason("own-entry", _R, "cr0", _only_bits(_CR0_OF_THE_KERNEL, linux64.NAME)),
    Reason("own-entry", _R, "cr3", _protocol(linux64.NAME)),
    Reason("own-entry", Section.KERNEL, "bytes", _few_pages),
    # Parameters.
    Reason("acpi", _P, "start_info.rsdp_paddr|boot_params.acpi_rsdp_addr", _ours_zero),
    Reason("place", _P, r"start_info\.(modlist|cmdline|memmap|modlist\[0\]\.)_?paddr", _both_set),
    Reason("place", _P, r"boot_params\.hdr\.(ramdisk_image|cmd_line_ptr)", _both_set),
    Reason("loader-id", _P, r"boot_params\.hdr\.type_of_loader", _values("0xff", "0xb0")),
    Reason(
        "own-setup",
        _P,
        r"boot_params\.(screen_info|apm_bios_info|ist_info|edid_info|alt_mem_k|scratch|kbd_status"
        r"|eddbuf_entries|edd_mbr_sig_buf_entries|edd_mbr_sig_buffer|eddbuf)",
        _ours_zero,
    ),
    Reason("own-setup", _P, r"boot_params\.hdr\.loadflags", _only_bits(_CAN_USE_HEAP)),
    Reason("own-setup", _P, r"boot_params\.hdr\.heap_end_ptr", _both_set),
    # Device tree.
    Reason("seed", _T, "/chosen kaslr-seed", _only_reference),
    Reason("seed", _T, "/chosen rng-seed", _both_set),
    Reason("request-label", _T, "/chosen bootproof,request", _only_ours),
    Reason("place", _T, "/chosen linux,initrd-(start|end)", _both_set),
    Reason("tree-padding", _T, "device tree.totalsize", _both_set),
    Reason("firmware-ram", _T, "/reserved-memory/(firmware|mmode_resv).*", _stays),
    Reason("firmware-fixups", _T, "/pmu riscv,.*|/soc/.* interrupts-extended", _fixed_up),
    # Memory map.
    Reason("firmware-map", _M, ".*", _firmware_map),
    Reason("firmware-top", _M, ".*", _firmware_top),
    Reason("legacy-hole", _M, ".*", _legacy_hole),
    # Evidence of the guest's init, and the kernel's figures.
    Reason("loader-id", _E, "bootloader_type", _values("255", "176")),
    Reason("request-label", _E, "request", _only_ours),
    Reason("kaslr", _E, "code", lambda _, facts: facts.code_anywhere),
    Reason("firmware-top", _E, "ram", _ram_cut),
    Reason("firmware-top", _E, "memory", _within(FIRMWARE_TOP, firmware=True)),
    Reason("firmware-ram", _E, "ram", _firmware_ram),
    Reason("firmware-ram", _E, "memory", _within(FIRMWARE_RAM, stays=True)),
    Reason(
        "firmware-ram",
        _F,
        "available|total|reserved",
        _within(FIRMWARE_RAM, stays=True),
    ),
    Reason("tree-padding", _E, "memory", _within(TREE_PADDING)),
    Reason("firmware-top", _F, "available|total|reserved", _within(FIRMWARE_TOP, firmware=True)),
    Reason("deferred-memory", _F, "available so far", _both_set),
    Reason("tree-padding", _F, "available|reserved", _within(TREE_PADDING + KASLR_TABLES)),
    # Log lines: of the reference, ours, and both.
    Reason(
        "firmware-ram",
        _L,
        r"OF: reserved mem: .* (firmware|mmode_resv\d)@\w+|  node +\d+: \[mem .*",
        _stays,
    ),
    Reason("acpi", _L, r".*(ACPI|acpi|PNP|PnP|\bhpet).*", _acpi),
    Reason("acpi", _L, r"(SFI|PnPBIOS|isapnp|EISA): .*", _acpi),
    Reason("acpi", _L, r"tsc: Refined .*|clocksource: .*", _acpi),
    Reason("mp-table", _L, r".*(\bMP-table|MPTABLE|MultiProcessor Spec).*", _mp_table),
    Reason("mp-table", _L, r"Processor #\d+ .*|Processors: \d+|Bus #\d+ is .*", _mp_table),
    Reason("interrupts", _L, r".*(IOAPIC|IO-APIC|I/O APIC|ExtINT).*", _routing),
    Reason("interrupts", _L, r"(\w*APIC|\.\.TIMER|NR_IRQS|smpboot|Int): ?.*", _routing),
    Reason("devices", _L, rf"(?:[\w.-]+ )?(?:{_DEVICES})\b.*", _device),
    Reason("devices", _L, r"PCI: .*", _device),
    Reason("devices", _L, r"input: .+ as /devices/.*", _device),
    Reason("interrupts", _L, r".*", _unrouted),
    Reason("smbios", _L, r"DMI.*|SMBIOS .* present\.", _left(Table.SMBIOS, Table.SMBIOS_3)),
    Reason("mtrr", _L, r".*MTRR.*|x86/PAT: .*|Disabled|Enabled", _firmware),
    Reason("mtrr", _L, r"  [0-9A-F]+-[0-9A-F]+ (uncachable|write-\w+)", _firmware),
    Reason("mtrr", _L, r"  \d+ (disabled|base [0-9A-F]+ mask .*)", _firmware),
    Reason("firmware-top", _L, rf"(?:{_MAP_IN_THE_LOG}).*", _firmware),
    Reason("own-setup", _L, r"Console: colour .*|Probing EDD .*", _protocol(*_SETUP)),
    Reason("seed", _L, r"KASLR .*|CPU features: .*(KASLR|page table isolation).*", _without_seed),
    Reason("seed", _L, r"ASID allocator .*|\w+ pages in range .*|2G module .*", _without_seed),
    Reason("hosts-clock", _L, r"hrtimer: interrupt took \d+ ns", _hosts_clock),
    Reason("request-label", _L, r"/bootproof/init: .*bootproof,request.*", _only_reference),
)
