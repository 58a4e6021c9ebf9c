"""Is this file a Linux kernel that we can enter, and whose boot can be proved? Asked once for all.

Every command that takes a kernel asks here, so that none knows less than another. What the bytes
say is bootproof.loader.provable's; this adds what our machines are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, Final

from bootproof.dataclass import dataclass
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.inputs import images
from bootproof.harness.inputs.images import KernelFile
from bootproof.kernels import content
from bootproof.loader import banner, ikconfig, kconfig
from bootproof.loader.errors import LoaderError
from bootproof.loader.formats import Format
from bootproof.loader.identify import identify
from bootproof.loader.image import ImageSource
from bootproof.loader.kconfig import COMMON, Built, Need, look
from bootproof.loader.provable import Problem, not_a_kernel, problem

_NARROW: Final = ("i386", "arm", "riscv32")
# What `look` is made of: an answer of other code than today's is none.
_LOOKING: Final = (kconfig, ikconfig, banner)


@dataclass(frozen=True, slots=True)
class Checked:
    """What a file holds: the format of the kernel in it and its architecture, as far as it says so;
    and why its boot cannot be proved, None where nothing is known against it.
    """

    format: str
    arch: str | None
    problem: Problem | None


@content.known
def check(file: KernelFile, board: str | None = None) -> Checked:
    """What is known of a kernel file before it is booted, on the default board or another.

    Raises LoaderError when it is none.
    """
    return _checked(file, *images.contained(file), board)


def refuse_unprovable(file: KernelFile, board: str | None = None) -> Checked:
    """What is known of a kernel, as `check`. Raises LoaderError unless its boot can be proved."""
    found = check(file, board)
    if found.problem is not None:
        raise found.problem.error(file.name)
    return found


def _checked(file: KernelFile, format_: Format, arch: str | None, board: str | None) -> Checked:
    if format_ is not Format.BZIMAGE:
        return Checked(format_.value, arch, _problem(file, format_, arch, board))
    outer = _asked(images.in_format(file, format_.value), not_a_kernel)
    if outer is not None or arch in _NARROW:
        return Checked(format_.value, arch, outer or _unknown_cpu(arch))
    try:
        vmlinux = images.in_format(file, Format.ELF.value)
    except LoaderError as error:
        why = f"no vmlinux can be had out of it: {error.detail or error.summary}"
        return Checked(format_.value, arch, Problem(why, error.advice))
    arch = (
        arch or identify(vmlinux.content.path).arch
    )  # headers before boot protocol 2.12 do not say
    return Checked(format_.value, arch, _problem(file, Format.ELF, arch, board))


def _problem(
    file: KernelFile, format_: Format, arch: str | None, board: str | None
) -> Problem | None:
    """The first of all questions that a kernel which is not packed has no good answer to."""
    kernel = images.in_format(file, format_.value)
    found = _asked(kernel, not_a_kernel) or _unknown_cpu(arch)
    if found is None:
        wanted = needs(arch, board)
        built = _built(kernel, wanted)
        found = _asked(kernel, functools.partial(problem, needs=wanted, built=built))
    if found is None and arch and format_ not in ARCHES[arch].formats:
        return Problem(f"a vmlinux of {arch} has no boot protocol; give its Image")
    return found


def lacking(kernel: KernelFile, arch: str, board: str | None) -> tuple[str, ...]:
    """What a kernel that is not packed was built without, of what the proof needs.

    Raises LoaderError and UserError.
    """
    wanted = needs(arch, board)
    return tuple(kconfig.lacking(_built(kernel, wanted), wanted))


def _built(kernel: KernelFile, wanted: tuple[Need, ...]) -> Built:
    """What the kernel shows of how it was built."""

    def search(data: memoryview) -> list[Any]:
        built = look(data, wanted)
        return [built.linux, built.config, sorted(text.hex() for text in built.texts)]

    asked = repr([(need.option, need.text) for need in wanted])
    linux, config, texts = images.searched(kernel, asked, _LOOKING, search)
    return Built(linux, config, frozenset(map(bytes.fromhex, texts)))


def _asked(kernel: KernelFile, question: Callable[[ImageSource], Problem | None]) -> Problem | None:
    with kernel.open() as image:
        return question(image)


def needs(arch: str | None, board: str | None) -> tuple[Need, ...]:
    """What the proof needs of a kernel for an architecture and one of its boards."""
    known = ARCHES.get(arch or "")
    return (known.on(board).serial.driver, *COMMON) if known else COMMON


def _unknown_cpu(arch: str | None) -> Problem | None:
    if arch in ARCHES:
        return None
    what = "a 32-bit kernel" if arch in _NARROW else f"a kernel for {arch or 'no known CPU'}"
    return Problem(f"it is {what}; bootproof boots {', '.join(ARCHES)}")


# --- what is in a file beside its kernel ---------------------------------------------------------


def unused(file: KernelFile, *, initrd: bool, cmdline: bool) -> Iterator[str]:
    """What a unified kernel image holds beside its kernel and its guest does not get, and why.

    `initrd` and `cmdline` say whether the user gave one.
    """
    with file.open() as image:
        if identify(image).format is not Format.UKI:
            return
        from bootproof.loader.unpack import uki_parts

        parts = uki_parts(image)
        if parts.initrd is not None and not initrd:
            yield "the image's own .initrd: guests get bootproof's; give one by --initrd"
        if parts.cmdline is not None and not cmdline:
            yield "the image's own .cmdline: guests get bootproof's; give it by --cmdline"
