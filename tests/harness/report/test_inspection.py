"""The text of `bootproof inspect`."""

from __future__ import annotations

from dataclasses import replace

from bootproof.harness.report.inspection import render
from bootproof.loader.inspect import inspect
from bootproof.loader.packing import Packing
from tests.builders import images, packings

VMLINUX = images.elf(
    images.load(0x100_0000, b"Linux version 6.12.9-test (x)", memsz=0x30_0000),
    images.notes(
        images.pvh_entry(0x100_0040), images.pvh_reloc(0x20_0000, 0x100_0000, 0x3FFF_FFFF)
    ),
    entry=0x100_0000,
)


def test_vmlinux_with_an_offset() -> None:
    inspection = inspect(VMLINUX, offset=0x20_0000)
    inspection = replace(inspection, file="vmlinux", findings=(), unprovable=None)
    assert render(inspection) == (
        "vmlinux\n"
        "  format         vmlinux (ELF), x86_64, 260 bytes\n"
        "  release        6.12.9-test\n"
        "  kernel_load    0x1000000\n"
        "  kernel_end     0x1300000\n"
        "  footprint      0x1000000-0x12fffff, 3 MiB\n"
        "  linux64 entry  0x1000000\n"
        "  pvh entry      0x1000040\n"
        "  PVH            present, entry 0x1000040, relocatable within 0x1000000-0x3fffffff by 2 "
        "MiB\n"
        "  at 0x200000    kernel_load: 0x1000000 becomes 0x1200000\n"
        "  at 0x200000    kernel_end: 0x1300000 becomes 0x1500000\n"
        "  at 0x200000    footprint: 0x1000000-0x12fffff becomes 0x1200000-0x14fffff\n"
        "  at 0x200000    PVH: present becomes ignored\n"
        "  at 0x200000    linux64 entry: 0x1000000 becomes 0x1200000\n"
        "  at 0x200000    pvh entry: 0x1000040 becomes none\n"
        "  e_type         2\n"
        "  e_machine      62\n"
        "  e_entry        0x1000000\n"
        "  e_phnum        2\n"
    )


def test_bzimage_shows_its_payload_and_not_the_pvh_of_its_loader() -> None:
    packed = packings.with_size(packings.xz(VMLINUX), len(VMLINUX), Packing.XZ)
    lines = render(inspect(packings.bzimage(packed))).splitlines()
    labels = [line[2:].split("  ")[0] for line in lines]
    assert "payload" in labels
    assert "PVH" not in labels
    (vmlinux,) = [line for line in lines if "vmlinux in it" in line]
    assert vmlinux.split(maxsplit=3)[3].startswith("PVH present, entry 0x1000040, relocatable")


def test_a_pvh_kernel_that_stays_where_it_is() -> None:
    kernel = images.elf(images.load(0x100_0000, b"x"), images.notes(images.pvh_entry(0x100_0040)))
    assert "PVH            present, entry 0x1000040, not relocatable\n" in render(inspect(kernel))


def test_layers_and_refusals() -> None:
    text = render(inspect(packings.gzip(packings.uki([(".linux", packings.image())])), offset=1))
    assert "  format       gzip file, aarch64, " in text
    assert "  packed in    gzip file, gzip, " in text
    assert "  packed in    unified kernel image, stored, 4 KiB to 4 KiB\n" in text
    assert "  kernel       Image, 4 KiB\n" in text
    assert "  with offset  refused, Pe::InvalidBaseAddrAlignment: image: the base 0x1" in text


def test_a_kernel_that_is_refused() -> None:
    text = render(inspect(VMLINUX[:40]))
    assert "  refused  Elf::ReadElfHeader: " in text


def test_an_offset_that_changes_nothing() -> None:
    assert "at 0x0" not in render(inspect(packings.image(), offset=0))
    assert "  with offset  0x0: nothing changes\n" in render(inspect(packings.image(), offset=0))


def test_a_file_cannot_write_to_the_terminal() -> None:
    uki = packings.uki([(".cmdline", b"\x1b]0;owned\x07 [bold]x"), (".linux", packings.image())])
    inspection = replace(inspect(uki), file="a\x1bb\n[red]")
    text = render(inspection)
    assert text.splitlines()[0] == "a\\x1bb\\n[red]"
    assert "  command line  \\x1b]0;owned\\x07 [bold]x\n" in text
    assert all(line.isprintable() for line in text.splitlines())


def test_long_values_are_folded_at_118_columns() -> None:
    uki = packings.uki([(".cmdline", b"x" * 5000), (".linux", packings.image())])
    lines = render(inspect(uki)).splitlines()
    assert max(map(len, lines)) <= 118
    assert sum(line.count("x") for line in lines) >= 5000


def test_endless_findings_are_cut() -> None:
    inspection = inspect(VMLINUX)
    text = render(replace(inspection, findings=inspection.findings * 100))
    assert text.count("  finding ") == 31
    assert text.endswith("and 70 more (all with --json)\n")


def test_a_packed_module_is_no_vmlinux() -> None:
    text = render(inspect(packings.xz(images.elf(type=1))))
    assert "it is a relocatable object" in text
    assert "  kernel         ELF, " in text
    assert "vmlinux (ELF)" not in text
