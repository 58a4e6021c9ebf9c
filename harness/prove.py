"""A case from start to finish: what bootproof.harness.prepare makes of it, run, result.

What pytest and the command line both call; everything it does is done by other modules.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bootproof.dataclass import dataclass
from bootproof.harness import typedjson
from bootproof.harness.case import Case
from bootproof.harness.errors import UserError, lack_of
from bootproof.harness.host.rundir import CONSOLE, DMESG, write_result
from bootproof.harness.host.turns import TURNS
from bootproof.harness.judgement import CaseEnd, came_to, judge_case
from bootproof.harness.prepare import Options, Prepared, prepare
from bootproof.harness.qemu.binary import build_of
from bootproof.harness.qemu.clock import ICOUNT_SHIFT
from bootproof.harness.qemu.machine import Machine
from bootproof.harness.record import interrupted
from bootproof.harness.results.key import Key
from bootproof.harness.run import run
from bootproof.harness.start import Start
from bootproof.harness.text import printable
from bootproof.harness.verdict import Verdict
from bootproof.loader.arch import to_json
from bootproof.loader.bootimage import BootImage
from bootproof.loader.errors import LoaderError

if TYPE_CHECKING:
    from bootproof.harness.course import Outcome
    from bootproof.harness.observation import Observation, Place, Probe

_LOG_LINES: Final = 10


@dataclass(frozen=True, slots=True)
class Proven:
    """How a case ended; what there is only of a boot is None when loading was refused."""

    case: Case
    verdict: Verdict
    reason: str
    # The loader's error code of a refusal.
    code: str | None
    # What was run.
    prepared: Prepared | None
    outcome: Outcome | None
    # The run directory.
    directory: Path
    # Wall time of all of it, but for waiting until other guests have ended.
    host_seconds: float
    # What must be the same of two runs whose transcripts and counts are compared.
    key: Key | None = None

    @property
    def problem(self) -> str | None:
        """What is not as the case expects, in one sentence; None when all is."""
        end = CaseEnd(self.verdict, self.reason, self.code, complaint=self._complaint)
        if self.prepared is not None and (kernel := self.prepared.kernel) is not None:
            protocol = self.prepared.start.image.protocol
            end = replace(end, pvh=kernel.pvh_boot_cap.state, protocol=protocol)
        return judge_case(self.case.expect, end)

    @property
    def image(self) -> BootImage | None:
        """The boot image, which a refusal has not got."""
        return self.prepared.start.image if self.prepared else None

    @property
    def came_to(self) -> str:
        """What the case came to, as bootproof.harness.judgement calls it."""
        return came_to(self.verdict.value, self.problem)

    @property
    def _complaint(self) -> str | None:
        if not self.case.fail_on_complaints or self.outcome is None:
            return None
        return next(map(str, self.outcome.judgement.complaints), None)


def prove(case: Case, directory: Path, options: Options = Options()) -> Proven:
    """Boots one case in `directory` and leaves its artifacts there, in place of an earlier run's.

    Raises UserError and FetchError for what is not the case's own doing.
    """
    began = TURNS.clock()
    with _host_errors():
        try:
            prepared = prepare(case, directory, options)
        except LoaderError as error:
            if error.of_host:
                raise
            return _refused(case, error, directory, began)
        return run_prepared(case, prepared, directory, began)


@contextlib.contextmanager
def _host_errors() -> Iterator[None]:
    """What the host refuses is said of no kernel. Raises UserError."""
    try:
        yield
    except LoaderError as error:
        if not error.of_host:
            raise
        raise UserError(str(error)) from error
    except (MemoryError, RuntimeError) as error:
        if (lack := lack_of(error)) is None:
            raise
        raise UserError(lack) from error


def run_prepared(
    case: Case, prepared: Prepared, directory: Path, began: float | None = None
) -> Proven:
    """Runs what `prepare` made, judges it and writes result.json. Raises as `prove`."""
    began = TURNS.clock() if began is None else began
    with interrupted.noted(directory, _about(case)):
        outcome = run(prepared.start, directory)
    judgement = outcome.judgement
    proven = Proven(
        *(case, judgement.verdict, judgement.reason, None, prepared, outcome, directory),
        TURNS.clock() - began,
        _key(case, prepared.start, outcome),
    )
    write_result(directory, result_json(proven, prepared.start.machine))
    return proven


def result_json(proven: Proven, machine: Machine | None) -> dict[str, Any]:
    """The case's result as data; the keys are stable within a version."""
    result: dict[str, Any] = {
        **_about(proven.case),
        "verdict": proven.verdict.value,
        "reason": proven.reason,
        "problem": proven.problem,
        "code": proven.code,
        "profile": _profile(proven.case),
        "host_seconds": round(proven.host_seconds, 3),
    }
    if proven.prepared is not None:
        image, kernel = proven.prepared.start.image, proven.prepared.kernel
        if kernel is not None:
            result["pvh"] = str(kernel.pvh_boot_cap)
        else:
            result["unseen"] = [{"field": u.field, "how": str(u)} for u in image.unseen]
        result["protocol"] = image.protocol
        result["entry"] = hex(image.entry)
    if machine is not None:
        result["machine"] = machine_json(machine)
    if proven.key is not None:
        result["key"] = typedjson.to_json(proven.key)
    if proven.outcome is not None:
        result |= outcome_json(proven.outcome)
    return result


def _about(case: Case) -> dict[str, str]:
    """What tells one run from others."""
    if case.boot_image is None:
        return {"case": case.id}
    return {"image": str(Path(case.boot_image).absolute())}


def _key(case: Case, start: Start, outcome: Outcome) -> Key:
    """What another run must have in common with this one; QEMU is asked for its build, once."""
    machine = start.machine
    return Key(
        qemu=build_of(machine.qemu.path),
        machine=machine.board,
        cpu=machine.cpu,
        memory=machine.memory,
        cpus=machine.cpus,
        icount_shift=None if machine.realtime else ICOUNT_SHIFT,
        probe=start.probe,
        console=start.talker.console if start.talker else "file",
        profile=_profile(case),
        boot_image=outcome.boot_image,
    )


def _profile(case: Case) -> str | None:
    ours = case.cmdline is None and case.boot_image is None
    return case.profile if ours else None


def machine_json(machine: Machine) -> Mapping[str, Any]:
    return {
        "arch": machine.arch.name,
        "qemu": str(machine.qemu),
        "board": machine.board,
        "cpu": machine.cpu,
        "memory": machine.memory,
        "cpus": machine.cpus,
        "deterministic": machine.deterministic,
        "realtime": machine.realtime or None,
    }


def outcome_json(outcome: Outcome) -> Mapping[str, Any]:
    seen = outcome.observation
    return {
        "end": seen.end.name.lower().replace("_", "-"),
        "exit_code": seen.exit_code,
        "instructions": outcome.costs.instructions,
        "cpu_seconds": round(outcome.costs.cpu_seconds, 3),
        "qemu_seconds": round(outcome.costs.qemu_seconds, 3),
        "not_recorded": outcome.not_recorded,
        "stages": typedjson.to_json(outcome.stages),
        "console": CONSOLE,
        "console_bytes": len(seen.transcript),
        "evidence": dict(outcome.judgement.evidence.to_json()),
        "complaints": [dict(item.to_json()) for item in outcome.judgement.complaints],
        "tests": typedjson.to_json(outcome.judgement.tests),
        "registers": seen.registers.splitlines(),
        "place": None if seen.place is None else _place_json(seen.place),
        "reset": seen.reset or None,
        "log_buffer": _log_json(seen),
        "code_in_ram": None
        if seen.text is None
        else {"words": seen.text.words, "patched": seen.text.patched},
        "probe": None if seen.probe is None else _probe_json(seen.probe),
        "qemu_stderr": seen.stderr,
    }


def _place_json(place: Place) -> Mapping[str, Any]:
    return {
        "pc": hex(place.pc),
        "symbol": place.symbol,
        "interrupts_off": place.interrupts_off,
        "instructions": list(place.instructions),
        "program_counters": [hex(pc) for pc in place.counters],
    }


def _log_json(seen: Observation) -> Mapping[str, Any] | None:
    """Where the log buffer in guest RAM is kept, and its last lines."""
    if not seen.log:
        return None
    lines = [printable(line) for line in seen.log.splitlines()]
    return {"file": DMESG, "lines": len(lines), "last": lines[-_LOG_LINES:]}


def _probe_json(probe: Probe) -> Mapping[str, Any]:
    return {
        "reached": probe.reached,
        "where": probe.where,
        "registers": None if probe.registers is None else to_json(probe.registers),
        "differences": [str(difference) for difference in probe.differences],
        "more_differences": probe.more,
        "findings": [finding.as_dict() for finding in probe.findings],
    }


def _refused(case: Case, error: LoaderError, directory: Path, began: float) -> Proven:
    proven = Proven(
        *(case, Verdict.LOAD_REFUSED, str(error), error.code, None, None, directory),
        TURNS.clock() - began,
    )
    write_result(directory, result_json(proven, None))
    return proven
