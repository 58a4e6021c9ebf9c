"""A boot image's kernel against the kernel file that a user says it is.

What differs is bootproof.loader.same_kernel's; this opens the file, however it is named, and names
the code where a wrong entry leads to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from bootproof.harness.errors import UserError
from bootproof.harness.inputs import images
from bootproof.harness.inputs.images import KernelFile
from bootproof.loader.boot_parameters import Read
from bootproof.loader.bootimage import BootImage
from bootproof.loader.errors import LoaderError
from bootproof.loader.image import open_image
from bootproof.loader.rules import RuleFinding
from bootproof.loader.same_kernel import ENTRY, check

_WINDOW: Final = 32  # bytes of code before and at an address that tell it from others


def findings(image: BootImage, read: Read, kernel: str) -> tuple[RuleFinding, ...]:
    """What is not as in the kernel that `kernel` names, as every command's KERNEL does.

    Raises FetchError, UserError and LoaderError.
    """
    _, file = images.find(kernel)
    with open_image(file.path, file.name) as source:
        found = check(image, read, source)
    return tuple(_named(image, read, file, found))


def _named(
    image: BootImage, read: Read, file: KernelFile, found: tuple[RuleFinding, ...]
) -> Iterator[RuleFinding]:
    for finding in found:
        name = _symbol(image, read, file) if finding.code == ENTRY else None
        sentence = f"{finding.sentence}; there is {name}" if name else finding.sentence
        yield replace(finding, sentence=sentence)


def _symbol(image: BootImage, read: Read, file: KernelFile) -> str | None:
    """What the kernel's own symbols call the code at the image's entry."""
    before, at = (read(image.entry + shift, _WINDOW) for shift in (-_WINDOW, 0))
    for format_ in ("elf", "image"):
        try:
            symbols = images.symbols_of(images.in_format(file, format_))
        except (LoaderError, UserError):
            continue
        return symbols.name(image.entry, before or b"", at or b"") if symbols else None
    return None
