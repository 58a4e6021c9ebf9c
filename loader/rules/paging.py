"""What has to be mapped, and how, for a kernel that is entered with paging on. Pure.

How tables are walked is bootproof.loader.arch.x86_paging's.

Source: Documentation/arch/x86/boot.rst (64-bit Boot Protocol); Intel SDM vol. 3A, 4.6 (rights).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.loader.address import Range
from bootproof.loader.arch.x86_64 import X86Registers
from bootproof.loader.arch.x86_paging import Walker
from bootproof.loader.rules import Findings, documents, violation

_MOST_STEPS: Final = 1 << 16  # pages of one range that are looked at: 256 MiB of small ones
_CR0_WP: Final = 1 << 16
_CR4_SMEP, _CR4_SMAP = 1 << 20, 1 << 21


@dataclass(frozen=True, slots=True)
class Wanted:
    """A range that has to be mapped to itself, and what for."""

    what: str
    range: Range
    written: bool = True
    executed: bool = False


def check(r: X86Registers, walker: Walker, wanted: Iterable[Wanted]) -> Findings:
    """The first page of each range that is not mapped as the kernel needs it."""
    seen = set[str]()
    for want in wanted:
        found = next(_faults(r, walker, want), None)
        if found is not None and found[0] not in seen:
            seen.add(found[0])
            code, sentence, address, section = found
            yield violation(code, sentence, section, address=address)
    yield from _executable(r, walker)


def _faults(r: X86Registers, walker: Walker, want: Wanted) -> Iterator[tuple[str, str, int, str]]:
    address = want.range.start
    for _ in range(_MOST_STEPS):
        if address >= want.range.end:
            return
        page = walker.walk(address)
        if page.physical != address:
            to = f"nothing: {page.why}" if page.physical is None else f"{page.physical:#x}"
            what = f"{address:#x} ({want.what}) is mapped to {to}"
            yield "identity-map", what, address, documents.LINUX64
        elif want.written and r.cr0 & _CR0_WP and not page.writable:
            what = f"{address:#x} ({want.what}) is mapped read-only, and CR0.WP is set"
            yield "mapped-read-only", what, address, documents.PAGING
        elif want.executed and not page.executable:
            what = f"{address:#x} ({want.what}) is mapped as not executable"
            yield "mapped-no-execute", what, address, documents.PAGING
        elif page.user and r.cr4 & _CR4_SMAP:
            what = f"{address:#x} ({want.what}) is a user page, and CR4.SMAP is set"
            yield "mapped-for-users", what, address, documents.PAGING
        address = page.end


def _executable(r: X86Registers, walker: Walker) -> Findings:
    page = walker.walk(r.rip)
    if page.physical is None:
        return  # said already
    if not page.executable:
        what = f"the page of the first instruction, {r.rip:#x}, is mapped as not executable"
        yield violation("mapped-no-execute", what, documents.PAGING, address=r.rip)
    if page.user and r.cr4 & _CR4_SMEP:
        what = f"the page of the first instruction, {r.rip:#x}, is a user page (CR4.SMEP is set)"
        yield violation("mapped-for-users", what, documents.PAGING, address=r.rip)
