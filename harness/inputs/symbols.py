"""Names for program counters, from a kernel's own symbol table.

However a kernel was moved, by its loader, by KASLR or by being mapped elsewhere, it moved by a
multiple of 2 MiB (or by what the loader was asked for): of all places in the image that this leaves
for a program counter, the code that is executed there tells which one it is. Where it tells none,
or more than one, there is no name: none is better than a wrong one.

vmlinux-to-elf, which is optional, finds the symbols of kernels without a symbol table (kallsyms).
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import importlib.util
import os
import resource
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bootproof.harness.host import confined
from bootproof.loader.address import GIB, MIB
from bootproof.loader.elfheader import E_MACHINES, ELF_MAGIC, ELFCLASS64, ELFDATA2LSB, ElfHeader
from bootproof.loader.formats import Format
from bootproof.loader.identify import identify
from bootproof.loader.segments import ProgramHeader

_MOVED_BY: Final = 2 * MIB  # x86: CONFIG_PHYSICAL_ALIGN; arm64: MIN_KIMG_ALIGN
_ALIKE: Final = 3 / 4  # of the bytes: kernels patch their code while they boot
_FEWEST_BYTES: Final = 16
_FEWEST_VALUES: Final = 6  # different ones: padding is the same everywhere
_SYMBOL: Final = struct.Struct("<IBBHQQ")  # Elf64_Sym
_ET_EXEC, _PT_LOAD, _ALL_RIGHTS, _ANYWHERE = 2, 1, 7, 0xFFFFFFFF80000000
_NOTYPE, _FUNC, _UNDEFINED, _ABSOLUTE = 0, 2, 0, 0xFFF1
_FINDER: Final = "vmlinux_to_elf"
_RUN_FINDER: Final = "from vmlinux_to_elf.scripts.vmlinux_to_elf import main; main()"
_FINDER_CPU_SECONDS: Final = 120  # it takes about 15, 30 for the largest kernels
_FINDER_SECONDS: Final = 3600.0  # on a host that has no CPU time for it
_FINDER_MEMORY: Final = 4 * GIB


@dataclass(frozen=True, slots=True)
class Symbols:
    """An image's code and names by address, both relative to the start of its first segment."""

    segments: tuple[tuple[int, bytes], ...]
    addresses: tuple[int, ...]
    names: tuple[str, ...]

    def name(self, pc: int, before: bytes, at: bytes, displacement: int = 0) -> str | None:
        """The name of a program counter, with the code before it and at it: `start_kernel+0x10`.

        `displacement` is how far the image was loaded from where it may move by itself.
        """
        place = self.place(pc, before, at, displacement)
        return None if place is None else self._named(place)

    def place(self, pc: int, before: bytes, at: bytes, displacement: int = 0) -> int | None:
        """Where in the image a program counter is; None where that cannot be told."""
        window = before + at
        if len(window) < _FEWEST_BYTES or len(set(window)) < _FEWEST_VALUES:
            return None
        residues = {pc % _MOVED_BY, (pc - displacement) % _MOVED_BY}
        places = [
            place
            for residue in residues
            for place in range(residue, self._end, _MOVED_BY)
            if self._alike(place - len(before), window)
        ]
        return places[0] if len(places) == 1 else None

    def function(self, place: int) -> str | None:
        """The function at a place in the image; None beside all of it."""
        if not any(start <= place < start + len(data) for start, data in self.segments):
            return None
        index = bisect.bisect_right(self.addresses, place) - 1
        return None if index < 0 else self.names[index]

    @property
    def _end(self) -> int:
        return max((start + len(data) for start, data in self.segments), default=0)

    def _alike(self, address: int, window: bytes) -> bool:
        for start, data in self.segments:
            if start <= address and address + len(window) <= start + len(data):
                code = data[address - start : address - start + len(window)]
                same = sum(one == other for one, other in zip(code, window, strict=True))
                return same >= _ALIKE * len(window)
        return False

    def _named(self, address: int) -> str | None:
        index = bisect.bisect_right(self.addresses, address) - 1
        return None if index < 0 else f"{self.names[index]}+{address - self.addresses[index]:#x}"


def read(path: Path) -> Symbols | None:
    """The symbols of a 64-bit ELF file; None when it has none, or is no such file."""
    # Only a failure needs names: what they cost to import is not for every boot.
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    with path.open("rb") as file:
        try:
            elf = ELFFile(file)
            loads = [s for s in elf.iter_segments("PT_LOAD") if s["p_filesz"]]
            table = elf.get_section_by_name(".symtab")
            if elf.elfclass != 64 or not loads or table is None:
                return None
            base = loads[0]["p_vaddr"]
            segments = tuple((s["p_vaddr"] - base, s.data()) for s in loads if s["p_vaddr"] >= base)
            raw, texts = table.data(), elf.get_section(table["sh_link"]).data()
        except (ELFError, OSError, KeyError, AttributeError, ValueError):
            return None
    named = dict(_functions(raw, texts, base))
    if not named:
        return None
    addresses = tuple(sorted(named))
    return Symbols(segments, addresses, tuple(named[address] for address in addresses))


def _functions(table: bytes, texts: bytes, base: int) -> Iterator[tuple[int, str]]:
    """Addresses and names; of several at one address, a function and a global one comes last."""
    usable = len(table) - len(table) % _SYMBOL.size
    functions = []
    for name_at, info, _, section, value, _ in _SYMBOL.iter_unpack(table[:usable]):
        kind, binding = info & 0xF, info >> 4
        if kind in (_NOTYPE, _FUNC) and section not in (_UNDEFINED, _ABSOLUTE) and value >= base:
            name = texts[name_at : texts.find(b"\0", name_at)].decode("ascii", "replace")
            if name and name.isprintable() and not name.startswith(("$", ".L")):
                functions.append((kind, binding, value - base, name))
    for _, _, address, name in sorted(functions):
        yield address, name


def can_be_found() -> bool:
    """Whether vmlinux-to-elf is installed."""
    return importlib.util.find_spec(_FINDER) is not None


def find(kernel: Path, target: Path) -> None:
    """Writes an ELF file with the symbols that a kernel carries inside; an empty one without.

    An Image that the finder cannot read as it is, it may as the only segment of an ELF file: from
    Linux 7.0 on it goes by the address of the first one, and takes any bytes for its header.
    """
    identity = identify(kernel)
    machine = next((n for n, arch in E_MACHINES.items() if arch == identity.arch), None)
    _run_finder(kernel, target, machine)
    if identity.format is Format.IMAGE and machine is not None and not _has_symbols(target):
        wrapped = target.with_name(f"{target.name}.elf")
        try:
            wrapped.write_bytes(as_elf(kernel.read_bytes(), machine))
            _run_finder(wrapped, target, machine)
        finally:
            wrapped.unlink(missing_ok=True)
        found = read(target) if target.exists() else None
        if found is not None and found.addresses[0]:  # of another place than the file's beginning
            target.unlink()
    if not _has_symbols(target):
        target.write_bytes(b"")


def _has_symbols(target: Path) -> bool:
    return target.exists() and read(target) is not None


def as_elf(image: bytes, machine: int) -> bytes:
    """An ELF file with one segment, at an address that says nothing."""
    start = ElfHeader.SIZE + ProgramHeader.SIZE
    places = (start, _ANYWHERE, _ANYWHERE, len(image), len(image), 1)
    segment = ProgramHeader(_PT_LOAD, _ALL_RIGHTS, *places)
    header = ElfHeader(
        e_ident=ELF_MAGIC + bytes((ELFCLASS64, ELFDATA2LSB, 1)) + bytes(9),
        e_type=_ET_EXEC,
        e_machine=machine,
        e_version=1,
        e_entry=_ANYWHERE,
        e_phoff=ElfHeader.SIZE,
        e_shoff=0,
        e_flags=0,
        e_ehsize=ElfHeader.SIZE,
        e_phentsize=ProgramHeader.SIZE,
        e_phnum=1,
        e_shentsize=0,
        e_shnum=0,
        e_shstrndx=0,
    )
    return header.to_bytes() + segment.to_bytes() + image


def _run_finder(kernel: Path, target: Path, machine: int | None) -> None:
    """`machine` is an ELF file's e_machine, of 64 bits."""
    told = [] if machine is None else ["--e-machine", str(machine), "--bit-size", "64"]
    target.unlink(missing_ok=True)
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(
            [sys.executable, "-I", "-c", _RUN_FINDER, *told, str(kernel), str(target)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            preexec_fn=functools.partial(_limited, os.getpid()),
            timeout=_FINDER_SECONDS,  # with one, a thread that waits can be interrupted
        )


def _limited(parent: int) -> None:
    confined.die_with(parent)
    resource.setrlimit(resource.RLIMIT_CPU, (_FINDER_CPU_SECONDS, _FINDER_CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (_FINDER_MEMORY, _FINDER_MEMORY))
