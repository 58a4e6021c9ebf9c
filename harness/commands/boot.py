"""`bootproof boot`: one kernel, one request, the console as it happens, a verdict at the end."""

from __future__ import annotations

import enum
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final

from bootproof.harness import prove
from bootproof.harness.arch import DEFAULT_PROFILE
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.case import RAM_BASE, Case
from bootproof.harness.commands import twice
from bootproof.harness.errors import UserError
from bootproof.harness.guest.stages import Stage
from bootproof.harness.inputs import images
from bootproof.harness.inputs.images import KernelFile
from bootproof.harness.observation import Budget, Placement, Probe
from bootproof.harness.prove import Options, Prepared, Proven
from bootproof.harness.run import Outcome
from bootproof.harness.text import printable
from bootproof.loader.address import MIB, format_size
from bootproof.loader.errors import one_line
from bootproof.loader.identify import Format, identify
from bootproof.loader.unpack import unpack_fully

_CENTURY: Final = 1 << 62  # instructions, or seconds
_FOREVER: Final = Budget(*[_CENTURY] * len(fields(Budget)))


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


def run(request: Request, default_out: Path) -> int:
    """Boots and prints; gives the exit code: 0 booted, 1 not. Raises UserError and LoaderError."""
    if request.console and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError("--console needs a terminal for input and output")
    case = case_for(request)
    directory = (request.out or default_out / case.id).absolute()
    options = _options(request)
    if request.twice:
        return _boot_twice(case, directory, options, request)
    proven = _boot(case, directory, options, request)
    return 0 if proven.verdict.passed else 1


def _options(request: Request) -> Options:
    return Options(
        initrd=images.read_initrd(request.initrd),
        interactive=request.console,
        probe=request.probe,
        budget=_FOREVER if request.console else Budget(),
    )


def _boot(case: Case, directory: Path, options: Options, request: Request) -> Proven:
    show = Console()
    if not request.console:
        options = replace(options, on_console=show)
    prepared = prove.prepare(case, directory, options)
    print_request(prepared, case, request)
    proven = prove.carry_out(case, prepared, directory)
    show.finish()
    _print_verdict(proven, request)
    return proven


def _boot_twice(case: Case, directory: Path, options: Options, request: Request) -> int:
    """Two boots below `directory`; 0 when both booted and were the same."""
    kernel = images.kernel_file(case.kernel_source)
    machine = prove.machine_for(case, kernel, options)
    if machine.realtime:
        raise UserError(f"--twice: no two boots are the same in {machine.mode}")
    runs = [_boot(case, directory / name, options, request) for name in ("first", "second")]
    first, second = (proven.outcome for proven in runs)
    assert first is not None and second is not None  # a refusal is an error here
    differs = twice.difference(first, second, case.smp)
    same = "transcript" if case.smp > 1 else "transcript and number of instructions"
    print(f"twice     {differs or f'the same {same}'}")
    booted = all(proven.verdict.passed for proven in runs)
    return 0 if booted and differs is None else 1


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


class Console:
    """Prints guest output line by line, escaped, behind a mark that tells it from our own words."""

    def __init__(self) -> None:
        self._rest = b""

    def __call__(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            print(f"| {printable(line.rstrip(_CR))}", flush=True)

    def finish(self) -> None:
        if self._rest:
            print(f"| {printable(self._rest.rstrip(_CR))}", flush=True)


_CR: Final = b"\r"


def print_request(prepared: Prepared, case: Case, request: Request) -> None:
    image, machine = prepared.assembled.image, prepared.start.machine
    print(f"kernel    {one_line(request.kernel)} ({case.format})")
    print(f"protocol  {prepared.assembled.protocol}, entered at {image.entry:#x}")
    if case.format == "elf":
        print(f"PVH       {prepared.assembled.kernel.pvh_boot_cap.state.value}")
    print(
        f"machine   {machine.qemu}, {machine.board}, {machine.cpu},"
        f" {format_size(machine.memory)}, {cpus_text(machine.cpus)}, {machine.mode}"
    )
    for region in image.regions:
        print(f"memory    {region.range!s:<24} {region.name}")
    if case.profile != DEFAULT_PROFILE:
        print(f"profile   {case.profile}")
    print(f"cmdline   {one_line(prepared.start.expected.cmdline)}", flush=True)


def cpus_text(cpus: int) -> str:
    return "1 CPU" if cpus == 1 else f"{cpus} CPUs"


def print_probe(probe: Probe | None) -> None:
    if probe is None:
        return
    if not probe.reached:
        print(f"probe     the entry was not reached; {probe.where}")
        return
    print("probe     " + ("as asked" if probe.clean else "not as asked, see the verdict"))
    for finding in probe.findings:
        print(f"probe     {finding.grade.value} {finding.code}: {finding.sentence}")


def print_cost(outcome: Outcome) -> None:
    spent = f"{outcome.costs.cpu_seconds:.1f} s of QEMU CPU time"
    if outcome.costs.instructions is not None:
        spent += f", {outcome.costs.instructions:,} guest instructions"
    print(f"cost      {spent}")


def print_record(outcome: Outcome) -> None:
    if outcome.not_recorded is not None:
        print(f"record    none: {outcome.not_recorded}")


def print_stages(stages: Sequence[Stage]) -> None:
    """A line for each stage: guest instructions so far, those since the stage before, guest time.

    A kernel's time stamps begin when it has set up its clock, not at the entry.
    """
    before: int | None = None
    for stage in stages:
        count = "unknown" if stage.instructions is None else f"{stage.instructions:,}"
        line = f"stage     {stage.name:<12} {count:>16}"
        if stage.instructions is not None and before is not None:
            line = f"{line} {stage.instructions - before:>+16,}"
        before = stage.instructions
        if stage.guest_seconds is not None:
            line = f"{line:<59} {stage.guest_seconds:>10.6f} s"
        print(line)


def _print_verdict(proven: Proven, request: Request) -> None:
    print(f"verdict   {proven.verdict.value}: {proven.reason}")
    outcome = proven.outcome
    if outcome is not None:
        print_probe(outcome.observation.probe)
        print_cost(outcome)
        print_record(outcome)
        print_stages(outcome.stages)
    if not proven.verdict.passed and request.cmdline and "console=" not in request.cmdline:
        print("hint      the command line names no console= (see --cmdline)")
    print(f"run       {one_line(str(proven.directory))}")
