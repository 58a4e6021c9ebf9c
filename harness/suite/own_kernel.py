"""`bootproof matrix --kernel`: the user's kernels, looked at, and their cases run as any others.

Owns what is opened and printed on the way; the rules are bootproof.harness.cases.derive's, and
where a kernel comes from is bootproof.kernels.sources'. A kernel that cannot be proved is refused
before anything runs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bootproof.harness.arch.table import ARCHES
from bootproof.harness.case import Case
from bootproof.harness.cases.derive import Derived, Given, Kernel, derive
from bootproof.harness.cases.schema import contradiction, options, ram_base, read_table
from bootproof.harness.errors import UserError
from bootproof.harness.host.stdout import say
from bootproof.harness.inputs import images, modules, overlay
from bootproof.harness.inputs.images import KernelFile
from bootproof.harness.inputs.kernel_check import Checked, refuse_unprovable, unused
from bootproof.harness.results.roles import role_of
from bootproof.harness.suite import matrix
from bootproof.harness.suite.matrix import Selection
from bootproof.harness.text import printable
from bootproof.harness.verdict import Verdict
from bootproof.kernels.sources import Source
from bootproof.loader.formats import Format
from bootproof.loader.inspect import Inspection, inspect
from bootproof.loader.provable import PREFIX
from bootproof.printable import one_line


def run(kernels: Sequence[str], words: Mapping[str, Any], selection: Selection) -> int:
    """Derives the cases of every kernel and runs, or only prints, those selected.

    `words` are what every guest is given, by the names of the options of `matrix`.
    Raises UserError, FetchError and LoaderError when a kernel cannot be had or proved.
    """
    cases: list[Case] = []
    for kernel, given in _looked_at(kernels, _given(words)):
        derived = derive(kernel, given)
        for case in derived.cases[:1]:  # all have what was given
            if problem := contradiction(case):
                raise UserError(f"{kernel.name}: {problem[0]}: {problem[1]}")
        if not selection.options.quiet:
            print(
                _about(kernel, derived, given),
                file=sys.stderr if selection.options.ktap else sys.stdout,
                flush=True,
            )
        cases += derived.cases
    return matrix.run_cases(cases, selection)


def look_at(name: str, file: KernelFile, board: str | None = None) -> Kernel:
    """What the file says of itself in each format that it holds, loaded on the board.

    Raises UserError, LoaderError.
    """
    images.contained(file)
    found = refuse_unprovable(file, board)
    assert found.arch is not None  # or it could not be proved
    forms = [*_forms(file, found, board)]
    for form in forms:
        if form.refused:
            raise _refusal(file, form.refused.sentence.removeprefix(f"{form.file}: "))
    return Kernel(name, str(file.path.absolute()), found.arch, tuple(forms))


def _forms(file: KernelFile, found: Checked, board: str | None) -> Iterator[Inspection]:
    """The formats in a file, outermost first: a bzImage, then the vmlinux in it."""
    image, elf = Format.IMAGE.value, Format.ELF.value
    base = ram_base({"arch": found.arch, "machine": board})
    offset = base if found.format == image and found.arch in ARCHES else None
    with images.in_format(file, found.format).open() as source:
        yield inspect(source, offset=offset)
    if found.format == Format.BZIMAGE.value:
        with images.in_format(file, elf).open() as source:
            yield inspect(source)


def _refusal(file: KernelFile, why: str) -> UserError:
    return UserError(f"{file.name}: {PREFIX}{why}")


def _looked_at(wanted: Sequence[str], given: Given) -> Iterator[tuple[Kernel, Given]]:
    """Every kernel once, with names that are unique in the matrix, and what its guests are given.

    Raises UserError.
    """
    seen: dict[str, str] = {}
    for what in wanted:
        source, file = images.find(what)
        source = replace(source, name=one_line(source.name))  # which is any file's
        if source.named and source.name in seen:
            raise UserError(f"--kernel: two kernels are called {source.name!r}")
        same = next((name for name, sha256 in seen.items() if sha256 == file.sha256), None)
        if same is not None and not source.named:
            say(f"{what}: the same file as {same}")
            continue
        name = source.name if source.name not in seen else f"{source.name}-{file.sha256[:8]}"
        seen[name] = file.sha256
        lasts = source.named or source.path is None
        kernel = look_at(name, file, given.values.get("board"))
        kernel = replace(kernel, role=None if lasts else role_of(source.name))
        yield kernel, _with_modules(given, source, file, kernel)


def _with_modules(given: Given, source: Source, file: KernelFile, kernel: Kernel) -> Given:
    """What a kernel's guests are given: the modules are its own."""
    if "modules" not in given.values:
        return given
    text, form = given.values["modules"], kernel.forms[0].kernel
    found = modules.resolved(text, source, file, kernel.arch, form)
    size = sum(len(module.data) for module in modules.read(found)) if found else 0
    return Given({**given.values, "modules": found}, given.initrd_size + size)


def _given(words: Mapping[str, Any]) -> Given:
    values, size = read_table(options("matrix"), words, ()), 0
    if "initrd" in values:
        initrd = Path(values["initrd"]).absolute()
        values["initrd"] = str(initrd)
        size += len(images.read_initrd(initrd))
    if "overlay" in values:
        directories = [str(Path(line).absolute()) for line in values["overlay"].split("\n")]
        values["overlay"] = "\n".join(directories)
        size += len(overlay.archive(directories, ()))
    return Given(values, size)


def _about(kernel: Kernel, derived: Derived, given: Given) -> str:
    """What the kernel is, how many cases it has, and what was left out."""
    release = next((form.release for form in kernel.forms if form.release), "no release")
    formats = ", ".join(form.kernel for form in kernel.forms)
    boot = sum(case.expect.verdict is Verdict.BOOTED for case in derived.cases)
    lines = [
        f"kernel    {kernel.name}: {formats} of {kernel.arch}, {printable(release.encode())}",
        f"cases     {len(derived.cases)} apply to it, of which {boot} must boot",
    ]
    asked = {name: name in given.values for name in ("initrd", "cmdline")}
    lines += [f"left out  {item.what}: {item.why}" for item in derived.left_out]
    lines += [f"left out  {item}" for item in unused(images.kernel_file(kernel.path), **asked)]
    return "\n".join(lines)
