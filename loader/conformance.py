"""A boot image held against the rules of its protocol, without starting anything.

Registers and RAM are all in the image, so that nothing else is needed: `bootproof check`, and the
unit tests of a VMM. What the entry probe sees of a real CPU is judged by the same rules. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from bootproof.loader import bootimage
from bootproof.loader.address import Range, joined
from bootproof.loader.arch import Registers, StubError
from bootproof.loader.arch.table import ARCHITECTURES
from bootproof.loader.boot_parameters import Read, reader
from bootproof.loader.bootimage import BootImage, Unseen
from bootproof.loader.image import ImageLike
from bootproof.loader.layout import Region
from bootproof.loader.protocols.table import broken_rules
from bootproof.loader.rules import Hardware, RuleFinding

_WORD: Final = re.compile(r"[a-z0-9]+")


def check(directory: Path | str, kernel: ImageLike | None = None) -> tuple[RuleFinding, ...]:
    """What is wrong with the boot image in a directory; nothing for one that is right.

    With `kernel`, a file or its bytes, also what in memory is not as in that kernel, and whether it
    is entered where it asks for it. Raises BootImageError for a directory that is no boot image,
    GuestMemoryError, StubError as `check_startable`, and another LoaderError for a file that is no
    kernel.
    """
    image = bootimage.open_boot_image(Path(directory))
    with bootimage.open_ram(image, Path(directory)) as memory:
        found = findings(image, reader(memory))
        if kernel is not None:
            found += of_kernel(image, reader(memory), kernel)
        check_startable(image, reader(memory), found, Path(directory))
    return found


def check_startable(
    image: BootImage, read: Read, found: Sequence[RuleFinding], directory: Path
) -> None:
    """Raises StubError for registers that no guest can be started with, where no rule forbids them:
    else that is what is wrong.
    """
    if any(finding.forbidden for finding in found):
        return
    try:
        check_reachable(image, read)
    except StubError as error:
        error.file = str(directory / bootimage.DESCRIPTION)
        raise


def check_reachable(image: BootImage, read: Read) -> None:
    """Raises StubError for registers to which no guest can be brought from its reset."""
    arch = ARCHITECTURES[image.arch]
    for number, registers in enumerate(image.cpus[1:], 1):
        if what := arch.runs(registers, image.cpus[0], read):
            raise StubError(
                f"CPU {number} {what}",
                field=f"cpus[{number}]",
                advice="machines start CPU 0 alone: give the others as a CPU's reset leaves them,"
                " or not at all",
            )
    arch.check(image.cpus[0])


def of_kernel(image: BootImage, read: Read, kernel: ImageLike) -> tuple[RuleFinding, ...]:
    """What of a kernel file is not in memory, or not entered, as it should be."""
    # What it needs is far more to import than all rules.
    from bootproof.loader import same_kernel

    return same_kernel.check(image, read, kernel)


def findings(
    image: BootImage,
    read: Read,
    registers: Registers | None = None,
    *,
    system: Mapping[str, int] | None = None,
    cpus: int | None = None,
    resident: Sequence[Range] = (),
) -> tuple[RuleFinding, ...]:
    """The rules that do not hold for an image whose memory is read by `read`.

    `registers` are those that were seen of CPU 0 when they are not the image's own, `system` those
    that no image has, `cpus` how many CPUs the machine has, `resident` where its firmware stays.
    """
    told = len(image.cpus) if len(image.cpus) > 1 else None
    hardware = Hardware(
        registers or image.cpus[0],
        read,
        image.ram,
        footprint=image.region("kernel"),
        system=system or {},
        cpus=cpus or told,
        others=image.cpus[1:],
        regions=[region for region in image.regions if _inside(image, region)],
        resident=resident,
    )
    return tuple(marked(broken_rules(image.protocol, hardware), image.unseen))


def marked(findings: Iterable[RuleFinding], unseen: Sequence[Unseen]) -> Iterator[RuleFinding]:
    """The findings, of which those on registers that were not seen say so.

    A finding names the register that it is about, in its code or its sentence.
    """
    first = "cpus[0]."
    marks = {u.field.removeprefix(first): u for u in unseen if u.field.startswith(first)}
    for finding in findings:
        words = set(_WORD.findall(f"{finding.code} {finding.sentence}".lower()))
        resting = [f"{name} is {mark}" for name, mark in marks.items() if name in words]
        told = f" ({'; '.join(resting)})" if resting else ""
        yield replace(finding, sentence=f"{finding.sentence}{told}")


def _inside(image: BootImage, region: Region) -> bool:
    """Whether a region is in RAM; docs/boot-image.md leaves others out of account."""
    return any(bank.contains(region.range) for bank in joined(image.ram))
