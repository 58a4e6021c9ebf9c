"""A proven case as a result that travels between processes and into files; judges nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, Final

from bootproof.harness.compare.comparison import Cost
from bootproof.harness.course import Outcome
from bootproof.harness.prove import Proven
from bootproof.harness.results import results
from bootproof.harness.results.results import (
    Area,
    CaseResult,
    Complaint,
    Expected,
    Kernel,
    Memory,
    Reference,
    Register,
    Transcript,
)
from bootproof.loader.address import Range, counted
from bootproof.loader.arch import Registers
from bootproof.loader.bootimage import BootImage
from bootproof.printable import one_line

_MOST: Final = 64  # evidence of one guest: keys, and values of a key
_LONGEST: Final = (
    4096  # characters of a value or a sentence; a kernel command line has at most 4095
)


def case_result(proven: Proven, reproduce: str) -> CaseResult:
    """All that is known of how a case ended; `reproduce` is the command that runs it again."""
    case, outcome, image = proven.case, proven.outcome, proven.image
    problem = proven.problem
    said, proof = _evidence(outcome)
    release = next(iter(said.get("release", ())), None)
    qemu_seconds = outcome.costs.qemu_seconds if outcome else 0.0
    return CaseResult(
        case=case.id,
        arch=case.arch,
        kernel=Kernel(case.kernel, _origin(image, "kernel_sha256"), release, case.kernel_role),
        claim=replace(case, kernel="").id.removeprefix(f"{case.arch}--"),
        expected=Expected(case.expect.verdict.value, case.expect.why),
        verdict=proven.verdict.value,
        reason=_short(proven.reason),
        code=proven.code,
        problem=None if problem is None else _short(problem),
        unsafe=case.unsafe,
        protocol=image.protocol if image else None,
        entry=image.entry if image else None,
        seconds=round(proven.host_seconds, 3),
        harness_seconds=round(max(0.0, proven.host_seconds - qemu_seconds), 3),
        cpu_seconds=round(outcome.costs.cpu_seconds, 3) if outcome else None,
        instructions=outcome.costs.instructions if outcome else None,
        stages=outcome.stages if outcome else (),
        key=proven.key,
        evidence=said,
        proof=proof,
        findings=_findings(outcome),
        registers=_registers(image, outcome),
        memory=_memory(proven),
        transcript=results.transcript(outcome.observation.transcript) if outcome else None,
        log=_log(outcome),
        cmdline=_origin(image, "cmdline"),
        reproduce=reproduce,
        directory=one_line(str(proven.directory)),
        exact_end=outcome is None or outcome.observation.end.of_guest,
        complaints=_complaints(outcome),
        tests=outcome.judgement.tests if outcome else (),
    )


def _complaints(outcome: Outcome | None) -> tuple[Complaint, ...]:
    found = outcome.judgement.complaints if outcome else ()
    return tuple(
        Complaint(item.kind.value, item.words, item.count, item.after_proof) for item in found
    )


def reference_result(cost: Cost) -> Reference:
    """What a result keeps of a reference boot."""
    return Reference(cost.instructions, cost.stages)


def _evidence(outcome: Outcome | None) -> tuple[Mapping[str, tuple[str, ...]], str | None]:
    if outcome is None:
        return {}, None
    evidence = outcome.judgement.evidence
    said = {
        _short(key): tuple(map(_short, values[:_MOST]))
        for key, values in list(evidence.by_key.items())[:_MOST]
    }
    return said, None if evidence.proof is None else _short(evidence.proof)


def _origin(image: BootImage | None, what: str) -> str | None:
    return image.provenance.get(what) if image else None


def _short(text: str) -> str:
    """A guest decides how long it is; the whole transcript is in the run directory."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _log(outcome: Outcome | None) -> Transcript | None:
    raw = outcome.observation.log if outcome else b""
    return results.transcript(raw) if raw else None


def _findings(outcome: Outcome | None) -> tuple[str, ...]:
    probe = outcome.observation.probe if outcome else None
    if probe is None:
        return ()
    if not probe.reached:
        return (f"the entry was not reached; {probe.where}",)
    rules = [f"{item.grade.value} {item.code}: {item.sentence}" for item in probe.findings]
    more = [counted(probe.more, "more difference")] if probe.more else []
    return tuple(map(_short, (*map(str, probe.differences), *more, *rules)))


def _registers(image: BootImage | None, outcome: Outcome | None) -> tuple[Register, ...]:
    if image is None:
        return ()
    probe = outcome.observation.probe if outcome else None
    actual = dict(_flat(probe.registers)) if probe and probe.registers else {}
    wrong = [difference.what for difference in probe.differences] if probe else []
    return tuple(
        Register(name, value, actual.get(name), not any(_concerns(name, what) for what in wrong))
        for name, value in _flat(image.cpus[0])
    )


def _concerns(register: str, what: str) -> bool:
    return re.split(r"[ .]", what, maxsplit=1)[0] == register


def _flat(registers: Registers) -> Iterator[tuple[str, str]]:
    """Every register as text, a segment with its cache in one."""
    for item in fields(registers):
        value = getattr(registers, item.name)
        if isinstance(value, tuple):
            yield from ((f"{item.name}{number}", hex(one)) for number, one in enumerate(value))
        else:
            yield item.name, _text(value)


def _text(value: Any) -> str:
    if not is_dataclass(value):
        return hex(value)
    return " ".join(f"{item.name} {getattr(value, item.name):#x}" for item in fields(value))


def _memory(proven: Proven) -> Memory | None:
    image, outcome = proven.image, proven.outcome
    kernel = proven.prepared.kernel if proven.prepared else None
    if image is None or kernel is None:
        return None
    regions = [_area(region.name, region.range) for region in image.regions]
    loaded = kernel.kernel_load if kernel.setup_header else kernel.footprint.start
    if kernel.kernel_end > loaded:
        regions.append(_area("kernel file", Range.between(loaded, kernel.kernel_end)))
    if outcome is not None:
        regions += [_area(region.name, region.range) for region in outcome.placed]
    banks = tuple(_area(f"RAM bank {n}", bank.range) for n, bank in enumerate(image.banks))
    return Memory(banks, tuple(regions))


def _area(name: str, where: Range) -> Area:
    return Area(name, where.start, where.size)
