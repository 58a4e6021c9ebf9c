"""The case that a user's words about one kernel mean: of `boot`, `image` and `compare`.

Architecture and format come from the kernel's file itself.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bootproof.harness.arch.table import ARCHES
from bootproof.harness.case import RAM_BASE, Case
from bootproof.harness.errors import UserError
from bootproof.harness.inputs import images
from bootproof.harness.inputs.images import KernelFile
from bootproof.harness.observation import Placement
from bootproof.loader.address import MIB
from bootproof.loader.identify import Format, identify
from bootproof.loader.unpack import unpack_fully


class Default(enum.Enum):
    OFFSET = "default"


DEFAULT: Final = Default.OFFSET


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for; `offset` is kernel_offset, None for none."""

    kernel: str
    protocol: str
    format: str | None
    offset: int | Default | None
    memory: int
    cmdline: str | None
    initrd: Path | None
    board: str | None
    cpu: str | None
    placement: str
    unsafe: bool
    pvh_relocate: bool
    smp: int
    profile: str
    realtime: bool
    twice: bool
    console: bool
    probe: bool
    out: Path | None


def case_for(request: Request) -> Case:
    """The case a request means: architecture and format come from the file itself.

    Raises UserError, FetchError, and LoaderError when the file is no kernel.
    """
    if request.cmdline is not None and not request.cmdline.isascii():
        try:
            request.cmdline.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"--cmdline: byte {error.start} is not UTF-8") from error
    kernel = images.kernel_file(request.kernel)
    arch, format_ = _arch_and_format(kernel, request)
    offset = request.offset
    if isinstance(offset, Default):
        offset = RAM_BASE[arch] + 2 * MIB if format_ == "image" else None
    return Case(
        arch=arch,
        kernel=request.kernel,
        format=format_,
        protocol=request.protocol,
        offset=offset,
        memory=request.memory,
        board=request.board,
        cpu=request.cpu,
        placement=Placement(request.placement),
        cmdline=request.cmdline,
        unsafe=request.unsafe,
        pvh_relocate=request.pvh_relocate,
        smp=request.smp,
        realtime=request.realtime,
        profile=request.profile,
    )


def _arch_and_format(kernel: KernelFile, request: Request) -> tuple[str, str]:
    found = identify(kernel.path)
    format_: str = found.format.value
    arch = found.arch
    if not found.format.loadable:
        inner = unpack_fully(kernel.path)
        format_, arch = inner.format.value, inner.arch
    if found.format is Format.BZIMAGE and request.protocol == "pvh":
        format_ = "elf"
    if arch is None or arch not in ARCHES:
        raise UserError(
            f"{kernel.path}: a kernel for {arch or 'an unknown architecture'};"
            f" bootproof boots {', '.join(ARCHES)}"
        )
    return arch, request.format or format_
