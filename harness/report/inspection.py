"""An `Inspection` as text for a terminal.

Owns the wording and the layout. Must not know how anything was found out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from bootproof.harness.report.rendered import rendered
from bootproof.loader.address import MIB, format_size
from bootproof.loader.inspect import (
    BzImagePayload,
    Change,
    HeaderValue,
    Inspection,
    Placement,
    Pvh,
    Refusal,
)
from bootproof.printable import one_line

_MOST_FINDINGS = 30  # a damaged file can give one for each of 65535 segments
_FORMATS = {
    "elf": "vmlinux (ELF)",
    "bzimage": "bzImage",
    "image": "Image",
    "zboot": "EFI zboot image",
    "uki": "unified kernel image",
}
# Header fields that are numbers of their own, not addresses.
_DECIMAL = ("e_type", "e_machine", "e_phnum", "cmdline_size", "relocatable_kernel")

Row = tuple[str, str]


def render(inspection: Inspection) -> str:
    """The inspection as plain lines of at most 118 columns, on a terminal of its width; the last
    one ended too."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in _rows(inspection):
        table.add_row(Text(f"  {label}"), Text(one_line(value)))
    return rendered(Text(one_line(inspection.file)), table, terminal=sys.stdout.isatty())


def _rows(inspection: Inspection) -> Iterator[Row]:
    yield from _what_it_is(inspection)
    for layer in inspection.layers:
        yield "packed in", _packed(layer.container, layer.packing, layer.packed_size, layer.size)
    if inspection.layers:
        yield "kernel", f"{_name(inspection, inspection.kernel)}, {_size(inspection.kernel_size)}"
    yield "release", inspection.release or "not found"
    if inspection.cmdline is not None:
        yield "command line", inspection.cmdline
    if inspection.initrd_size is not None:
        yield "initrd", _size(inspection.initrd_size)
    if inspection.payload:
        yield from _payload_rows(inspection.payload)
    yield from _placement_rows(inspection.kernel, inspection.placed, inspection.refused)
    if inspection.moved or inspection.moved_refused:
        yield from _moved_rows(inspection.moved, inspection.moved_refused, inspection.changes)
    for label, value in inspection.header.items():
        yield label, _header_value(label, value)
    for finding in inspection.findings[:_MOST_FINDINGS]:
        yield "finding", f"{finding.code}: {finding.sentence}"
    if len(inspection.findings) > _MOST_FINDINGS:
        yield "finding", f"and {len(inspection.findings) - _MOST_FINDINGS} more (all with --json)"


def _what_it_is(inspection: Inspection) -> Iterator[Row]:
    arch = inspection.arch or "architecture not said"
    name = _name(inspection, inspection.format)
    yield "format", f"{name}, {arch}, {_size(inspection.size)}"
    if inspection.unprovable:
        yield "boot", inspection.unprovable


def _name(inspection: Inspection, format_: str) -> str:
    if inspection.unprovable and format_ == "elf":
        return "ELF"  # a vmlinux is Linux
    return _FORMATS.get(format_, f"{format_} file")


def _packed(container: str, packing: str, packed_size: int, size: int) -> str:
    name = _FORMATS.get(container, f"{container} file")
    return f"{name}, {packing}, {_size(packed_size)} to {_size(size)}"


def _payload_rows(payload: BzImagePayload) -> Iterator[Row]:
    sizes = f"{_size(payload.packed_size)} to {_size(payload.size)}"
    yield "payload", f"{payload.packing}, {sizes}, at file offset {payload.offset:#x}"
    if payload.pvh:
        yield "vmlinux in it", f"PVH {_pvh(payload.pvh)}"


def _placement_rows(
    kernel: str, placement: Placement | None, refusal: Refusal | None
) -> Iterator[Row]:
    if refusal:
        yield "refused", f"{refusal.code}: {refusal.sentence}"
    if placement is None:
        return
    start, end = placement.footprint_start, placement.footprint_end
    yield "kernel_load", f"{placement.load:#x}"
    yield "kernel_end", f"{placement.end:#x}"
    yield "footprint", f"{start:#x}-{end - 1:#x}, {_size(end - start)}"
    for name, address in placement.entry_points.items():
        yield f"{name} entry", f"{address:#x}"
    if kernel == "elf":  # the loaders of the others say "ignored" of every kernel
        yield "PVH", _pvh(placement.pvh)


def _moved_rows(
    placement: Placement | None, refusal: Refusal | None, changes: Sequence[Change]
) -> Iterator[Row]:
    if refusal:
        yield "with offset", f"refused, {refusal.code}: {refusal.sentence}"
    if placement is None:
        return
    offset = f"{placement.offset or 0:#x}"
    if not changes:
        yield "with offset", f"{offset}: nothing changes"
    for change in changes:
        yield f"at {offset}", f"{change.what}: {change.before} becomes {change.after}"


def _size(size: int) -> str:
    return f"{size / MIB:.1f} MiB" if size >= MIB and size % MIB else format_size(size)


def _pvh(pvh: Pvh) -> str:
    if pvh.entry is None:
        return pvh.state
    text = f"{pvh.state}, entry {pvh.entry:#x}"
    if pvh.align is None or pvh.min is None or pvh.max is None:
        return f"{text}, not relocatable"
    return f"{text}, relocatable within {pvh.min:#x}-{pvh.max:#x} by {_size(pvh.align)}"


def _header_value(label: str, value: HeaderValue) -> str:
    if isinstance(value, int):
        return str(value) if label in _DECIMAL else f"{value:#x}"
    if isinstance(value, tuple):
        return " ".join(value) or "none"
    return value
