"""One kernel booted our way and by QEMU's own -kernel, and what differs.

Owns the order of the steps: prepare both, boot both, compare, explain.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.harness import prepare as preparing
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.case import Case
from bootproof.harness.compare import memory_at_entry, reasons, reference
from bootproof.harness.compare.comparison import Comparison, Cost, ExplainedDifference
from bootproof.harness.compare.differences import ComparedBoot, boot_differences
from bootproof.harness.compare.memory_at_entry import MemoryAtEntry
from bootproof.harness.compare.reasons import Facts
from bootproof.harness.compare.reference import Plan
from bootproof.harness.expected import CodeAnywhere, Expected
from bootproof.harness.guest import kernellog
from bootproof.harness.host import rundir
from bootproof.harness.host.files import refuse_foreign, write_whole
from bootproof.harness.host.rundir import DEVICES_DIRECTORY
from bootproof.harness.host.together import together
from bootproof.harness.prepare import Options, Prepared
from bootproof.harness.prove import Proven, run_prepared
from bootproof.loader import bootimage
from bootproof.loader.address import Range
from bootproof.loader.arch import Registers
from bootproof.loader.boot_parameters import Memory, reader
from bootproof.loader.memory import GuestMemory
from bootproof.loader.protocols.table import broken_rules
from bootproof.loader.result import KernelLoaderResult
from bootproof.loader.rules import Hardware, RuleFinding

OURS: Final = "ours"
REFERENCE: Final = "reference"
_RESULT: Final = "comparison.json"
_OURS: Final = re.compile(rb'\A\{\s*"version": [0-9]+,\s*"case": "').search


@dataclass(frozen=True, slots=True)
class Pair:
    """Two boots that are ready to run; ours lies in `directory`/ours as a boot image."""

    case: Case
    prepared: Prepared
    plan: Plan
    directory: Path

    @property
    def ours(self) -> Path:
        return self.directory / OURS


def at_references_place(case: Case) -> Case:
    """The case with the load offset that QEMU's -kernel takes for it."""
    offset = reference.default_offset(case.arch, reference.kernel_path(case), case.board)
    return replace(case, offset=offset)


def compare(case: Case, directory: Path, options: Options = Options()) -> Comparison:
    """Boots both ways, ours in `directory`/ours, the other in `directory`/reference.

    Raises UserError, FetchError and LoaderError.
    """
    return run_pair(prepare(case, directory, options))


def prepare(case: Case, directory: Path, options: Options = Options()) -> Pair:
    """Everything up to QEMU, for both boots; they get the same initrd and command line."""
    refuse_foreign(directory / _RESULT, _OURS)
    ours, other = directory / OURS, directory / REFERENCE
    with rundir.held(ours), rundir.held(other):
        prepared = preparing.prepare(case, ours, options)
        plan = reference.plan(case, prepared.start.machine, prepared.start.image.protocol)
        reference.prepare(plan, prepared, ours, other)
    return Pair(case, prepared, plan, directory)


def run_pair(pair: Pair) -> Comparison:
    """Boots a prepared pair, both at once, and explains the differences.

    Leaves comparison.json beside the run directories. Raises UserError and LoaderError.
    """
    seen: list[MemoryAtEntry] = []
    findings: list[RuleFinding] = []

    def look(registers: Registers, ram: Memory) -> None:
        file = _file_range(pair.plan.kernel)
        seen.append(memory_at_entry.look(pair.plan.protocol, registers, ram, file))
        findings.extend(_rules_of_reference(pair, registers, ram))

    there = pair.directory / REFERENCE
    ours, other = together(
        lambda: run_prepared(pair.case, pair.prepared, pair.ours),
        lambda: reference.run(pair.case, pair.plan, pair.prepared, there, look),
    )
    left = _ours(pair, ours)
    right = _boot(
        other.proven, pair.plan.protocol, other.registers, seen[0] if seen else MemoryAtEntry()
    )
    facts = _facts(pair, left, right)
    comparison = Comparison(
        case=pair.case.id,
        differences=tuple(
            ExplainedDifference(item, reasons.code_for(item, facts))
            for item in boot_differences(left, right)
        ),
        ours=_cost(ours, left.protocol, _findings(ours)),
        reference=_cost(other.proven, right.protocol, findings),
        directory=pair.directory,
    )
    text = json.dumps(comparison.to_json(), indent=2) + "\n"
    write_whole(pair.directory / _RESULT, text.encode())
    return comparison


def drop_large_files(directory: Path) -> None:
    """Removes what is large of a comparison's run directories: RAM, and the reference's kernel."""
    rundir.drop_ram(directory / OURS)
    shutil.rmtree(directory / REFERENCE / DEVICES_DIRECTORY, ignore_errors=True)


def _facts(pair: Pair, ours: ComparedBoot, other: ComparedBoot) -> Facts:
    start = pair.prepared.start
    assert isinstance(start.expected, Expected)
    return reasons.facts(
        *(ours, other, pair.prepared.start.image.ram),
        firmware=start.machine.arch.firmware,
        code_anywhere=isinstance(start.expected.code, CodeAnywhere),
        firmware_stays=bool(start.machine.firmware),
        hosts_clock=bool(reference.realtime(start.machine)),
    )


def _ours(pair: Pair, proven: Proven) -> ComparedBoot:
    """Our boot as it was at the entry: the probe has shown RAM to be as in the boot image."""
    image = pair.prepared.start.image
    probe = proven.outcome.observation.probe if proven.outcome else None
    registers = probe.registers if probe else None
    banks = [(bank.base, bank.size) for bank in image.banks]
    with GuestMemory.open(pair.ours / bootimage.RAM, banks) as ram:
        assert pair.prepared.kernel is not None
        file = _file_range(pair.prepared.kernel)
        memory = memory_at_entry.look(image.protocol, registers or image.cpus[0], ram, file)
    return _boot(proven, image.protocol, registers, memory)


def _boot(
    proven: Proven, protocol: str, registers: Registers | None, memory: MemoryAtEntry
) -> ComparedBoot:
    assert proven.outcome is not None
    transcript = proven.outcome.observation.transcript
    if ARCHES[proven.case.arch].bios:  # which is silent in our boots
        transcript = kernellog.without_firmware(transcript)
    return ComparedBoot(proven.verdict, proven.reason, protocol, registers, memory, transcript)


def _file_range(kernel: KernelLoaderResult) -> Range:
    """Guest-physical RAM that holds what is in the kernel's file."""
    return Range.between(kernel.footprint.start, kernel.kernel_end)


def _rules_of_reference(pair: Pair, registers: Registers, ram: Memory) -> Sequence[RuleFinding]:
    """The protocol's rules that QEMU's own loader does not keep."""
    machine = pair.prepared.start.machine
    hardware = Hardware(
        registers,
        reader(ram),
        [Range(*bank) for bank in machine.banks],
        pair.plan.kernel.footprint,
        cpus=machine.cpus,
    )
    return broken_rules(pair.plan.protocol, hardware)


def _findings(proven: Proven) -> Sequence[RuleFinding]:
    probe = proven.outcome.observation.probe if proven.outcome else None
    return probe.findings if probe else ()


def _cost(proven: Proven, protocol: str, findings: Sequence[RuleFinding]) -> Cost:
    assert proven.outcome is not None
    return Cost(
        proven.verdict.value,
        protocol,
        proven.outcome.costs.instructions,
        proven.outcome.stages,
        tuple(f"{finding.grade.value} {finding.code}" for finding in findings),
    )
