"""What lies at the first instruction: something, and inside the kernel. For every protocol."""

from __future__ import annotations

from typing import Final

from bootproof.loader.address import Range
from bootproof.loader.arch import R
from bootproof.loader.rules import Findings, Hardware, documents, violation

_LOOKED_AT: Final = 16


def held_at(hardware: Hardware[R], address: int, section: str) -> Findings:
    """For the guest-physical address of the first instruction."""
    code = hardware.read(address, _LOOKED_AT)
    if code is None:
        what = f"the CPU starts at {address:#x}, which is not RAM{hardware.ram_text}"
        yield violation("entry", what, section, address=address)
    elif not any(code):
        what = f"the CPU starts at {address:#x}, where there are only zeros"
        yield violation("entry", what, section, address=address)
    kernel = hardware.footprint
    if kernel is not None and not kernel.contains(Range(address, 1)):
        what = f"the CPU starts at {address:#x}, outside of the region 'kernel' {kernel}"
        yield violation("entry", what, documents.BOOT_IMAGE, address=address)
