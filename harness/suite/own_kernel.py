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
from typing import Any, Final

from bootproof.harness.arch.table import ARCHES
from bootproof.harness.case import RAM_BASE, Case
from bootproof.harness.cases import qemus
from bootproof.harness.cases.derive import Derived, Given, Kernel, LeftOut, derive
from bootproof.harness.cases.schema import contradiction, options, read_table
from bootproof.harness.errors import UserError
from bootproof.harness.inputs import images
from bootproof.harness.inputs.images import KernelFile
from bootproof.harness.suite import matrix
from bootproof.harness.suite.matrix import Selection
from bootproof.harness.text import printable
from bootproof.harness.verdict import Verdict
from bootproof.loader.errors import LoaderError
from bootproof.loader.identify import Format, identify
from bootproof.loader.image import open_image
from bootproof.loader.inspect import Inspection, inspect
from bootproof.loader.kconfig import COMMON, is_linux, lacking
from bootproof.loader.unpack import uki_parts

_BIG_ENDIAN: Final = "big-endian"


def run(kernels: Sequence[str], words: Mapping[str, Any], selection: Selection) -> int:
    """Derives the cases of every kernel and runs, or only prints, those selected.

    `words` are what every guest is given, by the names of the options of `matrix`.
    Raises UserError, FetchError and LoaderError when a kernel cannot be had or proved.
    """
    given = _given(words)
    cases: list[Case] = []
    for kernel in _looked_at(kernels):
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
    if names := qemus.paths(selection.options.qemu):
        cases = [replace(case, qemu=name) for name in names for case in cases]
    return matrix.run_cases(cases, selection)


def look_at(name: str, file: KernelFile) -> Kernel:
    """What the file says of itself in each format that it holds. Raises UserError, LoaderError."""
    identity = identify(file.path)
    if identity.format is Format.UNKNOWN:
        raise _refusal(file, identity.remark or "it is in no format of Linux kernels")
    forms = [*_forms(file)]
    last = forms[-1]
    _check_arch(file, last)
    for form in forms:
        if form.refused:
            raise _refusal(file, form.refused.sentence.removeprefix(f"{form.file}: "))
    assert last.arch is not None
    _check_inside(file, last.arch, last)
    return Kernel(name, str(file.path.absolute()), last.arch, tuple(forms))


def _check_arch(file: KernelFile, form: Inspection) -> None:
    arch = form.arch
    if arch is None or arch not in ARCHES:
        what = "a 32-bit kernel" if arch in _NARROW else f"a kernel for {arch or 'no known CPU'}"
        raise _refusal(file, f"it is {what}; bootproof boots {', '.join(ARCHES)}")
    if form.kernel == Format.ELF.value and Format.ELF not in ARCHES[arch].formats:
        raise _refusal(file, f"a vmlinux of {arch} has no boot protocol; give its Image")


_NARROW: Final = ("i386", "arm", "riscv32")


def _forms(file: KernelFile) -> Iterator[Inspection]:
    """The formats in a file, outermost first: a bzImage, then the vmlinux in it."""
    outer = inspect(file.path)
    offset = RAM_BASE[outer.arch] if outer.kernel == "image" and outer.arch in RAM_BASE else None
    kernel = images.in_format(file, outer.kernel)
    yield inspect(kernel.path, offset=offset)
    if outer.kernel != "bzimage" or outer.arch in _NARROW:
        return
    try:
        yield inspect(images.in_format(file, "elf").path)
    except LoaderError as error:
        why = error.detail or error.summary
        raise _refusal(file, f"no vmlinux can be had out of it: {why}") from error


def _check_inside(file: KernelFile, arch: str, form: Inspection) -> None:
    """Refuses what is no Linux, and a kernel in which no proof could run."""
    if any(finding.code == _BIG_ENDIAN for finding in form.findings):
        raise _refusal(file, f"it is big-endian; bootproof's guests on {arch} are little-endian")
    with open_image(images.in_format(file, form.kernel).path) as kernel:
        if not is_linux(kernel.data):
            raise _refusal(file, "there is no 'Linux version' in it")
        missing = [*lacking(kernel.data, (ARCHES[arch].console_driver, *COMMON))]
    if missing:
        raise _refusal(file, f"it lacks {'; and '.join(missing)}")


def _refusal(file: KernelFile, why: str) -> UserError:
    return UserError(f"{file.name}: is no Linux kernel that can be proved: {why}")


def _looked_at(wanted: Sequence[str]) -> Iterator[Kernel]:
    """Every kernel once, with names that are unique in the matrix."""
    seen: dict[str, str] = {}
    for what in wanted:
        source, file = images.find(what)
        if file.sha256 in seen.values():
            continue
        name = source.name if source.name not in seen else f"{source.name}-{file.sha256[:8]}"
        seen[name] = file.sha256
        yield look_at(name, file)


def _given(words: Mapping[str, Any]) -> Given:
    values = read_table(options("matrix"), words, ())
    if "initrd" not in values:
        return Given(values)
    initrd = Path(values["initrd"]).absolute()
    return Given({**values, "initrd": str(initrd)}, len(images.read_initrd(initrd)))


def _about(kernel: Kernel, derived: Derived, given: Given) -> str:
    """What the kernel is, how many cases it has, and what was left out."""
    release = next((form.release for form in kernel.forms if form.release), "no release")
    formats = ", ".join(form.kernel for form in kernel.forms)
    boot = sum(case.expect.verdict is Verdict.BOOTED for case in derived.cases)
    lines = [
        f"kernel    {kernel.name}: {formats} of {kernel.arch}, {printable(release.encode())}",
        f"cases     {len(derived.cases)}, of which {boot} must boot",
    ]
    left_out = (*derived.left_out, *_unused(kernel, given))
    lines += [f"left out  {item.what}: {item.why}" for item in left_out]
    return "\n".join(lines)


def _unused(kernel: Kernel, given: Given) -> Iterator[LeftOut]:
    """What a unified kernel image holds beside its kernel: no guest gets it."""
    if identify(Path(kernel.path)).format is not Format.UKI:
        return
    with open_image(Path(kernel.path)) as image:
        parts = uki_parts(image)
        if parts.initrd is not None and "initrd" not in given.values:
            yield LeftOut("the image's own .initrd", "guests get bootproof's; give one by --initrd")
        if parts.cmdline is not None and "cmdline" not in given.values:
            yield LeftOut(
                "the image's own .cmdline", "guests get bootproof's; give it by --cmdline"
            )
