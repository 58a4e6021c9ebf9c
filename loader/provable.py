"""Whether a kernel is a Linux whose boot can be proved; the one answer of every command.

Owns the questions and their order: is it a kernel at all, is it Linux, has it what the proof needs.
Must not know machines, nor how anything is loaded. Only what the bytes show is claimed: a kernel
without a problem may still fail to boot.

Sources: System V ABI, "Program Header" and "Dynamic Section"; Documentation/arch/arm64/booting.rst.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.loader.arch.table import ARCHITECTURES
from bootproof.loader.banner import is_linux
from bootproof.loader.elfheader import (
    EI_CLASS,
    EI_DATA,
    ELF_MAGIC,
    ELFCLASS64,
    ELFDATA2LSB,
    ElfHeader,
)
from bootproof.loader.errors import LoaderError
from bootproof.loader.formats import Format
from bootproof.loader.identify import Identity, identify_bytes, version_string
from bootproof.loader.image import ImageSource
from bootproof.loader.imageheader import BIG_ENDIAN, ImageHeader
from bootproof.loader.kconfig import COMMON, Built, Need, lacking, look
from bootproof.loader.packing import UnpackError
from bootproof.loader.payload import locate
from bootproof.loader.pecoff import TRUNCATED, TruncatedError, check_complete
from bootproof.loader.segments import PT_LOAD, ProgramHeader
from bootproof.loader.setupheader import setup_header

PREFIX: Final = "is no Linux kernel that can be proved: "
_WITHOUT_PROOF: Final = (
    "to start it all the same: bootproof image --no-proof --out DIR FILE, then bootproof run DIR"
    " --until TEXT"
)

_ET_REL, _ET_CORE = 1, 4
_PT_DYNAMIC, _PT_INTERP, _PT_TLS = 2, 3, 7
_DT_NEEDED, _DT_SONAME = 1, 14
_MOST_DYNAMIC: Final = 4096
_LONGEST_NAME: Final = 256


class UnprovableError(LoaderError):
    """No Linux kernel whose boot can be proved."""

    code = "Kernel::Unprovable"


@dataclass(frozen=True, slots=True)
class Problem:
    """Why the boot of a kernel cannot be proved, in a sentence's end, and what can be done."""

    why: str
    advice: str | None = None

    def __str__(self) -> str:
        return f"{PREFIX}{self.why}{f'; {self.advice}' if self.advice else ''}"

    def error(self, file: str) -> UnprovableError:
        return UnprovableError(f"{PREFIX}{self.why}", file=file, advice=self.advice)


def problem(
    kernel: ImageSource, needs: tuple[Need, ...] = COMMON, built: Built | None = None
) -> Problem | None:
    """What stands in the way of a proof, in a kernel that a loader takes; None when nothing does.

    `built` is what kconfig.look says of the kernel and these needs, where that is known already.
    Of a bzImage only that it has a vmlinux inside is asked: ask that as well.
    """
    found = not_a_kernel(kernel)
    identity = identify_bytes(kernel.data)
    if found is not None or identity.format is Format.BZIMAGE:
        return found
    built = look(kernel.data, needs) if built is None else built
    if not built.linux:
        return _no_linux(kernel.data, identity)
    missing = [*lacking(built, needs)]
    return Problem(f"it lacks {'; and '.join(missing)}") if missing else None


def not_a_kernel(kernel: ImageSource) -> Problem | None:
    """Why a file is nothing that could be entered as a kernel, whatever is in it."""
    identity = identify_bytes(kernel.data)
    try:
        check_complete(kernel)
    except TruncatedError as error:
        return Problem(error.detail, error.advice)
    if identity.format is Format.BZIMAGE:
        return _bzimage(kernel, identity)
    if identity.format is Format.ELF:
        return _elf(kernel, identity)
    if identity.format is Format.IMAGE and ImageHeader.from_bytes(kernel.data).flags & BIG_ENDIAN:
        return Problem(f"it is big-endian; bootproof's guests on {identity.arch} are little-endian")
    return None


def _no_linux(data: memoryview, identity: Identity) -> Problem:
    from bootproof.loader.protocols.e820 import HIGH_MEMORY  # few kernels come here
    from bootproof.loader.protocols.x86 import VMLINUX_ALIGNMENT

    named, multiboot = _otherwise_known(data)
    who = f"it is {named}: " if named else ""
    kind = " (it is a Multiboot kernel)" if multiboot else ""
    where = _linked_at(data)
    if where is not None and where % VMLINUX_ALIGNMENT:
        kind += f" (it is linked at {where:#x}, Linux at a multiple of 2 MiB)"
    in_low_memory = where is not None and where < HIGH_MEMORY  # where the protocols' pieces go
    advice = None if in_low_memory else _start_it_all_the_same(identity)
    return Problem(f"{who}there is no 'Linux version' in it{kind}", advice)


def _otherwise_known(data: memoryview) -> tuple[str | None, bool]:
    """What program a file names, and whether it is made for Multiboot."""
    from bootproof.loader import otherfiles  # kernels that boot are not asked

    return otherfiles.program_named_in(data), otherfiles.is_multiboot(data)


def _start_it_all_the_same(identity: Identity) -> str | None:
    """How a kernel is started that cannot prove anything, if there is a protocol to enter it."""
    if identity.arch not in ARCHITECTURES:
        return None
    from bootproof.loader.elf import entered_as_elf

    enters = identity.format is not Format.ELF or entered_as_elf(identity.arch)
    return _WITHOUT_PROOF if enters else None


def _bzimage(kernel: ImageSource, identity: Identity) -> Problem | None:
    try:
        locate(kernel.data, identity)
    except UnpackError as error:
        header = setup_header(kernel.data)
        said = version_string(kernel.data, header) if header else None
        who = f" (its version string says '{said}')" if said else ""
        why = f"no vmlinux can be had out of it: {error.detail}{who}"
        return Problem(why, error.advice or _start_it_all_the_same(identity))
    return None


# --- ELF files that are no kernels ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Segment:
    kind: int
    offset: int
    size: int
    address: int


def _elf(kernel: ImageSource, identity: Identity) -> Problem | None:
    data = kernel.data
    if len(data) < ElfHeader.SIZE or data[EI_DATA] != ELFDATA2LSB:
        return None  # the loader says what is wrong
    kind = ElfHeader.from_bytes(data).e_type  # at the same place in both classes
    if kind == _ET_REL:
        advice = "give the kernel that was linked, vmlinux or what was made of it"
        return Problem("it is a relocatable object: a module, or a part of a build", advice)
    if kind == _ET_CORE:
        return Problem("it is a core dump")
    segments = [*_segments(data)]
    if cut := _cut_off(kernel, segments):
        return cut
    narrow = data[EI_CLASS] != ELFCLASS64
    what = _program(data, segments, narrow)
    if what is not None:
        return Problem(f"it is {what}")
    if narrow:
        named, multiboot = _otherwise_known(data)
        who = f"{named}, " if named else ""
        also = ", for Multiboot" if multiboot else ""
        return Problem(f"it is {who}a 32-bit kernel ({identity.arch or 'ELF'}{also})")
    return None


def _cut_off(kernel: ImageSource, segments: list[_Segment]) -> Problem | None:
    """A file that ends before what is loaded of it: the banner may be in what is not there."""
    ends = (s.offset + s.size for s in segments if s.kind == PT_LOAD)
    end = max(ends, default=0)
    if end <= kernel.size:
        return None
    why = f"the file ends at {kernel.size:#x}, but what is loaded of it (PT_LOAD) ends at {end:#x}"
    return Problem(why, TRUNCATED)


def _program(data: memoryview, segments: list[_Segment], narrow: bool) -> str | None:
    """What an ELF file is that an operating system runs, or loads into what it runs."""
    tags = _dynamic_tags(data, segments, narrow)
    if _DT_SONAME in tags:
        inside = ", with a kernel inside" if is_linux(data) else ""
        return f"a shared library (ELF){inside}"
    interpreter = next((s for s in segments if s.kind == _PT_INTERP), None)
    if interpreter is not None:
        name = bytes(data[interpreter.offset :][: min(interpreter.size, _LONGEST_NAME)])
        who = _otherwise_known(data)[0] if is_linux(data) else None
        shown = name.split(b"\0")[0].decode("ascii", "backslashreplace")
        return f"{who or 'a program'} (ELF, with the interpreter {shown})"
    if _DT_NEEDED in tags:
        return "a shared library (ELF)"
    if any(segment.kind == _PT_TLS for segment in segments):
        who = _otherwise_known(data)[0] if is_linux(data) else None
        return f"{who or 'a program'} (ELF, statically linked)"
    return None


def _segments(data: memoryview) -> Iterator[_Segment]:
    """The program headers of either class, as far as they are in the file."""
    if data[EI_CLASS] != ELFCLASS64:
        from bootproof.loader import elf32  # no kernel that boots here is one

        for row in elf32.program_headers(data, elf32.Elf32Header.from_bytes(data)):
            yield _Segment(row.p_type, row.p_offset, row.p_filesz, row.p_paddr)
        return
    header = ElfHeader.from_bytes(data)
    table = bytes(data[header.e_phoff :][: header.e_phnum * ProgramHeader.SIZE])
    whole = len(table) - len(table) % ProgramHeader.SIZE
    for raw in ProgramHeader.CODEC.iter_unpack(table[:whole]):
        found = ProgramHeader(*raw)
        yield _Segment(found.p_type, found.p_offset, found.p_filesz, found.p_paddr)


def _dynamic_tags(data: memoryview, segments: list[_Segment], narrow: bool) -> set[int]:
    """The tags of the dynamic section: words in pairs, up to DT_NULL."""
    code = struct.Struct("<II" if narrow else "<QQ")
    segment = next((s for s in segments if s.kind == _PT_DYNAMIC), None)
    if segment is None:
        return set()
    raw = bytes(data[segment.offset :][: min(segment.size, _MOST_DYNAMIC)])
    pairs = code.iter_unpack(raw[: len(raw) - len(raw) % code.size])
    return {tag for tag, _ in itertools.takewhile(lambda pair: pair[0], pairs)}


def _linked_at(data: memoryview) -> int | None:
    """Where the first segment of an ELF file is linked; None of another file."""
    if bytes(data[:4]) != ELF_MAGIC or len(data) < ElfHeader.SIZE:
        return None
    loads = [segment.address for segment in _segments(data) if segment.kind == PT_LOAD]
    return min(loads, default=None)
