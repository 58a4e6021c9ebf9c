"""The setup header in a zero page: what the kernel, or its own unpacking code, reads of it. Pure.

A bzImage is told from the header itself: a vmlinux has none, and its loader makes one up, of which
the kernel reads little.

Source: Documentation/arch/x86/boot.rst ("The Real-Mode Kernel Header").
"""

from __future__ import annotations

from typing import Final, Self

from bootproof.dataclass import dataclass
from bootproof.loader.address import U32_MAX, Range
from bootproof.loader.boot_parameters import Read
from bootproof.loader.packing.kinds import LONGEST_MAGIC, sniff
from bootproof.loader.rules import Findings, documents, tolerated, violation
from bootproof.loader.structures.setup_header import SetupHeader
from bootproof.loader.structures.zero_page import ZeroPage

_HDRS: Final = 0x53726448
_BOOT_FLAG: Final = 0xAA55
_WITH_RELOCATION, _WITH_CMDLINE_SIZE, _WITH_INIT_SIZE, _WITH_XLOADFLAGS = 0x205, 0x206, 0x20A, 0x20C
_LOADED_HIGH: Final = 1 << 0
_XLF_KERNEL_64, _XLF_ABOVE_4G = 1 << 0, 1 << 1
_HIGH_MEMORY: Final = 0x100000
_LOW_MEMORY: Final = 0x10000
_ENTRY_64: Final = 0x200
_COMMAND_LINE_SIZE: Final = 2048  # of Linux on x86 (arch/x86/include/asm/setup.h), with the NUL
_ELF: Final = b"\x7fELF"


@dataclass(frozen=True, slots=True)
class Entered:
    """How a kernel with a setup header is entered."""

    header: SetupHeader
    # Guest-physical, of the first instruction.
    entry: int
    in_64_bits: bool
    # Where the protected-mode code begins; None when it is not the kernel of the header.
    load: int | None

    @classmethod
    def at(cls, header: SetupHeader, entry: int, in_64_bits: bool, read: Read) -> Self:
        """The packed kernel tells where its code begins: payload_offset before it."""
        supposed = max(entry - (_ENTRY_64 if in_64_bits else 0), 0)
        if not header.payload_length:
            return cls(header, entry, in_64_bits, supposed)
        starts = (supposed, supposed + _ENTRY_64, max(supposed - _ENTRY_64, 0))
        found = (at for at in starts if _is_payload(read, at + header.payload_offset))
        return cls(header, entry, in_64_bits, next(found, None))

    @property
    def is_bzimage(self) -> bool:
        """Whether the header came with the kernel."""
        header = self.header
        return bool(header.payload_length or header.setup_sects or header.syssize)

    @property
    def file(self) -> Range:
        """Where the bytes of the bzImage's protected-mode code lie."""
        return Range(self.load or 0, 16 * self.header.syssize)

    @property
    def right_entry(self) -> int:
        """Where the kernel is to be entered."""
        return (self.load or 0) + (_ENTRY_64 if self.in_64_bits else 0)

    @property
    def runtime(self) -> int | None:
        """Where the kernel unpacks itself to, but for what it may choose by chance: its code takes
        kernel_alignment for a power of two, whether it is one or not.
        """
        header, load = self.header, self.load
        if load is None or 0 < header.version < _WITH_INIT_SIZE:
            return load
        if not header.relocatable_kernel or not header.kernel_alignment:
            return header.pref_address or load
        mask = header.kernel_alignment - 1
        return max((load + mask) & ~mask, header.pref_address)

    @property
    def needs(self) -> Range | None:
        """What the kernel uses from its first instruction on: its file, and init_size bytes from
        where it unpacks itself to; None for what is no bzImage.
        """
        load, runtime = self.load, self.runtime
        if not self.is_bzimage or load is None or runtime is None:
            return None
        end = max(self.file.end, runtime + self.header.init_size)
        return Range.between(min(load, runtime), max(end, load, runtime))

    @property
    def code(self) -> tuple[Range, ...]:
        """Where the packed kernel's own code runs: in its file, then at the end of its memory."""
        needs, size = self.needs, self.file.size
        return () if needs is None else (self.file, Range(needs.end - size, size))


def check(entered: Entered, page: ZeroPage, cmdline: bytes | None) -> Findings:
    """`cmdline` is the command line as it lies in memory, without its NUL."""
    if page.sentinel:
        yield violation(
            "sentinel",
            f"the sentinel at 0x1ef of the zero page is {page.sentinel:#x}, not 0: the page was not"
            " zeroed, and kernels drop acpi_rsdp_addr, ext_ramdisk_* and ext_cmd_line_ptr",
            f"{documents.ZERO_PAGE}, sentinel",
            value=page.sentinel,
            limit=0,
        )
    yield from _magic(entered.header)
    yield from _sizes(entered, cmdline)
    if entered.is_bzimage:
        yield from _entry(entered)
        yield from _bzimage(entered)
    yield from _initrd(entered, page)


def _magic(header: SetupHeader) -> Findings:
    for name, found, wanted in (
        ("header", header.header, _HDRS),
        ("boot_flag", header.boot_flag, _BOOT_FLAG),
    ):
        if found != wanted:
            what = f"{name} of the setup header is {found:#x}, not {wanted:#x}"
            section = f"{documents.HEADER}, {name}"
            yield tolerated("setup-header-magic", what, section, value=found, limit=wanted)


def _sizes(entered: Entered, cmdline: bytes | None) -> Findings:
    """The header says how much the kernel keeps, where it came with the kernel."""
    header, size = entered.header, len(cmdline or b"")
    says = header.cmdline_size if header.version >= _WITH_CMDLINE_SIZE else 0
    if entered.is_bzimage and says:
        if says < size:
            what = f"the command line has {size} bytes, more than cmdline_size {says}"
            section = _field("cmdline_size")
            yield violation("cmdline-size", what, section, value=size, limit=says)
    elif size >= _COMMAND_LINE_SIZE:
        what = f"the command line has {size} bytes; Linux keeps {_COMMAND_LINE_SIZE - 1} of them"
        limit = _COMMAND_LINE_SIZE - 1
        yield violation("cmdline-size", what, documents.COMMAND_LINE, value=size, limit=limit)


def _bzimage(entered: Entered) -> Findings:
    header, load = entered.header, entered.load or 0
    modern = header.version >= _WITH_INIT_SIZE or not header.version
    for name in ("init_size", "kernel_alignment"):
        if modern and not getattr(header, name):
            what = f"{name} of the setup header is 0, but the kernel's own unpacking code reads it"
            yield violation("setup-header", f"{what}: was the header copied whole?", _field(name))
    if header.version and not header.loadflags & _LOADED_HIGH and load >= _HIGH_MEMORY:
        what = f"loadflags {header.loadflags:#x} lacks LOADED_HIGH, but the kernel is at {load:#x}"
        yield tolerated("loadflags", what, _field("loadflags"), value=header.loadflags)
    if header.version >= _WITH_XLOADFLAGS:
        yield from _xloadflags(entered)
    yield from _elsewhere(entered, load)
    yield from _alignment(entered)
    if not entered.in_64_bits and header.code32_start not in (0, load):
        what = f"code32_start is {header.code32_start:#x}, but the kernel is entered at {load:#x}"
        section = _field("code32_start")
        yield tolerated("code32-start", what, section, value=header.code32_start, limit=load)


def _elsewhere(entered: Entered, load: int) -> Findings:
    """A kernel that is not where boot.rst has it, and is not relocatable. Since there are kernels
    that are, the others move themselves to where they run (pref_address).
    """
    header = entered.header
    wanted = _HIGH_MEMORY if header.loadflags & _LOADED_HIGH else _LOW_MEMORY
    if 0 < header.version < _WITH_RELOCATION and load != wanted:
        what = f"a kernel of protocol {header.version >> 8}.{header.version & 0xFF:02} runs at"
        what += f" {wanted:#x} only, but is at {load:#x}"
        yield violation("not-relocatable", what, documents.LOADING, address=load, limit=wanted)
    if header.version < _WITH_RELOCATION or header.relocatable_kernel:
        return
    preferred = header.pref_address if header.version >= _WITH_INIT_SIZE else wanted
    if load not in (preferred, wanted):
        what = f"relocatable_kernel is 0, but the kernel is at {load:#x}, not at {preferred:#x}:"
        over = load > preferred and entered.file.overlaps(Range(preferred, header.init_size))
        what += f" it moves itself there{', over what it lies in' if over else ''}"
        section = _field("relocatable_kernel")
        yield tolerated("not-relocatable", what, section, address=load, limit=preferred)


def _alignment(entered: Entered) -> Findings:
    """The code of a kernel that is aligned to less than it can run at gives up."""
    header, runtime = entered.header, entered.runtime
    if (
        runtime is None
        or header.version < _WITH_INIT_SIZE
        or runtime % (1 << header.min_alignment % 64) == 0
    ):
        return
    what = f"kernel_alignment {header.kernel_alignment:#x} has the kernel unpack itself to"
    what += f" {runtime:#x}, no multiple of the {1 << header.min_alignment:#x} of min_alignment"
    limit = 1 << header.min_alignment
    yield violation("alignment", what, _field("min_alignment"), address=runtime, limit=limit)


def _xloadflags(entered: Entered) -> Findings:
    header = entered.header
    flags, section = header.xloadflags, _field("xloadflags")
    if entered.in_64_bits and not flags & _XLF_KERNEL_64:
        what = f"xloadflags {flags:#x} lacks XLF_KERNEL_64: the kernel has no 64-bit entry at 0x200"
        yield violation("xloadflags", what, section, value=flags)
    needs = entered.needs
    if needs and needs.end > U32_MAX + 1 and not flags & _XLF_ABOVE_4G:
        what = (
            f"xloadflags {flags:#x} lacks XLF_CAN_BE_LOADED_ABOVE_4G, but the kernel uses {needs}"
        )
        yield violation("xloadflags", what, section, address=needs.start, value=flags)


def _entry(entered: Entered) -> Findings:
    """The kernel is entered where it begins, or 0x200 further in 64-bit mode."""
    header, load = entered.header, entered.load
    bits, section = (
        ("64-bit", documents.LINUX64) if entered.in_64_bits else ("32-bit", documents.LINUX32)
    )
    if load is None:
        where = f"payload_offset {header.payload_offset:#x} behind the kernel's start"
        what = f"no packed kernel is {where}, which the entry {entered.entry:#x} leads to"
        yield violation("payload", what, _field("payload_offset"), address=entered.entry)
    elif entered.entry != entered.right_entry:
        what = f"the CPU starts at {entered.entry:#x}, but the {bits} entry of this bzImage is"
        right = entered.right_entry
        yield violation("entry", f"{what} {right:#x}", section, address=entered.entry, limit=right)


def _is_payload(read: Read, address: int) -> bool:
    data = read(address, LONGEST_MAGIC) or b""
    return sniff(memoryview(data)) is not None or data.startswith(_ELF)


def _initrd(entered: Entered, page: ZeroPage) -> Findings:
    """Where an initrd may end. Above 4 GiB the ext_ fields and xloadflags say whether it may."""
    header = entered.header
    start = header.ramdisk_image | page.ext_ramdisk_image << 32
    size = header.ramdisk_size | page.ext_ramdisk_size << 32
    end = start + size
    if not size:
        return
    if not header.type_of_loader:
        section = _field("type_of_loader")
        yield violation(
            "type-of-loader", "type_of_loader is 0: the kernel ignores the initrd", section
        )
    highest = header.initrd_addr_max
    if highest and highest < end - 1 <= U32_MAX:
        what = f"the initrd ends at {end - 1:#x}, above initrd_addr_max {highest:#x}"
        section = _field("initrd_addr_max")
        yield tolerated(
            "initrd-addr-max", what, section, address=start, value=end - 1, limit=highest
        )
    above = end - 1 > U32_MAX and header.version >= _WITH_XLOADFLAGS
    if above and entered.is_bzimage and not header.xloadflags & _XLF_ABOVE_4G:
        what = f"the initrd ends at {end - 1:#x}, but xloadflags {header.xloadflags:#x} lacks"
        what += " XLF_CAN_BE_LOADED_ABOVE_4G"
        yield violation("xloadflags", what, _field("xloadflags"), address=start, value=end - 1)


def _field(name: str) -> str:
    return f"{documents.HEADER}, {name}"
