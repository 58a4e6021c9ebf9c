"""Limits of the setup header, by Documentation/arch/x86/boot.rst: no RAM, no kernel."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest

from bootproof.loader.address import GIB, MIB, U32_MAX, Range
from bootproof.loader.rules import setup_header
from bootproof.loader.rules.setup_header import Entered
from bootproof.loader.structures.setup_header import SetupHeader
from bootproof.loader.structures.zero_page import ZeroPage

TODAY: Final = SetupHeader(
    setup_sects=4,
    syssize=0x10000,  # 1 MiB
    boot_flag=0xAA55,
    header=0x53726448,
    version=0x20F,
    type_of_loader=0xFF,
    loadflags=1,
    initrd_addr_max=0x7FFFFFFF,
    kernel_alignment=2 * MIB,
    relocatable_kernel=1,
    xloadflags=3,
    cmdline_size=2047,
    pref_address=16 * MIB,
    init_size=32 * MIB,
)
ABOVE: Final = {"ext_ramdisk_image": 1, "ramdisk_size": 1}


def of(values: dict[str, Any], load: int = MIB) -> Entered:
    known = {name: value for name, value in values.items() if name in SetupHeader.OFFSETS}
    return Entered(replace(TODAY, **known), load + 0x200, True, load)


@pytest.mark.parametrize(
    ("values", "load", "start", "end"),
    [
        ({}, MIB, MIB, 48 * MIB),  # it moves itself up to where it was made for
        ({}, 16 * MIB, 16 * MIB, 48 * MIB),
        ({}, 33 * MIB, 33 * MIB, 66 * MIB),
        ({}, 34 * MIB, 34 * MIB, 66 * MIB),
        ({"kernel_alignment": 16 * MIB}, 17 * MIB, 17 * MIB, 64 * MIB),
        ({"init_size": MIB // 2}, 16 * MIB, 16 * MIB, 17 * MIB),  # its file ends behind that
        ({"relocatable_kernel": 0}, 64 * MIB, 16 * MIB, 65 * MIB),
        ({"relocatable_kernel": 0, "pref_address": 0}, 64 * MIB, 64 * MIB, 96 * MIB),
        ({"kernel_alignment": 0}, 33 * MIB, 16 * MIB, 48 * MIB),
        ({"version": 0x20A}, MIB, MIB, 48 * MIB),
        ({"version": 0x209}, MIB, MIB, 33 * MIB),
        ({"version": 0}, MIB, MIB, 48 * MIB),
    ],
)
def test_what_a_kernel_needs(values: dict[str, Any], load: int, start: int, end: int) -> None:
    """runtime_start and init_size, with what is unpacked at the start."""
    assert of(values, load).needs == Range.between(start, end)


def test_a_vmlinux_needs_nothing_by_a_header() -> None:
    assert of({"setup_sects": 0, "syssize": 0}).needs is None
    assert replace(of({}), load=None).needs is None
    assert of({"setup_sects": 0}).needs and of({"syssize": 0}).needs


OLD: Final = {"version": 0x204, "relocatable_kernel": 0}
FIXED: Final = {"relocatable_kernel": 0}


@pytest.mark.parametrize(
    ("values", "load", "codes"),
    [
        ({}, MIB, []),
        ({}, 0x90000, []),
        ({"loadflags": 0}, MIB - 1, []),
        ({"loadflags": 0}, MIB, ["loadflags"]),
        ({"version": 0, "loadflags": 0}, MIB, []),
        (OLD, MIB, []),
        (OLD, MIB + 1, ["not-relocatable"]),
        ({**OLD, "loadflags": 0}, 0x10000, []),
        ({**OLD, "loadflags": 0}, 0x20000, ["not-relocatable"]),
        ({**FIXED, "version": 0x205}, MIB, []),
        ({**FIXED, "version": 0x205}, 16 * MIB, ["not-relocatable"]),
        ({**FIXED, "version": 0x209}, 16 * MIB, ["not-relocatable"]),
        ({**FIXED, "version": 0x20A}, 16 * MIB, []),
        (FIXED, MIB, []),
        (FIXED, 16 * MIB, []),
        (FIXED, 8 * MIB, ["not-relocatable"]),
        ({"init_size": 0}, MIB, ["setup-header"]),
        ({"kernel_alignment": 0}, MIB, ["setup-header"]),
        ({"init_size": 0, "version": 0}, MIB, ["setup-header"]),
        ({"init_size": 0, "version": 0x20A}, MIB, ["setup-header"]),
        ({"init_size": 0, "version": 0x209}, MIB, []),
        ({"xloadflags": 1}, MIB, []),
        ({"xloadflags": 2}, MIB, ["xloadflags"]),
        ({"xloadflags": 0, "version": 0x20B}, MIB, []),
        ({"xloadflags": 0, "version": 0x20C}, MIB, ["xloadflags"]),
        ({"xloadflags": 1}, 4 * GIB - 32 * MIB, []),
        ({"xloadflags": 1}, 4 * GIB - 30 * MIB, ["xloadflags"]),
        ({"header": 0}, MIB, ["setup-header-magic"]),
        ({"boot_flag": 0}, MIB, ["setup-header-magic"]),
        ({"ramdisk_image": 0x7FFFF000, "ramdisk_size": 0x1000}, MIB, []),
        ({"ramdisk_image": 0x7FFFF000, "ramdisk_size": 0x1001}, MIB, ["initrd-addr-max"]),
        ({"ramdisk_image": U32_MAX, "ramdisk_size": 1}, MIB, ["initrd-addr-max"]),
        ({"ramdisk_image": U32_MAX, "ramdisk_size": 1, "initrd_addr_max": 0}, MIB, []),
        ({"ramdisk_size": 1, "type_of_loader": 0}, MIB, ["type-of-loader"]),
        ({"type_of_loader": 0}, MIB, []),
        ({**ABOVE, "xloadflags": 3}, MIB, []),
        ({**ABOVE, "xloadflags": 1}, MIB, ["xloadflags"]),
        ({"ramdisk_image": U32_MAX, "ramdisk_size": 2, "xloadflags": 1}, MIB, ["xloadflags"]),
        ({"ext_ramdisk_size": 1}, MIB, ["initrd-addr-max"]),
        ({**ABOVE, "xloadflags": 1, "version": 0x20B}, MIB, []),
        ({**ABOVE, "xloadflags": 1, "version": 0x20C}, MIB, ["xloadflags"]),
        ({**ABOVE, "xloadflags": 1, "setup_sects": 0, "syssize": 0}, MIB, []),
        ({"sentinel": 1}, MIB, ["sentinel"]),
    ],
)
def test_limits(values: dict[str, Any], load: int, codes: list[str]) -> None:
    page = ZeroPage(**{name: v for name, v in values.items() if name in ZeroPage.OFFSETS})
    found = setup_header.check(of(values, load), page, None)
    assert [finding.code for finding in found] == codes


@pytest.mark.parametrize(
    ("values", "size", "codes"),
    [
        ({}, 2047, []),
        ({}, 2048, ["cmdline-size"]),
        ({"cmdline_size": 255}, 255, []),
        ({"cmdline_size": 255}, 256, ["cmdline-size"]),
        ({"cmdline_size": 255, "version": 0x206}, 256, ["cmdline-size"]),
        ({"cmdline_size": 255, "version": 0x205}, 2047, []),
        ({"cmdline_size": 255, "version": 0x205}, 2048, ["cmdline-size"]),
        ({"cmdline_size": 0}, 2047, []),
        ({"cmdline_size": 0}, 2048, ["cmdline-size"]),
        ({"cmdline_size": 255, "setup_sects": 0, "syssize": 0}, 2047, []),
        ({"cmdline_size": 9999, "setup_sects": 0, "syssize": 0}, 2048, ["cmdline-size"]),
    ],
)
def test_command_lines(values: dict[str, Any], size: int, codes: list[str]) -> None:
    found = setup_header.check(of(values), ZeroPage(), b"x" * size)
    assert [finding.code for finding in found] == codes


@pytest.mark.parametrize(
    ("entry", "in_64_bits", "right"),
    [
        (MIB, False, True),
        (MIB + 0x200, True, True),
        (MIB, True, False),
        (MIB + 0x200, False, False),
    ],
)
def test_entries(entry: int, in_64_bits: bool, right: bool) -> None:
    found = setup_header.check(Entered(TODAY, entry, in_64_bits, MIB), ZeroPage(), None)
    assert [finding.code for finding in found] == ([] if right else ["entry"])
