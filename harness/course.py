"""What a QEMU that was started does until its end, and what that comes to: watch, judge, record.

Owns the order of these steps; each lives in a module of its own. Imported by bootproof.harness.run
while QEMU starts, which takes as long.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from bootproof.dataclass import dataclass
from bootproof.harness.expected import Expected, Judgement
from bootproof.harness.guest import aftermath, evidence, text_in_ram
from bootproof.harness.guest.stages import Stage
from bootproof.harness.host.process import most_written
from bootproof.harness.host.rundir import DEVICES_DIRECTORY, RUN_LOG
from bootproof.harness.judge import judge
from bootproof.harness.observation import End, Observation, Probe, TextCheck
from bootproof.harness.qemu import probe
from bootproof.harness.qemu.placement import PlacedImage
from bootproof.harness.qemu.probe import Guest
from bootproof.harness.qemu.session import Session
from bootproof.harness.qemu.spawn import Spawned
from bootproof.harness.qemu.watch import Ending, Watch
from bootproof.harness.record import artifacts, recording, replaylog, reproduce
from bootproof.harness.record.recording import Logged, Record
from bootproof.harness.record.replaylog import ReplayLogError
from bootproof.harness.start import Start
from bootproof.harness.verdict import Verdict
from bootproof.loader import conformance, imagedigest
from bootproof.loader.address import format_size
from bootproof.loader.arch import StubError
from bootproof.loader.boot_parameters import reader
from bootproof.loader.layout import LayoutError, Region
from bootproof.loader.memory import GuestMemory
from bootproof.loader.protocols.table import RULES


@dataclass(frozen=True, slots=True)
class Costs:
    """What a run took."""

    host_seconds: float  # wall time
    qemu_seconds: float  # of which QEMU was running
    cpu_seconds: float  # of QEMU
    instructions: int | None  # of the guest; of one that was run twice, those of the second run

    def after(self, first: Costs) -> Costs:
        """The costs of two runs of which only this one counts."""
        return Costs(
            first.host_seconds + self.host_seconds,
            first.qemu_seconds + self.qemu_seconds,
            first.cpu_seconds + self.cpu_seconds,
            self.instructions,
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """A judged run and the directory that holds all of it."""

    judgement: Judgement
    observation: Observation
    costs: Costs
    directory: Path
    stages: tuple[Stage, ...]
    # The digest of what was started, and what was added to it in guest RAM.
    boot_image: str | None = None
    placed: tuple[Region, ...] = ()
    # Why there is no record of any use, None when there is one.
    not_recorded: str | None = None
    # How recording ended a run that need not have ended, if it did.
    in_the_way: str | None = None


class Course:
    """The course of one run: to the entry, where the probe looks, and on to the end."""

    def __init__(
        self, start: Start, qemu: Spawned, placed: PlacedImage, memory: GuestMemory
    ) -> None:
        """`qemu` was given `start.image`, whose RAM is `memory`, as it is `placed`."""
        self._start, self._directory = start, qemu.directory
        self._session = Session(qemu, start.on_console)
        self._guest = Guest(start.image, placed, memory, qemu.ram)
        if start.probe:
            RULES.get(start.image.protocol)  # imports them now: at its entry, the guest would wait
        self._probe: Probe | None = None

    def follow(self) -> None:
        """Lets the guest run until its end."""
        start, guest = self._start, self._guest
        with ThreadPoolExecutor(1) as beside, self._session as session:
            # While the guest runs: who hashes lets others have the interpreter.
            digest = beside.submit(imagedigest.digest, start.image, guest.written)
            self._seen, self._ending = session.observe(
                self._steps, start.observer, self._with_own_findings
            )
        self._digest = digest.result()

    def outcome(self, host_seconds: Callable[[], float], qemu_seconds: float) -> Outcome:
        """Judges and records it, when QEMU is dead and the directory ours again: a shell is going
        to run the script.
        """
        with ThreadPoolExecutor(1) as beside:
            beside.submit(self._guest.ram.close)  # nobody needs it any more, and it takes a while
            return self._outcome(host_seconds, qemu_seconds)

    def _outcome(self, host_seconds: Callable[[], float], qemu_seconds: float) -> Outcome:
        start, guest, directory = self._start, self._guest, self._directory
        what = (start.machine, guest.placed, guest.written, directory)
        reproduce.write_script(*what, probed=start.probe)
        if backing := start.image.backing:
            reproduce.restore_first(directory, guest.written, backing)
        log = self._log
        if isinstance(log, ReplayLogError):  # it is too long, or was not complete yet
            log = recording.read_log(directory / RUN_LOG, self._seen.transcript)
        judgement, seen, costs = concluded(
            *(start, self._session, self._seen, self._ending, log),
            lambda: (host_seconds(), qemu_seconds),
        )
        not_recorded = _record(start, seen, directory, log)
        return Outcome(
            judgement=judgement,
            observation=seen,
            costs=costs,
            directory=directory,
            not_recorded=not_recorded,
            in_the_way=in_the_way(seen, directory) if start.machine.recorded else None,
            stages=recording.stages(seen, log if not_recorded is None else None),
            boot_image=self._digest,
            placed=guest.placed.added,
        )

    def _steps(self, watch: Watch) -> Ending:
        start, session = self._start, self._session
        if not start.probe:
            session.monitor.execute("cont")
        else:
            seen = probe.at_entry(self._guest, session, watch.given_up)
            self._probe = replace(seen, findings=(*seen.findings, *start.findings))
            if not self._probe.reached:
                return watch.not_entered()
            if not self._probe.clean:
                return watch.stop(End.WRONG_HANDOVER)
            if start.stop_at_entry:
                return watch.stop(End.ENTERED)
            session.gdb.detach()
        # QEMU has read them, and the guest does not wait; were we killed from now on, nothing of
        # them would stay.
        shutil.rmtree(session.directory / DEVICES_DIRECTORY, ignore_errors=True)
        proof = isinstance(start.expected, Expected)
        return watch.until_the_end(
            proof=proof,
            marker=start.marker,
            kill_at=start.kill_at,
            left=start.talker.left if start.talker else None,
        )

    def _with_own_findings(self, seen: Observation) -> Observation:
        """While QEMU ends, which completes its log and then gives its memory back."""
        text = self._check_text(seen.transcript)
        path = self._directory / RUN_LOG
        self._log = recording.read_log(path, seen.transcript, replaylog.COPIED)
        return replace(seen, probe=self._probe, text=text)

    def _check_text(self, transcript: bytes) -> TextCheck | None:
        """Looks for the kernel's code in RAM where the guest says it is, if it says so."""
        ram, unpacked = self._guest.ram, self._start.unpacked
        code = evidence.parse(transcript).code if self._start.check_text else None
        written = self._guest.written
        if code is None or not written.contains(code.start, code.size):
            return None
        if unpacked is None:
            return text_in_ram.check(written, ram, code)
        banks = [(bank.base, bank.size) for bank in ram.banks]
        offset = code.start - unpacked.linked_at
        with text_in_ram.unpacked(unpacked.vmlinux.path, offset, banks) as reference:
            return text_in_ram.check(reference, ram, code)


def concluded(
    start: Start,
    session: Session,
    seen: Observation,
    ending: Ending,
    log: Logged,
    seconds: Callable[[], tuple[float, float]],
) -> tuple[Judgement, Observation, Costs]:
    """What the run of a QEMU that has ended came to: kept, judged, and its costs; `seconds` gives
    the wall time of all and of QEMU. Raises UserError.
    """
    seen = artifacts.keep(session, seen, log)
    judgement, seen = judged(start, seen, ending)
    instructions = recording.instructions(seen, start.machine.arch)
    return judgement, seen, Costs(*seconds(), seen.cpu_seconds, instructions)


def in_the_way(seen: Observation, directory: Path) -> str | None:
    """How recording ended a run that need not have ended, if it did.

    A CPU that takes one exception after the other and executes nothing keeps a QEMU that records
    from answering at all; and a log may become longer than any file may.
    """
    if seen.end is End.TOO_BUSY:
        return "QEMU does not answer while it records this guest"
    if seen.end is End.QEMU_EXITED and seen.exit_code == -signal.SIGXFSZ:
        most = most_written()
        log = directory / RUN_LOG
        if log.exists() and log.stat().st_size >= most:
            return f"the record is longer than {format_size(most)}"
    return None


def never_started(
    start: Start, memory: GuestMemory, directory: Path, error: StubError | LayoutError
) -> Outcome:
    """The outcome for an image that no machine can be brought to, and that its protocol forbids.

    Raises the error again where every rule holds: then only bootproof is in the way.
    """
    found = conformance.findings(start.image, reader(memory), cpus=start.machine.cpus)
    where = f"nothing was started: {error}"
    probe = Probe(None, where, findings=(*found, *start.findings))
    if not probe.violations:
        raise error
    seen = Observation(b"", End.NOT_STARTED, probe=probe)
    return Outcome(
        judgement=judge(start.expected, seen),
        observation=seen,
        costs=Costs(0.0, 0.0, 0.0, None),
        directory=directory,
        stages=(),
        boot_image=imagedigest.digest(start.image, memory),
        not_recorded="nothing was started",
    )


def _record(start: Start, seen: Observation, directory: Path, log: Logged) -> str | None:
    """Completes the record of a run; why there is none of any use, if there is none."""
    if start.machine.not_recorded is not None:
        return start.machine.not_recorded
    entry = seen.probe.instructions if seen.probe else None
    record = Record(start.machine, start.placement, seen.instructions, entry)
    return recording.finish(record, directory, seen.stderr, log)


def judged(start: Start, seen: Observation, ending: Ending) -> tuple[Judgement, Observation]:
    """The verdict, and what was seen: with a name for the place where that is what one asks for."""
    judgement = _with_unstartable(start, seen, _with_lacks(start, judge(start.expected, seen)))
    place = seen.place
    if place is None or start.symbols is None or not judgement.verdict.needs_place:
        return judgement, seen
    symbols = start.symbols()
    if symbols is None:
        return judgement, seen
    region = start.image.region("kernel") if start.unpacked is None else None
    displacement = region.start if region else 0
    name = symbols.name(place.pc, ending.before, ending.at, displacement=displacement)
    seen = replace(seen, place=replace(place, symbol=name))
    return _with_lacks(start, judge(start.expected, seen)), seen


def _with_unstartable(start: Start, seen: Observation, judgement: Judgement) -> Judgement:
    """The judgement of a guest whose shell did not become the user's program, and why not."""
    if judgement.verdict is not Verdict.INIT_FAILED or not aftermath.not_started(seen.transcript):
        return judgement
    why = start.unstartable() if start.unstartable else ""
    return replace(judgement, reason=f"{judgement.reason}; {why}") if why else judgement


def _with_lacks(start: Start, judgement: Judgement) -> Judgement:
    """The judgement of a guest without a proof, and what its kernel was built without."""
    if start.lacks is None or not judgement.verdict.needs_configuration:
        return judgement
    lacking = start.lacks()
    if not lacking:
        return judgement
    reason = f"{judgement.reason}; the kernel lacks {'; and '.join(lacking)}"
    return replace(judgement, reason=reason)
