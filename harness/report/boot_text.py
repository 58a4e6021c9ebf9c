"""What `boot`, `image` and `run` print of one boot: the request, the console, the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bootproof.harness.arch.profiles import DEFAULT_PROFILE
from bootproof.harness.case import Case
from bootproof.harness.inputs import images, kernel_check
from bootproof.harness.text import printable
from bootproof.loader.address import counted, format_size
from bootproof.printable import one_line

if TYPE_CHECKING:  # a request is printed before there is a run
    from bootproof.harness.course import Outcome
    from bootproof.harness.guest.stages import Stage
    from bootproof.harness.observation import Probe
    from bootproof.harness.prove import Proven
    from bootproof.harness.qemu.machine import Machine
    from bootproof.loader.assemble import Assembled


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


def print_request(case: Case, assembled: Assembled, machine: Machine) -> None:
    image = assembled.image
    print(f"kernel    {one_line(case.kernel)} ({case.format})")
    print_left_out(case)
    print(f"protocol  {assembled.protocol}, entered at {image.entry:#x}")
    if case.format == "elf":
        print(f"PVH       {assembled.kernel.pvh_boot_cap.state.value}")
    print(
        f"machine   {machine.qemu}, {machine.board}, {machine.cpu},"
        f" {format_size(machine.memory)}, {counted(machine.cpus, 'CPU')}, {machine.mode}"
    )
    for region in image.regions:
        print(f"memory    {region.range!s:<24} {region.name}")
    if case.profile != DEFAULT_PROFILE:
        print(f"profile   {case.profile}")
    print(f"cmdline   {one_line(image.provenance['cmdline'])}", flush=True)


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
        said = "are as the boot image says" if probe.clean else "are wrong, see the verdict"
        print(f"entry     registers and RAM at the first instruction {said}")
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
    if not proven.verdict.passed and proven.case.cmdline and "console=" not in proven.case.cmdline:
        print("hint      the command line names no console= (see --cmdline)")
    print(f"run       {one_line(str(proven.directory))}")
