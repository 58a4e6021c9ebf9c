"""What `boot`, `image` and `run` print of one boot: the request, the console, the verdict; and
the boot that is told as it happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bootproof.harness.arch.profiles import DEFAULT_PROFILE
from bootproof.harness.case import Case
from bootproof.harness.expected import ExpectedHandover
from bootproof.harness.inputs import images, kernel_check
from bootproof.harness.prepare import Options, Prepared, prepare
from bootproof.harness.text import printable
from bootproof.harness.verdict import Verdict
from bootproof.loader.address import counted, format_size
from bootproof.loader.bootimage import NO_PROTOCOL
from bootproof.printable import one_line

if TYPE_CHECKING:  # a request is printed before there is a run
    from bootproof.harness.course import Outcome
    from bootproof.harness.guest.stages import Stage
    from bootproof.harness.observation import Probe
    from bootproof.harness.prove import Proven
    from bootproof.harness.start import Start


def boot(case: Case, directory: Path, options: Options) -> Proven:
    """Boots a case as `prove` does, but that a refusal is an error. Raises LoaderError, too."""
    console = Console()
    if options.talker is None:
        options = replace(options, on_console=console)
    prepared = prepare(case, directory, options)
    print_request(case, prepared)
    from bootproof.harness.prove import run_prepared  # all that runs a guest: nothing is refused

    proven = run_prepared(case, prepared, directory)
    console.finish()
    print_verdict(proven)
    return proven


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


def print_request(case: Case, prepared: Prepared) -> None:
    start, kernel = prepared.start, prepared.kernel
    image, machine = start.image, start.machine
    if kernel is None:
        print(f"image     {one_line(str(case.boot_image))}")
    else:
        print(f"kernel    {one_line(case.kernel)} ({case.format})")
        print_left_out(case)
    unruled = "" if image.protocol != NO_PROTOCOL else " (no rules to check)"
    print(f"protocol  {image.protocol}{unruled}, entered at {image.entry:#x}")
    if kernel is not None and case.format == "elf":
        print(f"PVH       {kernel.pvh_boot_cap.state.value}")
    print(
        f"machine   {machine.qemu}, {machine.board}, {machine.cpu},"
        f" {format_size(machine.memory)}, {counted(machine.cpus, 'CPU')}, {machine.mode}"
    )
    for region in image.regions:
        print(f"memory    {region.range!s:<24} {region.name}")
    if case.profile != DEFAULT_PROFILE:
        print(f"profile   {case.profile}")
    if kernel is not None:
        print(f"cmdline   {one_line(image.provenance['cmdline'])}", flush=True)
        if case.initrd is not None and start.unstartable and (why := start.unstartable()):
            print(f"initrd    {one_line(why)}", flush=True)
    else:
        _print_proof(case, start)


def _print_proof(case: Case, start: Start) -> None:
    """What is not known of a boot image before one looks: what its guest is going to prove."""
    from bootproof.harness.report import rules  # no image of ours has marks

    rules.print_marks(start.image)
    expected = start.expected
    if isinstance(expected, ExpectedHandover):
        why = "as asked" if case.only_handover else "the guest carries no nonce of ours"
        print(f"proof     of the hand-over only: {why}", flush=True)
        return
    print(f"cmdline   {one_line(expected.cmdline)}")
    how = "by a guest that is no Linux" if expected.other else "by the guest itself"
    means = "a nonce" if expected.other else "a nonce and our init"
    print(f"proof     {how}: it carries {means}", flush=True)


def print_left_out(case: Case) -> None:
    """A line for each part of the kernel's file that the guest does not get."""
    kernel = images.kernel_file(case.kernel_source)
    asked = {"initrd": case.initrd is not None, "cmdline": case.cmdline is not None}
    for item in kernel_check.unused(kernel, **asked):
        print(f"left out  {item}")
    if case.initrd is not None and not images.has_init(Path(case.initrd)):
        print("left out  whatever the initrd runs: it has no /init (rdinit= names another)")


def print_probe(probe: Probe | None) -> None:
    if probe is None:
        return
    if not probe.reached:
        print(f"entry     not reached; {probe.where}")
    else:
        said = "are not" if probe.differences else "are"
        print(f"entry     registers and RAM at the first instruction {said} as the boot image says")
    more = f"; and {probe.more} more" if probe.more else ""
    if probe.differences and probe.violations:  # else they are the verdict
        print(f"entry     {'; '.join(map(str, probe.differences))}{more}")
    for finding in probe.findings:
        print(f"entry     {finding.grade.value} {finding.code}: {finding.sentence}")


def print_complaints(outcome: Outcome) -> None:
    """A line for each thing that the kernel complained of and that is not the verdict already."""
    judgement = outcome.judgement
    for item in judgement.complaints:
        if item.text.removeprefix(_PANIC) not in judgement.reason:
            after = ", after the proof" if item.after_proof else ""
            print(f"complaint {item.kind.value}: {item}{after}")


def print_tests(outcome: Outcome) -> None:
    """How many tests in the guest ended how, and a line for each that failed."""
    tests = outcome.judgement.tests
    if not tests:
        return
    from bootproof.harness.guest import guest_tests  # no others need it

    print(f"tests     {guest_tests.summary(tests)}")
    for test in tests:
        if test.failed:
            print(f"test      failed: {test}")


_PANIC: Final = "Kernel panic - not syncing: "  # the verdict has its own words for it


def print_cost(outcome: Outcome) -> None:
    spent = f"{outcome.costs.cpu_seconds:.1f} s of QEMU CPU time"
    if outcome.costs.instructions is not None:
        spent += f", {outcome.costs.instructions:,} guest instructions"
    print(f"cost      {spent}")


def print_record(outcome: Outcome) -> None:
    if outcome.not_recorded is not None:
        print(f"record    none: {outcome.not_recorded}")


def print_stages(stages: Sequence[Stage]) -> None:
    """A line for each stage: guest instructions so far, those since the one before, guest time.

    A kernel's time stamps begin when it has set up its clock, not at the entry.
    """
    before: int | None = None
    if stages:
        print(f"{'stages':<22} {'instructions':>16} {'since the last':>16} {'kernel clock':>15}")
    for stage in stages:
        count = "unknown" if stage.instructions is None else f"{stage.instructions:,}"
        line = f"stage     {stage.name:<12} {count:>16}"
        if stage.instructions is not None and before is not None:
            line = f"{line} {stage.instructions - before:>+16,}"
        before = stage.instructions
        if stage.guest_seconds is not None:
            line = f"{line:<59} {stage.guest_seconds:>10.6f} s"
        print(line)


def print_verdict(proven: Proven) -> None:
    print(f"verdict   {proven.verdict.value}: {proven.reason}")
    if proven.verdict.passed and proven.problem is not None:
        print(f"problem   {proven.problem}")
    outcome = proven.outcome
    if outcome is not None:
        print_complaints(outcome)
        print_tests(outcome)
        print_probe(outcome.observation.probe)
        print_cost(outcome)
        print_record(outcome)
        print_stages(outcome.stages)
    hint = _hint(proven)
    if hint is not None:
        print(f"hint      {hint}")
    print(f"run       {one_line(str(proven.directory))}")


def _hint(proven: Proven) -> str | None:
    case = proven.case
    if not proven.verdict.passed and case.cmdline and "console=" not in case.cmdline:
        return "the command line names no console= (see --cmdline)"
    if proven.verdict is Verdict.HANDED_OVER and case.until is None:
        return "nothing was asked of what follows the hand-over (see --until)"
    return None
