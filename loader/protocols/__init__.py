"""One module per way to enter a kernel; each exports one value, and `table` has them all.

A protocol owns what it asks for: which pieces must lie in guest RAM (`plan`, pure), what they
contain together with the register state at the first instruction (`configure`, which writes them),
and how all of it is read back. Which rules it must keep is another room's (bootproof.loader.rules).
This package only holds what they share. All addresses are guest-physical.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bootproof.dataclass import dataclass
from bootproof.loader.errors import LoaderError

if TYPE_CHECKING:
    from bootproof.loader.address import Range
    from bootproof.loader.layout import Region
    from bootproof.loader.result import KernelLoaderResult


class ProtocolError(LoaderError):
    """A kernel and a request that this boot protocol cannot bring together."""

    code = "Protocol::Refused"


@dataclass(frozen=True, slots=True)
class BootRequest:
    """What the kernel is given beside its own image."""

    # Without the terminating NUL.
    cmdline: bytes = b""
    initrd: bytes | None = None
    # The machine's own device tree, where the architecture has such.
    dtb: bytes | None = None
    # RAM that the machine will not leave alone.
    reserved: tuple[Region, ...] = ()
    # Written where the protocol has a place for it, for the guest to tell by what it was made.
    label: str = ""
    # Of the machine; where no device tree says so, tables tell the kernel of more than one.
    cpus: int = 1
    # Leaves out the checks of where the kernel may run, for cases whose point is the failure.
    unsafe: bool = False
    # Whether the kernel is entered as a hypervisor is, where there is a difference.
    hypervisor: bool = False
    # That of `reserved` where a firmware stays, so that nothing else can be there.
    firmware: tuple[Region, ...] = ()


def entry_point(kernel: KernelLoaderResult, protocol: str) -> int:
    """The guest-physical entry of `kernel` for `protocol`; ProtocolError when it offers none."""
    entry = kernel.entry_points.get(protocol)
    if entry is None:
        offered = ", ".join(sorted(kernel.entry_points)) or "none"
        what = f"the kernel cannot be entered through {protocol}; it offers: {offered}"
        raise ProtocolError(what, field="protocol", value=protocol)
    return entry


def check_cmdline(cmdline: bytes, limit: int) -> None:
    """Raises ProtocolError when `cmdline` (without NUL) is longer than the kernel takes.

    A NUL inside is refused as well: the kernel would take it for the end.
    """
    nul = cmdline.find(b"\0")
    if nul >= 0:
        what = f"the command line has a NUL at byte {nul}, where the kernel would end it"
        raise ProtocolError(what, field="cmdline", offset=nul)
    size = len(cmdline)
    if size > limit:
        what = f"the command line has {size} bytes but the kernel takes at most {limit}"
        raise ProtocolError(what, field="cmdline", value=size, limit=limit)


def placed(regions: Sequence[Region], name: str) -> Range:
    """The place of the piece called `name`, which was planned."""
    place = region(regions, name)
    assert place is not None, name
    return place


def region(regions: Sequence[Region], name: str) -> Range | None:
    """The place of the piece called `name`, if it was planned."""
    return next((item.range for item in regions if item.name == name), None)
