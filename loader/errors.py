"""Every way in which loading can be refused, as types.

One tree under LoaderError. Each variant of linux-loader's error enums has a class of the same
name, grouped as there (`Elf.InvalidPvhNote`, `Bzimage.Underflow`, `Pe.DtbTooBig`,
`Cmdline.TooLarge`, and the ungrouped `CommandLineOverflow`, …) and a stable `code` such as
"Elf::InvalidPvhNote", which is its place here. Our own refusals follow below them. Other modules
derive their own subclasses and give them a `code`. Knows no format: the raiser says where and why.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, TypeAlias

from bootproof.printable import one_line

GET_AGAIN: Final = "the file is truncated or damaged; get it again"
SMALLER_OFFSET: Final = "use a smaller kernel offset (--offset)"


# What a LoaderError is told by keyword.
Facts: TypeAlias = dict[str, Any]


class LoaderError(Exception):
    """A refusal. `str()` is one line: the file, what is wrong with which value, what to do.

    `detail` is the sentence for this occurrence; without it, one is made from the class's
    `summary`, the first sentence of its docstring, and the fields. The fields are for programs:
    `file` is the image's name, `field` the structure member at fault, `offset` its byte offset in
    the file, `value` what was found, `limit` what was allowed, `advice` what the user can do.
    """

    code: ClassVar[str] = "LoaderError"
    summary: ClassVar[str] = "the kernel cannot be loaded"

    def __init_subclass__(cls) -> None:
        cls.code = vars(cls).get("code", cls.__qualname__.replace(".", "::"))
        if sentence := (cls.__doc__ or "").partition(". ")[0].strip().removesuffix("."):
            cls.summary = sentence[0].lower() + sentence[1:]

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

    @property
    def of_host(self) -> bool:
        """Whether the operating system refused something: the image is not to blame."""
        cause = self.__cause__
        while isinstance(cause, LoaderError):
            cause = cause.__cause__
        # bz2 and gzip call damaged data an OSError, without a number.
        return isinstance(cause, OSError) and cause.errno is not None

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


def _shown(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:#x}"
    return str(value)


# --- linux-loader: loader::Error -----------------------------------------------------------------


class InvalidCommandLine(LoaderError):
    """The command line cannot be written as one string. It has init arguments only, or a NUL
    byte.
    """


class CommandLineCopy(LoaderError):
    """The command line does not lie in guest RAM. It would end inside RAM but start, or pass,
    outside it.
    """


class CommandLineOverflow(LoaderError):
    """The command line ends beyond guest RAM. It would end after the last byte of RAM."""


class InvalidKernelStartAddress(LoaderError):
    """The kernel's start address is below high memory. That is a bzImage's own, high memory's the
    caller's.
    """


class MemoryOverflow(LoaderError):
    """Guest memory is too small for the kernel. Or the kernel's end, BSS included, is no 64-bit
    address.
    """


class Elf:
    """The refusals of the ELF loader (linux-loader: elf::Error)."""

    class Align(LoaderError):
        """Invalid alignment. It is not a power of two. Kept for completeness: nothing raises it."""

    class BigEndianElfOnLittle(LoaderError):
        """The ELF file is not little-endian. EI_DATA says so."""

    class InvalidElfMagicNumber(LoaderError):
        """Not an ELF file. It does not begin with 7f 45 4c 46."""

    class InvalidProgramHeaderSize(LoaderError):
        """The program headers are not those of a 64-bit ELF. An ELF32 kernel ends here: it is
        e_phentsize.
        """

    class InvalidProgramHeaderOffset(LoaderError):
        """The program headers overlap the ELF header."""

    class InvalidProgramHeaderAddress(LoaderError):
        """A segment's address overflows. It is p_paddr plus the kernel offset."""

    class InvalidEntryAddress(LoaderError):
        """The entry address is below high memory. That is e_entry, high memory's start the
        caller's.
        """

    class Overflow(LoaderError):
        """An address or a size overflows. e_entry plus the kernel offset does, or a note's padded
        size.
        """

    class ReadElfHeader(LoaderError):
        """The file ends inside the ELF header."""

    class ReadKernelImage(LoaderError):
        """A segment cannot be copied into guest RAM. Its bytes are not all in the file, or their
        place is not all RAM.
        """

    class ReadProgramHeader(LoaderError):
        """The file ends inside the program headers."""

    class SeekKernelStart(LoaderError):
        """Cannot seek to a segment. Not raised: an image is mapped."""

    class SeekElfStart(LoaderError):
        """Cannot seek to the ELF header. Not raised: an image is mapped."""

    class SeekProgramHeader(LoaderError):
        """Cannot seek to the program headers. Not raised: an image is mapped."""

    class SeekNoteHeader(LoaderError):
        """Cannot seek to a note. Not raised: an image is mapped."""

    class ReadNoteHeader(LoaderError):
        """The file ends inside a note."""

    class InvalidPvhNote(LoaderError):
        """Invalid PVH entry note. It is too short for an address or runs past its segment."""


class Bzimage:
    """The refusals of the bzImage loader (linux-loader: bzimage::Error)."""

    class InvalidBzImage(LoaderError):
        """Not a bzImage. No HdrS magic, a protocol before 2.00, or not loaded high."""

    class Overflow(LoaderError):
        """A size overflows. Kept for completeness: eight bits of setup_sects cannot."""

    class ReadBzImageHeader(LoaderError):
        """Cannot read the setup header. Not raised: an image is mapped."""

    class ReadBzImageCompressedKernel(LoaderError):
        """The protected-mode kernel cannot be copied into guest RAM."""

    class SeekBzImageEnd(LoaderError):
        """Cannot seek to the end of the bzImage. Not raised: an image is mapped."""

    class SeekBzImageHeader(LoaderError):
        """Cannot seek to the setup header. Not raised: an image is mapped."""

    class SeekBzImageCompressedKernel(LoaderError):
        """Cannot seek to the protected-mode kernel. Not raised: an image is mapped."""

    class Underflow(LoaderError):
        """The file ends inside the real-mode setup code. By what it claims of that code's size."""


class Pe:
    """The refusals of the Image (PE) and device-tree loaders (linux-loader: pe::Error)."""

    class SeekImageEnd(LoaderError):
        """Cannot seek to the end of the Image. Not raised: an image is mapped."""

    class SeekImageHeader(LoaderError):
        """Cannot seek to the Image header. Not raised: an image is mapped."""

    class SeekDtbStart(LoaderError):
        """Cannot seek to the start of the device tree. Not raised: a device tree is mapped."""

    class SeekDtbEnd(LoaderError):
        """Cannot seek to the end of the device tree. Not raised: a device tree is mapped."""

    class DtbTooBig(LoaderError):
        """The device tree is too big."""

    class ReadKernelImage(LoaderError):
        """The Image cannot be copied into guest RAM."""

    class ReadImageHeader(LoaderError):
        """The file ends inside the Image header."""

    class ReadDtbImage(LoaderError):
        """The device tree cannot be copied into guest RAM."""

    class InvalidImage(LoaderError):
        """The load address overflows. The base plus text_offset is not a 64-bit address."""

    class InvalidImageMagicNumber(LoaderError):
        """Not an arm64 or riscv64 Image."""

    class InvalidBaseAddrAlignment(LoaderError):
        """The base address is not aligned to 2 MiB."""


class Cmdline:
    """The refusals of the command-line builder (linux-loader: cmdline::Error)."""

    class NullTerminator(LoaderError):
        """The command line contains a NUL byte."""

    class NoBootArgsInserted(LoaderError):
        """The command line has init arguments but no boot arguments."""

    class InvalidCapacity(LoaderError):
        """Invalid command line capacity. It is zero, or too small for the string to be parsed."""

    class InvalidAscii(LoaderError):
        """The command line may only contain printable ASCII."""

    class HasSpace(LoaderError):
        """A command line key contains a space."""

    class HasEquals(LoaderError):
        """A command line key contains an equals sign."""

    class MissingVal(LoaderError):
        """A command line key has no value."""

    class MmioSize(LoaderError):
        """A virtio-mmio device cannot have size 0."""

    class TooLarge(LoaderError):
        """The command line would exceed its capacity."""

    class NoQuoteSpace(LoaderError):
        """A value with spaces has to be in double quotes."""

    class InvalidQuote(LoaderError):
        """A value has a double quote that is neither its first nor its last character."""


# --- linux-loader: configurator::Error -----------------------------------------------------------


class MissingStartAddress(LoaderError):
    """The first boot parameter of a list needs an address. The list is of sections or modules."""


class Overflow(LoaderError):
    """The address of a boot parameter overflows. Its list would end beyond 64 bits, or have a gap
    of many MiB.
    """


class InvalidAddress(LoaderError):
    """A boot parameter lies before the first of its list. The list is of sections or modules."""


class Linux:
    """The refusals of the zero-page configurator (linux-loader: configurator::linux::Error)."""

    class ZeroPagePastRamEnd(LoaderError):
        """The zero page ends at the end of guest RAM or beyond. The byte after it is not RAM."""

    class ZeroPageSetup(LoaderError):
        """The zero page cannot be written."""


class Pvh:
    """The refusals of the PVH configurator (linux-loader: configurator::pvh::Error)."""

    class MemmapTableMissing(LoaderError):
        """There is no memory map."""

    class MemmapTableAddressMissing(LoaderError):
        """The memory map has no address."""

    class MemmapTablePastRamEnd(LoaderError):
        """The memory map ends at the end of guest RAM or beyond. The byte after it is not RAM."""

    class MemmapTableSetup(LoaderError):
        """The memory map cannot be written."""

    class StartInfoPastRamEnd(LoaderError):
        """The start info ends at the end of guest RAM or beyond. The byte after it is not RAM."""

    class StartInfoSetup(LoaderError):
        """The start info cannot be written."""

    class ModulesAddressMissing(LoaderError):
        """The module list has no address."""

    class ModulesSetup(LoaderError):
        """The module list cannot be written."""


class Fdt:
    """The refusals of the device-tree configurator (linux-loader: configurator::fdt::Error)."""

    class FDTPastRamEnd(LoaderError):
        """The device tree ends at the end of guest RAM or beyond. The byte after it is not RAM."""

    class WriteFDTToMemory(LoaderError):
        """The device tree cannot be written."""


# --- ours ----------------------------------------------------------------------------------------


class GuestMemoryError(LoaderError):
    """Guest memory cannot be accessed. An access outside RAM, impossible banks, or a failing
    backing file.
    """

    code = "GuestMemory"


class Image:
    """Why an image cannot be opened at all."""

    class Missing(LoaderError):
        """No such file."""

    class IsDirectory(LoaderError):
        """Is a directory, not a kernel image."""

    class NotRegular(LoaderError):
        """Is not a regular file. It is a device, a pipe or a socket."""

    class Empty(LoaderError):
        """Is empty."""

    class Unreadable(LoaderError):
        """Cannot be read. The operating system refuses."""
