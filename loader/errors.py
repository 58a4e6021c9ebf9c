"""Every way in which loading can be refused, as types.

One tree under LoaderError. Each variant of linux-loader's error enums has a class of the same
name, grouped as there (`Elf.InvalidPvhNote`, `Bzimage.Underflow`, `Pe.DtbTooBig`,
`Cmdline.TooLarge`, and the ungrouped `CommandLineOverflow`, …) and a stable `code` such as
"Elf::InvalidPvhNote". Our own refusals follow below them. Other modules derive their own
subclasses and give them a `code`. Knows no format: the raiser says where and why.
"""

from __future__ import annotations

from typing import ClassVar


class LoaderError(Exception):
    """A refusal. `str()` is one line: the file, what is wrong with which value, what to do.

    `detail` is the sentence for this occurrence; without it, one is made from the class's
    `summary` and the fields. The fields are for programs: `file` is the image's name, `field` the
    structure member at fault, `offset` its byte offset in the file, `value` what was found,
    `limit` what was allowed, `advice` what the user can do.
    """

    code: ClassVar[str] = "LoaderError"
    summary: ClassVar[str] = "the kernel cannot be loaded"

    def __init__(
        self,
        detail: str = "",
        *,
        file: str | None = None,
        field: str | None = None,
        offset: int | None = None,
        value: object = None,
        limit: object = None,
        advice: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.file = file
        self.field = field
        self.offset = offset
        self.value = value
        self.limit = limit
        self.advice = advice

    def __str__(self) -> str:
        parts = [self.detail or self._sentence()]
        if self.advice:
            parts.append(self.advice)
        text = "; ".join(parts)
        return one_line(f"{self.file}: {text}" if self.file else text)

    def _sentence(self) -> str:
        text = self.summary
        if self.field is not None:
            text += f": {self.field}"
            if self.value is not None:
                text += f" is {_shown(self.value)}"
        elif self.value is not None:
            text += f": {_shown(self.value)}"
        if self.limit is not None:
            text += f", the limit is {_shown(self.limit)}"
        return text


def one_line(text: str) -> str:
    """`text` with everything that would break a line or a terminal escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _shown(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:#x}"
    return str(value)


# linux-loader: loader::Error --------------------------------------------------------------------


class InvalidCommandLine(LoaderError):
    """The command line has init arguments only, or a NUL byte."""

    code = "InvalidCommandLine"
    summary = "the command line cannot be written as one string"


class CommandLineCopy(LoaderError):
    """The command line would end inside RAM but start, or pass, outside it."""

    code = "CommandLineCopy"
    summary = "the command line does not lie in guest RAM"


class CommandLineOverflow(LoaderError):
    """The command line would end after the last byte of RAM."""

    code = "CommandLineOverflow"
    summary = "the command line ends beyond guest RAM"


class InvalidKernelStartAddress(LoaderError):
    """A bzImage's own load address is below the start of high memory that the caller gave."""

    code = "InvalidKernelStartAddress"
    summary = "the kernel's start address is below high memory"


class MemoryOverflow(LoaderError):
    """The kernel with its BSS does not fit into RAM, or its end is not a 64-bit address."""

    code = "MemoryOverflow"
    summary = "guest memory is too small for the kernel"


class Elf:
    """The refusals of the ELF loader (linux-loader: elf::Error)."""

    class Align(LoaderError):
        """An alignment that is not a power of two. Kept for completeness: nothing raises it."""

        code = "Elf::Align"
        summary = "invalid alignment"

    class BigEndianElfOnLittle(LoaderError):
        """EI_DATA does not say little-endian."""

        code = "Elf::BigEndianElfOnLittle"
        summary = "the ELF file is not little-endian"

    class InvalidElfMagicNumber(LoaderError):
        """The file does not begin with 7f 45 4c 46."""

        code = "Elf::InvalidElfMagicNumber"
        summary = "not an ELF file"

    class InvalidProgramHeaderSize(LoaderError):
        """e_phentsize is not that of ELF64; an ELF32 kernel ends here."""

        code = "Elf::InvalidProgramHeaderSize"
        summary = "the program headers are not those of a 64-bit ELF"

    class InvalidProgramHeaderOffset(LoaderError):
        """The program headers would begin inside the ELF header."""

        code = "Elf::InvalidProgramHeaderOffset"
        summary = "the program headers overlap the ELF header"

    class InvalidProgramHeaderAddress(LoaderError):
        """A segment's p_paddr plus the kernel offset is not a 64-bit address."""

        code = "Elf::InvalidProgramHeaderAddress"
        summary = "a segment's address overflows"

    class InvalidEntryAddress(LoaderError):
        """e_entry is below the start of high memory that the caller gave."""

        code = "Elf::InvalidEntryAddress"
        summary = "the entry address is below high memory"

    class Overflow(LoaderError):
        """e_entry plus the kernel offset, or a note's padded size, does not fit its type."""

        code = "Elf::Overflow"
        summary = "an address or a size overflows"

    class ReadElfHeader(LoaderError):
        """The file is shorter than an ELF header."""

        code = "Elf::ReadElfHeader"
        summary = "the file ends inside the ELF header"

    class ReadKernelImage(LoaderError):
        """A segment's bytes are not all in the file, or their place is not all in guest RAM."""

        code = "Elf::ReadKernelImage"
        summary = "a segment cannot be copied into guest RAM"

    class ReadProgramHeader(LoaderError):
        """The file ends before the last program header."""

        code = "Elf::ReadProgramHeader"
        summary = "the file ends inside the program headers"

    class SeekKernelStart(LoaderError):
        """Seeking to a segment failed; not raised, for an image is mapped."""

        code = "Elf::SeekKernelStart"
        summary = "cannot seek to a segment"

    class SeekElfStart(LoaderError):
        """Seeking to the start failed; not raised, for an image is mapped."""

        code = "Elf::SeekElfStart"
        summary = "cannot seek to the ELF header"

    class SeekProgramHeader(LoaderError):
        """Seeking to the program headers failed; not raised, for an image is mapped."""

        code = "Elf::SeekProgramHeader"
        summary = "cannot seek to the program headers"

    class SeekNoteHeader(LoaderError):
        """Seeking to a note failed; not raised, for an image is mapped."""

        code = "Elf::SeekNoteHeader"
        summary = "cannot seek to a note"

    class ReadNoteHeader(LoaderError):
        """The file ends inside a note that has to be read."""

        code = "Elf::ReadNoteHeader"
        summary = "the file ends inside a note"

    class InvalidPvhNote(LoaderError):
        """The PVH entry note is too short for an address or runs past its segment."""

        code = "Elf::InvalidPvhNote"
        summary = "invalid PVH entry note"


class Bzimage:
    """The refusals of the bzImage loader (linux-loader: bzimage::Error)."""

    class InvalidBzImage(LoaderError):
        """No HdrS magic, a protocol before 2.00, or a kernel that is not loaded high."""

        code = "Bzimage::InvalidBzImage"
        summary = "not a bzImage"

    class Overflow(LoaderError):
        """A size overflows. Kept for completeness: eight bits of setup_sects cannot."""

        code = "Bzimage::Overflow"
        summary = "a size overflows"

    class ReadBzImageHeader(LoaderError):
        """The setup header cannot be read; not raised, for an image is mapped."""

        code = "Bzimage::ReadBzImageHeader"
        summary = "cannot read the setup header"

    class ReadBzImageCompressedKernel(LoaderError):
        """The place of the protected-mode kernel is not all in guest RAM."""

        code = "Bzimage::ReadBzImageCompressedKernel"
        summary = "the protected-mode kernel cannot be copied into guest RAM"

    class SeekBzImageEnd(LoaderError):
        """Seeking to the end failed; not raised, for an image is mapped."""

        code = "Bzimage::SeekBzImageEnd"
        summary = "cannot seek to the end of the bzImage"

    class SeekBzImageHeader(LoaderError):
        """Seeking to the setup header failed; not raised, for an image is mapped."""

        code = "Bzimage::SeekBzImageHeader"
        summary = "cannot seek to the setup header"

    class SeekBzImageCompressedKernel(LoaderError):
        """Seeking to the protected-mode kernel failed; not raised, for an image is mapped."""

        code = "Bzimage::SeekBzImageCompressedKernel"
        summary = "cannot seek to the protected-mode kernel"

    class Underflow(LoaderError):
        """The file is shorter than its real-mode part claims to be."""

        code = "Bzimage::Underflow"
        summary = "the file ends inside the real-mode setup code"


class Pe:
    """The refusals of the Image (PE) and device-tree loaders (linux-loader: pe::Error)."""

    class SeekImageEnd(LoaderError):
        """Seeking to the end failed; not raised, for an image is mapped."""

        code = "Pe::SeekImageEnd"
        summary = "cannot seek to the end of the Image"

    class SeekImageHeader(LoaderError):
        """Seeking to the header failed; not raised, for an image is mapped."""

        code = "Pe::SeekImageHeader"
        summary = "cannot seek to the Image header"

    class SeekDtbStart(LoaderError):
        """Seeking to the start failed; not raised, for a device tree is mapped."""

        code = "Pe::SeekDtbStart"
        summary = "cannot seek to the start of the device tree"

    class SeekDtbEnd(LoaderError):
        """Seeking to the end failed; not raised, for a device tree is mapped."""

        code = "Pe::SeekDtbEnd"
        summary = "cannot seek to the end of the device tree"

    class DtbTooBig(LoaderError):
        """The device tree is larger than 2 MiB."""

        code = "Pe::DtbTooBig"
        summary = "the device tree is too big"

    class ReadKernelImage(LoaderError):
        """The place of the Image is not all in guest RAM."""

        code = "Pe::ReadKernelImage"
        summary = "the Image cannot be copied into guest RAM"

    class ReadImageHeader(LoaderError):
        """The file is shorter than the 64-byte Image header."""

        code = "Pe::ReadImageHeader"
        summary = "the file ends inside the Image header"

    class ReadDtbImage(LoaderError):
        """The place of the device tree is not all in guest RAM."""

        code = "Pe::ReadDtbImage"
        summary = "the device tree cannot be copied into guest RAM"

    class InvalidImage(LoaderError):
        """The base plus text_offset is not a 64-bit address."""

        code = "Pe::InvalidImage"
        summary = "the load address overflows"

    class InvalidImageMagicNumber(LoaderError):
        """The header has neither the arm64 nor the riscv64 magic."""

        code = "Pe::InvalidImageMagicNumber"
        summary = "not an arm64 or riscv64 Image"

    class InvalidBaseAddrAlignment(LoaderError):
        """The base address is not a multiple of 2 MiB."""

        code = "Pe::InvalidBaseAddrAlignment"
        summary = "the base address is not aligned to 2 MiB"


class Cmdline:
    """The refusals of the command-line builder (linux-loader: cmdline::Error)."""

    class NullTerminator(LoaderError):
        """A NUL byte inside the command line."""

        code = "Cmdline::NullTerminator"
        summary = "the command line contains a NUL byte"

    class NoBootArgsInserted(LoaderError):
        """There are init arguments but no boot arguments."""

        code = "Cmdline::NoBootArgsInserted"
        summary = "the command line has init arguments but no boot arguments"

    class InvalidCapacity(LoaderError):
        """The capacity is zero, or too small for the string to be parsed."""

        code = "Cmdline::InvalidCapacity"
        summary = "invalid command line capacity"

    class InvalidAscii(LoaderError):
        """A character outside printable ASCII."""

        code = "Cmdline::InvalidAscii"
        summary = "the command line may only contain printable ASCII"

    class HasSpace(LoaderError):
        """A key with a space."""

        code = "Cmdline::HasSpace"
        summary = "a command line key contains a space"

    class HasEquals(LoaderError):
        """A key with an equals sign."""

        code = "Cmdline::HasEquals"
        summary = "a command line key contains an equals sign"

    class MissingVal(LoaderError):
        """A key for which no value was given."""

        code = "Cmdline::MissingVal"
        summary = "a command line key has no value"

    class MmioSize(LoaderError):
        """A virtio-mmio device of size 0."""

        code = "Cmdline::MmioSize"
        summary = "a virtio-mmio device cannot have size 0"

    class TooLarge(LoaderError):
        """The insertion would exceed the capacity."""

        code = "Cmdline::TooLarge"
        summary = "the command line would exceed its capacity"

    class NoQuoteSpace(LoaderError):
        """A value with spaces that is not in double quotes."""

        code = "Cmdline::NoQuoteSpace"
        summary = "a value with spaces has to be in double quotes"

    class InvalidQuote(LoaderError):
        """A double quote inside a value."""

        code = "Cmdline::InvalidQuote"
        summary = "a value has a double quote that is neither its first nor its last character"


# linux-loader: configurator::Error --------------------------------------------------------------


class MissingStartAddress(LoaderError):
    """The first section or module was added without an address."""

    code = "MissingStartAddress"
    summary = "the first boot parameter of a list needs an address"


class Overflow(LoaderError):
    """A list of sections or modules would end beyond 64 bits, or have a gap of many MiB."""

    code = "Overflow"
    summary = "the address of a boot parameter overflows"


class InvalidAddress(LoaderError):
    """A section or module was added at an address before the first of its list."""

    code = "InvalidAddress"
    summary = "a boot parameter lies before the first of its list"


class Linux:
    """The refusals of the zero-page configurator (linux-loader: configurator::linux::Error)."""

    class ZeroPagePastRamEnd(LoaderError):
        """The byte after the zero page is not RAM."""

        code = "Linux::ZeroPagePastRamEnd"
        summary = "the zero page ends at the end of guest RAM or beyond"

    class ZeroPageSetup(LoaderError):
        """The place of the zero page is not all in guest RAM."""

        code = "Linux::ZeroPageSetup"
        summary = "the zero page cannot be written"


class Pvh:
    """The refusals of the PVH configurator (linux-loader: configurator::pvh::Error)."""

    class MemmapTableMissing(LoaderError):
        """There are no sections, hence no memory map."""

        code = "Pvh::MemmapTableMissing"
        summary = "there is no memory map"

    class MemmapTableAddressMissing(LoaderError):
        """There are sections without an address."""

        code = "Pvh::MemmapTableAddressMissing"
        summary = "the memory map has no address"

    class MemmapTablePastRamEnd(LoaderError):
        """The byte after the memory map is not RAM."""

        code = "Pvh::MemmapTablePastRamEnd"
        summary = "the memory map ends at the end of guest RAM or beyond"

    class MemmapTableSetup(LoaderError):
        """The place of the memory map is not all in guest RAM."""

        code = "Pvh::MemmapTableSetup"
        summary = "the memory map cannot be written"

    class StartInfoPastRamEnd(LoaderError):
        """The byte after the start info is not RAM."""

        code = "Pvh::StartInfoPastRamEnd"
        summary = "the start info ends at the end of guest RAM or beyond"

    class StartInfoSetup(LoaderError):
        """The place of the start info is not all in guest RAM."""

        code = "Pvh::StartInfoSetup"
        summary = "the start info cannot be written"

    class ModulesAddressMissing(LoaderError):
        """There are modules without an address."""

        code = "Pvh::ModulesAddressMissing"
        summary = "the module list has no address"

    class ModulesSetup(LoaderError):
        """The place of the module list is not all in guest RAM."""

        code = "Pvh::ModulesSetup"
        summary = "the module list cannot be written"


class Fdt:
    """The refusals of the device-tree configurator (linux-loader: configurator::fdt::Error)."""

    class FDTPastRamEnd(LoaderError):
        """The byte after the device tree is not RAM."""

        code = "Fdt::FDTPastRamEnd"
        summary = "the device tree ends at the end of guest RAM or beyond"

    class WriteFDTToMemory(LoaderError):
        """The place of the device tree is not all in guest RAM."""

        code = "Fdt::WriteFDTToMemory"
        summary = "the device tree cannot be written"


# ours -------------------------------------------------------------------------------------------


class GuestMemoryError(LoaderError):
    """An access outside guest RAM, impossible banks, or a failing backing file."""

    code = "GuestMemory"
    summary = "guest memory cannot be accessed"


class Image:
    """Why an image cannot be opened at all."""

    class Missing(LoaderError):
        """There is no file of that name."""

        code = "Image::Missing"
        summary = "no such file"

    class IsDirectory(LoaderError):
        """The path names a directory."""

        code = "Image::IsDirectory"
        summary = "is a directory, not a kernel image"

    class NotRegular(LoaderError):
        """The path names a device, a pipe or a socket."""

        code = "Image::NotRegular"
        summary = "is not a regular file"

    class Empty(LoaderError):
        """There are no bytes in it."""

        code = "Image::Empty"
        summary = "is empty"

    class Unreadable(LoaderError):
        """The operating system refuses to read it."""

        code = "Image::Unreadable"
        summary = "cannot be read"
