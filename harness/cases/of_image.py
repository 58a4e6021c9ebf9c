"""The case that words about a boot image mean: of `run` and of its fixture.

What the image itself says, and what is wrong with the user's words.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bootproof.harness import given_image
from bootproof.harness.case import RUN, Case, Expectation
from bootproof.harness.cases import schema
from bootproof.harness.errors import UserError
from bootproof.harness.given_image import GivenImage
from bootproof.harness.text import printable
from bootproof.harness.verdict import Verdict
from bootproof.loader.address import format_size


def case_of(directory: Path, words: Mapping[str, Any], kernel: str | None = None) -> Case:
    """The case of a boot image, which is held against `kernel`; `words` are by the names of the
    options of `run`. Raises UserError and LoaderError.
    """
    known = schema.options(RUN)
    schema.check_keys((entry.name for entry in known), words, (), "option")
    asked = schema.read_table(known, words, ())
    name = Path(os.path.realpath(directory)).name  # which says nothing of a loop of links
    with given_image.opened(directory) as given:
        image = given.image
        _check_machine(given, asked)
        several = len(image.cpus) if len(image.cpus) > 1 else None
        here = {"memory": image.memory_size, "smp": several or len(given.told.cpus) or 1}
        proves = given.nonce is not None and not asked.get("only_handover")
        case = Case(
            arch=image.arch,
            kernel=printable(name.encode("utf-8", "surrogateescape")) or "image",
            format=schema.AS_IT_IS,
            protocol=image.protocol,
            boot_image=str(directory),
            kernel_path=kernel,
            expect=Expectation(Verdict.BOOTED if proves else Verdict.HANDED_OVER),
            **here | asked,
        )
        _check_waiting(case, given)
    return case


def _check_machine(given: GivenImage, asked: Mapping[str, Any]) -> None:
    """Raises UserError for a machine that is not the image's."""
    image, memory, smp = given.image, asked.get("memory"), asked.get("smp")
    if memory not in (None, image.memory_size):
        raise UserError(
            f"{given.file}: $.banks: {format_size(image.memory_size)} of RAM, but"
            f" {format_size(memory)} was asked for (--memory)"
        )
    handed_over = len(image.cpus)
    if handed_over > 1 and smp not in (None, handed_over):
        raise UserError(
            f"{given.file}: $.cpus: registers for {handed_over} CPUs, but {smp} of them asked for"
            " (--smp)"
        )


def _check_waiting(case: Case, given: GivenImage) -> None:
    """Raises UserError for what is never seen, and for text that a kernel says that does nothing
    but read its command line.
    """
    if case.only_handover and case.until is not None:
        raise UserError("--until: with --only-handover the guest says nothing")
    if case.only_handover and case.fail_on_complaints:
        raise UserError("--fail-on-complaints: with --only-handover the kernel says nothing")
    if case.until is None:
        return
    if case.expect.verdict is Verdict.BOOTED:
        raise UserError("--until: this boot image proves its boot; nothing else is waited for")
    until = os.fsencode(case.until)
    if until in (given.told.cmdline or "").encode():
        raise UserError(
            f"--until: {printable(until)!r} stands in the guest's own command line, which"
            " kernels say again: it proves nothing; wait for what only a program there prints"
        )
