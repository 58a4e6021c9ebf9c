"""Every case that applies to one kernel, with what must happen and why. Pure: nothing is opened.

Owns the rules from a kernel's own headers to cases: which protocols it offers, which offsets are
legal, which are not and how they are refused. Must not know where a kernel came from, nor how a
case runs. What cannot be claimed of a kernel is left out, and said.

Sources: Documentation/arch/x86/boot.rst (kernel_alignment, relocatable_kernel, min_alignment,
pref_address, init_size, xloadflags), Documentation/arch/arm64/booting.rst (text_offset, image_size,
flags), Xen's public/elfnote.h (PHYS32_RELOC).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field
from typing import Any, Final

from bootproof.dataclass import dataclass
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.case import MIB_512, Case, Expectation, short
from bootproof.harness.cases.schema import ram_base
from bootproof.harness.verdict import Verdict
from bootproof.loader.address import GIB, MIB, align_down, align_up, format_size
from bootproof.loader.inspect import PLACED_ANYWHERE, Inspection, Placement, Pvh
from bootproof.loader.pe import BASE_ALIGNMENT
from bootproof.loader.protocols import linux32, linux64, pvh
from bootproof.loader.protocols.table import PROTOCOLS
from bootproof.loader.protocols.x86 import VMLINUX_ALIGNMENT
from bootproof.loader.result import PvhState

TERA: Final = 1 << 40
_WRAPS: Final = 0xFFFF_FFFF_FFF0_0000  # a 64-bit address that no kernel fits behind
_WRAPS_ALIGNED: Final = 0xFFFF_FFFF_FFE0_0000  # the same as a multiple of 2 MiB
_ELF_OFFSETS: Final = (0, 2 * MIB, 16 * MIB, 256 * MIB)
_RELOCATIONS: Final = (2 * MIB, 16 * MIB, 256 * MIB)
_BZIMAGE_LOADS: Final = (32 * MIB, 256 * MIB)
_IMAGE_BASES: Final = (0, 2 * MIB, 64 * MIB, GIB)
# What a guest needs beside its kernel and initrd: the pieces of the protocol, and RAM to run in.
_ELBOW_ROOM: Final = 96 * MIB
_MOST_MEMORY: Final = 2 * GIB  # the largest that every board has in one piece


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel as the derivation sees it."""

    # In ids.
    name: str
    path: str
    arch: str
    # What each format in the file says of itself, outermost first.
    forms: tuple[Inspection, ...]
    # What other runs are compared by, where the name is only that of its file.
    role: str | None = None


@dataclass(frozen=True, slots=True)
class Given:
    """What the user gives to every guest."""

    # Fields of every case.
    values: Mapping[str, Any] = field(default_factory=dict)
    # Bytes of what goes behind the initrd of ours.
    initrd_size: int = 0


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Cases that are not claimed: what, and why not."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Derived:
    """The cases of a kernel, and what was left out."""

    cases: tuple[Case, ...]
    left_out: tuple[LeftOut, ...]


_NOTHING: Final = Given()


def derive(kernel: Kernel, given: Given = _NOTHING) -> Derived:
    """All cases of `kernel`, by format and protocol."""
    cases: list[Case] = []
    left_out: list[LeftOut] = []
    for form in kernel.forms:
        plan = _Plan(kernel, given, form)
        for item in _RULES[form.kernel](plan):
            if isinstance(item, Case):
                cases.append(item)
            else:
                left_out.append(item)
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        groups.setdefault((case.format, case.protocol), []).append(case)
    return Derived(tuple(c for group in groups.values() for c in group), tuple(left_out))


@dataclass(frozen=True, slots=True)
class _Plan:
    """One format of one kernel, and how its cases are made."""

    kernel: Kernel
    given: Given
    form: Inspection

    @property
    def ram(self) -> int:
        """Where the guest's RAM begins."""
        return ram_base({"arch": self.kernel.arch, "machine": self.given.values.get("board")})

    @property
    def image_protocol(self) -> str:
        """What an Image is entered through: the one protocol of its architecture."""
        (name,) = (p.name for p in PROTOCOLS.values() if p.arch.name == self.kernel.arch)
        return name

    @property
    def placed(self) -> Placement:
        assert self.form.placed is not None
        return self.form.placed

    def number(self, name: str) -> int:
        """A field of the kernel's own header; 0 when its version has no such field."""
        value = self.form.header.get(name, 0)
        return value if isinstance(value, int) else 0

    def flag(self, field_name: str, flag: str) -> bool:
        value = self.form.header.get(field_name, ())
        return isinstance(value, tuple) and flag in value

    def case(self, protocol: str, offset: int | None, expect: Expectation, **others: Any) -> Case:
        return Case(
            self.kernel.arch,
            self.kernel.name,
            self.form.kernel,
            protocol,
            offset,
            kernel_path=self.kernel.path,
            kernel_role=self.kernel.role,
            expect=expect,
            **{**self.given.values, **others},
        )

    @property
    def most_memory(self) -> int:
        """The most guest RAM that a case may be given."""
        return int(self.given.values.get("memory", _MOST_MEMORY))

    def memory(self, end: int) -> int | None:
        """Guest RAM in which a kernel that ends at guest-physical `end` has room; None: no size."""
        need = end - self.ram + self.given.initrd_size + _ELBOW_ROOM
        memory = int(self.given.values.get("memory", MIB_512))
        while memory < need:
            memory *= 2
        return memory if memory <= self.most_memory else None

    def boots(
        self, protocol: str, offset: int | None, end: int, expect: Expectation, **others: Any
    ) -> Case | LeftOut:
        """A case that must boot, when there is RAM for it; `end` is where the kernel ends."""
        memory = self.memory(end)
        if memory is None:
            where = "no offset" if offset is None else f"offset {short(offset)}"
            what = f"{self.form.kernel}, {protocol}, {where}"
            return LeftOut(what, f"it would need more than {format_size(self.most_memory)} of RAM")
        return self.case(protocol, offset, expect, memory=memory, **others)

    def refused(
        self,
        protocol: str,
        offset: int | None,
        code: str,
        why: str,
        says: str | None = None,
        **others: Any,
    ) -> Case:
        expect = Expectation(Verdict.LOAD_REFUSED, code=code, reason=says, why=why)
        if "memory" not in others:
            others["memory"] = self.memory(self.placed.footprint_end) or self.most_memory
        return self.case(protocol, offset, expect, **others)


# --- vmlinux -------------------------------------------------------------------------------------


def _elf(plan: _Plan) -> Iterator[Case | LeftOut]:
    note = plan.placed.pvh
    yield from _elf_linux64(plan, note)
    yield from _elf_pvh(plan, note)
    yield from _elf_refused(plan)


def _elf_linux64(plan: _Plan, note: Pvh) -> Iterator[Case | LeftOut]:
    state = PvhState(note.state)
    end = plan.placed.footprint_end
    expect = Expectation(pvh=state, why="it runs where it was linked")
    yield plan.boots(linux64.NAME, None, end, expect)
    fixed = _fixed(plan)
    if fixed is not None:
        yield LeftOut("elf at an offset", fixed)
        return
    for offset in _ELF_OFFSETS:
        why = f"it runs {short(offset)} above where it was linked: a multiple of 2 MiB"
        if not offset:
            why = "it runs where it was linked; any offset, even 0, turns PVH off"
        expect = Expectation(pvh=PvhState.IGNORED, why=why)
        yield plan.boots(linux64.NAME, offset, end + offset, expect)


def _fixed(plan: _Plan) -> str | None:
    """Why a kernel may not be moved, when the header of the bzImage it came in says so."""
    header = next((f.header for f in plan.kernel.forms if f.kernel == "bzimage"), None)
    if header is None or header.get("relocatable_kernel"):
        return None
    return "relocatable_kernel is 0 in the setup header: no other place is promised"


def _elf_pvh(plan: _Plan, note: Pvh) -> Iterator[Case | LeftOut]:
    """Through PVH, and what a VMM takes that prefers it."""
    end = plan.placed.footprint_end
    if note.state != PvhState.PRESENT.value:
        yield plan.boots(
            "auto",
            None,
            end,
            Expectation(
                pvh=PvhState(note.state),
                protocol=linux64.NAME,
                why="it has no PVH note, so the 64-bit protocol is taken",
            ),
            label="pvh-not-present",
        )
        yield plan.refused(pvh.NAME, None, _REFUSED, "it has no PVH note", "no PVH note")
        return
    expect = Expectation(
        pvh=PvhState.PRESENT, protocol=pvh.NAME, why=f"its note names the entry {note.entry:#x}"
    )
    yield plan.boots(pvh.NAME, None, end, expect)
    why = "an offset, even 0, turns PVH off"
    yield plan.refused(pvh.NAME, 0, _REFUSED, why, "ignored")
    if _fixed(plan) is None:
        expect = Expectation(
            pvh=PvhState.IGNORED,
            protocol=linux64.NAME,
            why="an offset turns PVH off, so the 64-bit protocol is taken",
        )
        yield plan.boots("auto", 16 * MIB, end + 16 * MIB, expect, label="pvh-ignored")
        yield from _relocations(plan, note)


def _relocations(plan: _Plan, note: Pvh) -> Iterator[Case | LeftOut]:
    """PVH at an offset, asked for, inside and outside of what the note allows."""
    if note.align is None or note.min is None or note.max is None:
        why = "it has no relocation note: its PVH entry runs at one address only"
        yield plan.refused(pvh.NAME, 2 * MIB, _FIXED_PVH, why, pvh_relocate=True)
        return
    start, end = plan.placed.footprint_start, plan.placed.footprint_end
    step = max(note.align, VMLINUX_ALIGNMENT)
    lowest = align_up(max(note.min, start), step) - start
    highest = align_down(note.max + 1 - (end - start), step) - start
    allowed = f"its note allows multiples of {short(note.align)} from {note.min:#x}"
    wanted = {lowest, *(align_up(start + offset, step) - start for offset in _RELOCATIONS)}
    expect = Expectation(
        pvh=PvhState.PRESENT, protocol=pvh.NAME, why=f"{allowed}, ending at {note.max:#x}"
    )
    for offset in sorted(wanted):
        if lowest <= offset <= highest:
            yield plan.boots(pvh.NAME, offset, end + offset, expect, pvh_relocate=True)
    yield from _last_relocation(plan, note, highest, step, lowest)
    odd = note.align // 2
    if odd and odd % 0x1000 == 0 and (start + odd) % note.align:
        why = f"{allowed}; this is none"
        yield plan.refused(pvh.NAME, odd, _FIXED_PVH, why, pvh_relocate=True)
    if start < note.min:
        why = f"its note allows nothing below {note.min:#x}"
        yield plan.refused(pvh.NAME, 0, _FIXED_PVH, why, pvh_relocate=True)


def _last_relocation(
    plan: _Plan, note: Pvh, highest: int, step: int, lowest: int
) -> Iterator[Case | LeftOut]:
    """The last place that the note allows, and the next one, which it does not."""
    assert note.max is not None
    end = plan.placed.footprint_end
    beyond = max(highest + step, 0)
    memory = plan.memory(end + beyond)
    if memory is None:
        why = f"the note allows places up to {note.max:#x}, more than this guest's RAM"
        yield LeftOut("elf, pvh, the last place that the note allows", why)
        return
    if highest >= lowest:
        why = f"the last place that its note allows: it ends at {note.max:#x} at the latest"
        expect = Expectation(pvh=PvhState.PRESENT, protocol=pvh.NAME, why=why)
        others = {"pvh_relocate": True, "label": "pvh-last"}
        yield plan.boots(pvh.NAME, highest, end + highest, expect, **others)
    why = f"its note allows no end above {note.max:#x}"
    says = f"{note.max:#x}"
    others = {"pvh_relocate": True, "memory": memory, "label": "pvh-too-high"}
    yield plan.refused(pvh.NAME, beyond, _FIXED_PVH, why, says, **others)


def _elf_refused(plan: _Plan) -> Iterator[Case]:
    why = "the kernel's first page tables have 2 MiB pages"
    yield plan.refused(linux64.NAME, MIB, _REFUSED, why, "multiple of 2 MiB")
    why = "there is no RAM there"
    yield plan.refused(linux64.NAME, TERA, "Elf::ReadKernelImage", why)
    why = "addresses do not wrap around"
    yield plan.refused(linux64.NAME, _WRAPS, "Elf::Overflow", why)
    why = "the kernel does not fit; the user is told how much RAM it takes"
    little = align_up(plan.placed.footprint_start, MIB) + MIB
    yield plan.refused(
        *(linux64.NAME, None, "Elf::ReadKernelImage", why, "--memory"),
        memory=little,
        label="small-memory",
    )


# --- bzImage -------------------------------------------------------------------------------------


def _bzimage(plan: _Plan) -> Iterator[Case | LeftOut]:
    for protocol in (linux64.NAME, linux32.NAME):
        if protocol not in plan.placed.entry_points:
            yield LeftOut(f"bzimage, {protocol}", "its header offers no such entry")
            continue
        why = "the decompressor moves it to its preferred address, or to one that KASLR chose"
        end = plan.placed.footprint_end
        yield plan.boots(protocol, None, end, Expectation(why=why))
        for load, why in _legal_loads(plan):
            expect = Expectation(why=why)
            yield plan.boots(protocol, load, load + plan.number("init_size"), expect)
    yield from _bzimage_not_moved(plan)
    yield from _bzimage_refused(plan)


def _legal_loads(plan: _Plan) -> list[tuple[int, str]]:
    """Load addresses that the header allows, and why; none when it does not let it be moved."""
    if _not_moved(plan):
        return []
    alignment, preferred = plan.number("kernel_alignment"), plan.number("pref_address")
    loads = {preferred: "its preferred address"} if preferred else {}
    for wanted in _BZIMAGE_LOADS:
        why = f"relocatable, and a multiple of its kernel_alignment {short(alignment)}"
        loads.setdefault(align_up(max(wanted, preferred), alignment), why)
    least = 1 << plan.number("min_alignment")
    if MIB <= least < alignment:
        why = f"only a multiple of {short(least)}, which is its min_alignment: it is moved up"
        loads[max(loads) + least] = why
    return list(loads.items())


def _not_moved(plan: _Plan) -> str | None:
    """Why no other load address than the header's own is claimed."""
    alignment = plan.number("kernel_alignment")
    if not plan.number("relocatable_kernel"):
        return "relocatable_kernel is 0 in the setup header: no other place is promised"
    if not alignment or alignment & (alignment - 1):
        return (
            f"kernel_alignment {alignment:#x} is not a power of two: no address is known as legal"
        )
    return None


def _bzimage_not_moved(plan: _Plan) -> Iterator[LeftOut]:
    why = _not_moved(plan)
    if why:
        yield LeftOut("bzimage at another load address", why)


def _bzimage_refused(plan: _Plan) -> Iterator[Case | LeftOut]:
    protocol = next(iter(sorted(plan.placed.entry_points, reverse=True)))
    code = "Bzimage::ReadBzImageCompressedKernel"
    yield plan.refused(protocol, TERA, code, "there is no RAM there")
    yield plan.refused(protocol, _WRAPS, code, "addresses do not wrap around")
    yield _starved(plan, protocol, None, "init_size", code)


def _starved(
    plan: _Plan, protocol: str, offset: int | None, size_field: str, code: str
) -> Case | LeftOut:
    """One MiB less than the kernel says it needs; `code` is for when not even the file fits."""
    placed = plan.form.moved if offset is not None else plan.placed
    if not plan.number(size_field) or placed is None:
        what = f"{plan.form.kernel} with too little memory"
        return LeftOut(what, f"its header has no {size_field}: what it needs is not known")
    memory = align_down(placed.footprint_end - 1, MIB) - plan.ram
    why = f"its {size_field} asks for RAM up to {placed.footprint_end - 1:#x}"
    expected = code if placed.end > plan.ram + memory else "Layout::NoRoom"
    others = {"memory": memory, "label": "small-memory"}
    return plan.refused(protocol, offset, expected, why, "--memory", **others)


# --- Image ---------------------------------------------------------------------------------------


def _image(plan: _Plan) -> Iterator[Case | LeftOut]:
    size = plan.placed.footprint_end  # of an Image without an offset: from its base on
    says = ARCHES[plan.kernel.arch].image_says_place
    near = says and not plan.flag("flags", PLACED_ANYWHERE)
    if not plan.ram:
        why = "no offset means base 0, where this board's RAM begins"
        yield plan.boots(plan.image_protocol, None, size, Expectation(why=why))
    for above in _IMAGE_BASES:
        if above and near:
            why = "its flags say that it must be as near to the start of RAM as it can"
            yield LeftOut("image above the start of RAM", why)
            break
        why = "a multiple of 2 MiB from the start of RAM" if above else "the start of RAM"
        base = plan.ram + above
        yield plan.boots(plan.image_protocol, base, base + size, Expectation(why=why))
    yield from _image_refused(plan)


def _image_refused(plan: _Plan) -> Iterator[Case | LeftOut]:
    protocol, no_ram = plan.image_protocol, "Pe::ReadKernelImage"
    if plan.ram:
        why = "no offset means base 0, where this board has no RAM"
        yield plan.refused(protocol, None, no_ram, why, "RAM begins at")
    why = "the base must be a multiple of 2 MiB"
    misaligned = plan.ram + BASE_ALIGNMENT // 2
    yield plan.refused(protocol, misaligned, "Pe::InvalidBaseAddrAlignment", why)
    yield plan.refused(protocol, TERA, no_ram, "there is no RAM there")
    if plan.number("text_offset") < BASE_ALIGNMENT:
        why = "addresses do not wrap around"
        yield plan.refused(protocol, _WRAPS_ALIGNED, no_ram, why)
    yield _starved(plan, protocol, plan.ram, "image_size", no_ram)


# Codes of the loader's refusals.
_REFUSED: Final = "Protocol::Refused"
_FIXED_PVH: Final = "Pvh::NotRelocatable"

_RULES: Final[Mapping[str, Callable[[_Plan], Iterable[Case | LeftOut]]]] = {
    "elf": _elf,
    "bzimage": _bzimage,
    "image": _image,
}
