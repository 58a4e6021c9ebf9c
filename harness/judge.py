"""The rules that turn what was seen of a run into one of the verdicts.

Pure: an `Observation` (console bytes, log buffer, how the run ended) is held against an `Expected`
(what the request implies). What cannot be told apart is not told apart. Never starts, reads or
writes anything.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from bootproof.harness import command_line
from bootproof.harness.expected import Expected, ExpectedHandover, Judgement
from bootproof.harness.guest import (
    aftermath,
    complaints,
    evidence,
    initrd_log,
    kernellog,
    options,
)
from bootproof.harness.guest.aftermath import Aftermath
from bootproof.harness.guest.complaints import Complaint, Kind
from bootproof.harness.guest.evidence import GuestEvidence
from bootproof.harness.observation import End, Observation, Probe
from bootproof.harness.text import last_line, printable, quoted
from bootproof.harness.verdict import Verdict
from bootproof.loader.address import Range, format_size, joined, without
from bootproof.printable import one_line

if TYPE_CHECKING:
    from bootproof.harness.guest.tap import GuestTest


def judge(expected: Expected | ExpectedHandover, seen: Observation) -> Judgement:
    """The verdict on one run."""
    said = evidence.parse(seen.transcript)
    found = _in_host_time(*_verdict(expected, seen, said), seen)
    verdict, reason, tests = _with_tests(*found, expected, seen, said)
    if seen.console_lost and not _stands_without_console(verdict):
        lost = "the host had no room for all that the console said (is the disk full?)"
        verdict, reason = Verdict.INCONCLUSIVE, f"{lost}; without the rest: {reason}"
    told = _complaints(seen)
    return Judgement(verdict, one_line(reason), said, told, tests)  # it may quote guest and QEMU


def _in_host_time(verdict: Verdict, reason: str, seen: Observation) -> tuple[Verdict, str]:
    """The verdict on a guest whose clock was the host's, and may not have kept time for it.

    To measure a clock against another one takes a host that does not pause; a kernel that has no
    third one waits for ever then, or panics.
    """
    text = seen.transcript + seen.log
    heard = kernellog.clockless(text) if verdict in _HANGS else None
    if verdict is Verdict.PANIC and _TIMER_PANIC in reason:
        heard = _TIMER_PANIC
    if not seen.realtime or heard is None:
        return verdict, reason
    why = f"the kernel found no clock that keeps time ({quoted(heard)}), which in real time"
    return Verdict.INCONCLUSIVE, f"{why} ({seen.realtime}) may be the host's doing; {reason}"


_HANGS: Final = (Verdict.STUCK, Verdict.SILENT, Verdict.OVER_BUDGET)
_TIMER_PANIC: Final = "IO-APIC + timer doesn't work!"


def _tests_asked(expected: Expected | ExpectedHandover, said: GuestEvidence) -> bool:
    """Whether a guest was to run tests, and got as far as beginning with them."""
    if isinstance(expected, ExpectedHandover) or said.proof is None:
        return False
    return command_line.runs_tests(expected.cmdline)


def _with_tests(
    verdict: Verdict,
    reason: str,
    expected: Expected | ExpectedHandover,
    seen: Observation,
    said: GuestEvidence,
) -> tuple[Verdict, str, tuple[GuestTest, ...]]:
    """A boot that went well is as good as the tests in it; what failed before them counts first."""
    asked = _tests_asked(expected, said)
    if not asked and _RESULTS not in seen.transcript:
        return verdict, reason, ()
    from bootproof.harness.guest import guest_tests  # few guests run tests

    cut = seen.console_lost or verdict.of_host
    ended = not _stays(seen)
    tests = guest_tests.find(seen.transcript, asked=asked, ended=ended, cut=cut)
    failed = guest_tests.failures(tests)
    if verdict.passed and failed:
        return Verdict.TESTS_FAILED, f"{failed} ({reason})", tests
    told = failed or (f"tests: {guest_tests.summary(tests)}" if tests else "")
    return verdict, f"{reason}; {told}" if told else reason, tests


_RESULTS: Final = b"TAP version"  # before results of tests that were not asked for


def _complaints(seen: Observation) -> tuple[Complaint, ...]:
    end = evidence.proof_end(seen.transcript)
    heard = complaints.find(seen.transcript[:end] + _after(seen), end)
    return complaints.merged(heard, complaints.find(seen.log))


def _stands_without_console(verdict: Verdict) -> bool:
    """Whether a verdict needs no word of the console, or rests on one that was said."""
    known = verdict.of_kernel or verdict.of_handover or verdict.of_host
    return known or verdict is Verdict.CONSOLE_LIMIT


def _verdict(
    expected: Expected | ExpectedHandover, seen: Observation, said: GuestEvidence
) -> tuple[Verdict, str]:
    if seen.probe is not None:
        wrong = _handover(seen.probe, seen)
        if wrong is not None:
            return wrong
    if isinstance(expected, ExpectedHandover):
        return _after_handover(expected, seen)
    if said.proof is None:
        return _without_proof(expected, seen)
    oops = kernellog.oops(seen.transcript[: evidence.proof_start(seen.transcript)])
    unseen = None if oops else kernellog.oops(seen.log)
    if oops or unseen:
        label = _FROM_RAM if unseen else ""
        return Verdict.OOPS, f"{oops or unseen}{label}; init proved its boot all the same"
    comparison = _Comparison(expected, said)
    contradictions = [
        *comparison.contradictions,
        *_mode_contradictions(expected, seen),
        *_text_contradictions(seen),
    ]
    if contradictions:
        return Verdict.BOOTED_WRONG, "; ".join(contradictions)
    return _after_proof(expected, seen, said, comparison.explained)


def _after_proof(
    expected: Expected, seen: Observation, said: GuestEvidence, explained: Sequence[str]
) -> tuple[Verdict, str]:
    """A boot that is proved, and what came then: it counts where it is a program of the user's, or
    the kernel's doing while he talked to a shell of ours.

    What our own init does then is to end the machine. `explained` are differences that the guest
    has from its own command line.
    """
    proved = "; ".join([_booted(expected, said), *explained])
    if expected.other:  # how it ends is its own affair
        return Verdict.BOOTED, proved
    program = command_line.users_program(expected.cmdline)
    after = _after(seen)
    then = aftermath.after(program, after)
    if then is None and seen.end is End.LOCKED_UP:
        then = Aftermath(_lasting(seen), Kind.LOCKUP)
    if then is None:
        if program is not None and seen.end.of_host and kernellog.orderly_end(after) is None:
            cut, why = _ended(seen)  # nobody knows what it would have come to
            return cut, f"{why}; before that {proved}"
        if program is not None and _stays(seen):
            limit = f": {seen.end.value}" if seen.end is End.CONSOLE_LIMIT else ""
            proved += f"; {program} did not end by itself{limit}"
        return Verdict.BOOTED, proved
    talked = command_line.talks(expected.cmdline) and then.failure is not Kind.INIT
    counts = program is not None or talked
    failed = _FAILED[then.failure] if counts and then.failure else Verdict.BOOTED
    # Its archive is unpacked behind ours, which holds the proof: it may be what could not be.
    cause = initrd_log.refusal(seen.transcript) if failed is Verdict.INIT_FAILED else None
    return failed, f"{proved}; then {then.sentence}{f'; {cause}' if cause else ''}"


def _after(seen: Observation) -> bytes:
    """What was said after the proof, but for panics that a program quotes."""
    return kernellog.without_quotations(
        seen.transcript[evidence.proof_end(seen.transcript) :],
        stamps=kernellog.stamped(seen.transcript),
        in_log=seen.panic_in_log,
    )


def _stays(seen: Observation) -> bool:
    """Whether a guest has proved its boot and not ended: not even with the kernel's word for it."""
    after = seen.transcript[evidence.proof_end(seen.transcript) :]
    given_up = seen.end in (End.PROOF, End.CONSOLE_LIMIT)
    return given_up and kernellog.orderly_end(after) is None


def _booted(expected: Expected, said: GuestEvidence) -> str:
    if expected.other:
        name = said.value("release")
        return f"{'the guest' if name is None else quoted(name)} proved its boot"
    code = said.code.start if said.code else 0
    start = expected.virtual_start
    virtual = "" if start is None else f", virtual {start:#x}"
    return f"{said.value('release')} proved its boot; kernel code at {code:#x}{virtual}"


_FAILED: Final = {
    Kind.INIT: Verdict.INIT_FAILED,
    Kind.PANIC: Verdict.PANIC,
    Kind.OOPS: Verdict.OOPS,
    Kind.LOCKUP: Verdict.STUCK,
}


def _handover(probe: Probe, seen: Observation) -> tuple[Verdict, str] | None:
    """What the entry probe found wrong, if anything; nothing after it counts then."""
    broken = [f"{rule.code}: {rule.sentence}" for rule in probe.violations]
    if seen.end is End.NOT_STARTED:
        return Verdict.PROTOCOL_VIOLATION, "; ".join([*broken, probe.where])
    if not probe.reached:
        if seen.end.of_host:
            return None
        return Verdict.ENTRY_NOT_REACHED, "; ".join([seen.end.value, probe.where, *broken])
    if broken:
        return Verdict.PROTOCOL_VIOLATION, "; ".join(broken)
    if probe.differences:
        text = "; ".join(map(str, probe.differences))
        return Verdict.HANDOVER_WRONG, text + (f"; and {probe.more} more" if probe.more else "")
    return None


def _after_handover(expected: ExpectedHandover, seen: Observation) -> tuple[Verdict, str]:
    """A guest that cannot prove its boot: never more than `handed-over`.

    Without `until`, what follows may be anything but silence, what the kernel itself calls a
    failure, or a failure of ours.
    """
    entered = f"entered at {expected.entry:#x} exactly as asked"
    if seen.end is End.ENTERED:
        return Verdict.HANDED_OVER, f"{entered}, and stopped there"
    until = expected.until
    wanted = quoted(printable(until or b""))
    appeared = -1 if until is None else kernellog.find(seen.transcript, until)
    if appeared >= 0:
        before = seen.transcript[:appeared]
        panic, oops = kernellog.panic(before), kernellog.oops(before)
        if panic is not None:
            return Verdict.PANIC, f"kernel panic: {panic}"
        if oops is not None:
            return Verdict.OOPS, f"{oops}; the console showed {wanted} all the same"
        return Verdict.HANDED_OVER, f"{entered}; the console showed {wanted}"
    verdict, reason = _without_proof(expected, seen)
    if until is not None:
        if kernellog.echoed(seen.transcript, until):
            return verdict, f"{reason}; {wanted} stands in the kernel's own command line: no proof"
        return verdict, f"{reason}; the console never showed {wanted}"
    if not seen.transcript or verdict.of_kernel or verdict.of_host:
        return verdict, reason
    return Verdict.HANDED_OVER, f"{entered}; then {reason}"


# --- without a proof ---------------------------------------------------------------------------


def _without_proof(expected: Expected | ExpectedHandover, seen: Observation) -> tuple[Verdict, str]:
    """What the kernel said about its end, else how the run ended: the first rule that applies."""
    rules = (_powered_down, _init_failed, _panicked, _oopsed, _unheard, _ended_in_order)
    said = next(filter(None, (rule(seen) for rule in rules)), None)
    verdict, reason = said or _ended(seen)
    causes = () if seen.end.of_host else _causes(expected, seen)
    return verdict, "; ".join([reason, *causes])


def _causes(expected: Expected | ExpectedHandover, seen: Observation) -> Iterator[str]:
    """What the kernel's log tells of its console and its command line, where either is wrong."""
    serial, consoles = expected.serial, kernellog.consoles(seen.log)
    if serial and consoles and serial not in consoles:
        others = " and ".join(consoles)
        yield f"the kernel's console is {others}, not {serial}: add console={serial}"
    heard = _heard(seen, kernellog.command_line)
    if heard and isinstance(expected, Expected) and not _has_words(heard[0], expected.cmdline):
        yield (
            f"the kernel's command line is {quoted(heard[0])}, not the one that it was given"
            " (CONFIG_CMDLINE_OVERRIDE or CONFIG_CMDLINE_FORCE)"
        )


def _has_words(cmdline: str, words: str) -> bool:
    """Whether `words` stand in a command line as they are: others may come before and behind."""
    return f" {words} " in f" {cmdline} "


_Rule = tuple[Verdict, str] | None
_T = TypeVar("_T")


def _heard(seen: Observation, find: Callable[[bytes], _T | None]) -> tuple[_T, str] | None:
    """What `find` finds on the console, else in the log buffer; with a label in that case.

    When the run was not ended by the guest, the log buffer is no news: it is only looked at later.
    """
    message = find(seen.transcript)
    if message is not None:
        return message, ""
    message = None if seen.end.of_host else find(seen.log)
    return None if message is None else (message, _FROM_RAM)


_FROM_RAM: Final = " (from the log buffer in RAM: the console does not show it)"


def _init_failed(seen: Observation) -> _Rule:
    heard = _heard(seen, kernellog.init_failure)
    return heard and (Verdict.INIT_FAILED, f"{heard[0]}{_no_init(heard[0], seen)}{heard[1]}")


def _panicked(seen: Observation) -> _Rule:
    heard = _heard(seen, kernellog.panic)
    if heard is None:
        return None
    panic, label = heard
    oops = _heard(seen, kernellog.oops)
    cause = (
        f"; {oops[0]}" if oops else _no_init(panic.reason, seen)
    )  # "Fatal exception" says nothing
    return Verdict.PANIC, f"kernel panic: {panic}{cause}{label}"


def _no_init(panic: str, seen: Observation) -> str:
    why = initrd_log.explanation(panic, seen.log or seen.transcript)
    return f"; {why}" if why else ""


def _oopsed(seen: Observation) -> _Rule:
    heard = _heard(seen, kernellog.oops)
    if heard is None:
        return None
    return Verdict.OOPS, f"{heard[0]}{heard[1]}; then {_ended(seen)[1]}"


def _unheard(seen: Observation) -> _Rule:
    """Our init ran to its end, and nobody could read its proof: neither good nor bad is known."""
    if _heard(seen, kernellog.unheard) is not None:
        in_ram = " (the log buffer in RAM has it)" if evidence.parse(seen.log).proof else ""
        return Verdict.INCONCLUSIVE, (
            "init ran, but found no serial port that it can write to: its proof went"
            f" elsewhere{in_ram}; the kernel needs the driver of the serial port"
        )
    restarted = seen.end is End.GUEST_RESET and _heard(seen, kernellog.orderly_end)
    said = evidence.parse(seen.transcript)
    if restarted and said.text and said.proof is None:
        return Verdict.INCONCLUSIVE, "init ran, but its proof is not whole on the console"
    return None


def _powered_down(seen: Observation) -> _Rule:
    """Where nothing can power a machine off, init is gone all the same, and the kernel panics."""
    heard = _heard(seen, kernellog.powered_down)
    if heard is None:
        return None
    said, label = heard
    why = "and the machine has no power switch that the kernel knows of"
    reason = f"the guest was powered down in order: {quoted(said)}, {why}{label}"
    return Verdict.GUEST_SHUTDOWN_EARLY, reason


def _ended_in_order(seen: Observation) -> _Rule:
    """An end that was asked for: `reboot -f` ends in the same event as a triple fault."""
    heard = _heard(seen, kernellog.orderly_end)
    if heard is None or not (seen.end is End.GUEST_RESET or seen.end.standstill):
        return None
    said, label = heard
    how = "restarted"
    if seen.end.standstill:
        if "Restarting" in said:
            return None  # and yet it did not
        how = "halted" if "halted" in said else "powered down"
    return Verdict.GUEST_SHUTDOWN_EARLY, f"the guest was {how} in order: {quoted(said)}{label}"


def _ended(seen: Observation) -> tuple[Verdict, str]:
    where = _where(seen)
    if seen.end is End.QEMU_EXITED:
        return _qemu_exit(seen, where)
    if seen.end is End.GUEST_RESET:
        cause = f": {seen.reset}" if seen.reset else ""
        return Verdict.CPU_RESET, f"the CPU was reset{_at(seen)}, {where}{cause}"
    if seen.end is End.GUEST_SHUTDOWN:
        code = f" with exit code {seen.exit_code}" if seen.exit_code else ""
        return Verdict.GUEST_SHUTDOWN_EARLY, f"the guest powered off{code} {where}"
    if seen.end.standstill or seen.end is End.LOCKED_UP:
        verdict = Verdict.STUCK if seen.transcript else Verdict.SILENT
        said = f"stuck{_at(seen)}: {_lasting(seen)}, {where}, {_cost(seen)} in{_slow(seen)}"
        return verdict, said
    if seen.end is End.BUDGET:
        lasting = _lasting(seen)
        named = "" if lasting == seen.end.value else f": {lasting}"
        said = f"still going{_at(seen)}{named} after {_cost(seen)}, {where}{_slow(seen)}"
        return Verdict.OVER_BUDGET, said
    if seen.end is End.CONSOLE_LIMIT:
        return Verdict.CONSOLE_LIMIT, f"{format_size(len(seen.transcript))} of output, {where}"
    said = f": {_last_words(seen)}" if seen.end is End.HOST_ENDED else ""
    return Verdict.INCONCLUSIVE, f"{seen.end.value}, {where}{said}"


def _lasting(seen: Observation) -> str:
    """What the kernel itself says it is stuck in, else what was seen of it."""
    found = [item for item in _complaints(seen) if item.kind in complaints.LASTING]
    return str(found[-1]) if found else seen.end.value


def _where(seen: Observation) -> str:
    """How far the guest came: the console's last line, and what only the log buffer has."""
    last = last_line(seen.transcript)
    where = f"after {quoted(last)}" if last else "before any console output"
    lines = [line for line in map(bytes.strip, seen.log.splitlines()) if line]
    if lines and lines[-1] not in seen.transcript and not seen.end.of_host:
        said = " / ".join(printable(line) for line in lines[-_LOG_LINES:])
        where += f" (the log buffer in RAM ends with {quoted(said)})"
    return where


_LOG_LINES: Final = 3
_KILLED: Final = "; is the host out of memory?"


def _qemu_exit(seen: Observation, where: str) -> tuple[Verdict, str]:
    said, code = _last_words(seen), seen.exit_code
    if code is not None and code < 0:
        killed = _KILLED if -code == signal.SIGKILL else ""
        return Verdict.QEMU_FAILED, f"QEMU was ended by signal {-code} {where}: {said}{killed}"
    if code:
        return Verdict.QEMU_FAILED, f"QEMU ended with exit code {code} {where}: {said}"
    return Verdict.INCONCLUSIVE, f"QEMU ended with exit code 0 and no event {where}: {said}"


def _last_words(seen: Observation) -> str:
    return seen.stderr.splitlines()[-1] if seen.stderr else "nothing on stderr"


# --- with one ----------------------------------------------------------------------------------


class _Comparison:
    """What the guest says, held against what is expected: contradictions, and differences that it
    has from its own command line.
    """

    def __init__(self, expected: Expected, said: GuestEvidence) -> None:
        self.contradictions: list[str] = []
        self.explained: list[str] = []
        self._expected, self._said = expected, said
        self._cmdline = said.value("cmdline") or ""
        if not said.proves(expected.nonce):
            self._contradicts("the proof is not over this case's nonce and this evidence")
        comparisons = {
            "release": self._compare_release,
            "cmdline": self._compare_cmdline,
            "cpus": self._compare_cpus,
            "machine": self._compare_machine,
            "code": self._compare_code,
            "ram": self._compare_memory,
            "bootloader_type": self._compare_loader,
            "virtual_start": self._compare_virtual_start,
        }
        for key, compare in comparisons.items():
            if not expected.other or key in ("cmdline", *said.by_key):
                compare()

    def _contradicts(self, sentence: str) -> None:
        self.contradictions.append(sentence)

    def _differs(self, sentence: str, wanted: str, names: frozenset[bytes]) -> None:
        """A difference that parameters of these names explain, if the guest has one."""
        given = options.given(self._cmdline, names)
        if given:
            self.explained.append(f"{sentence} ({' '.join(given)})")
        else:
            self._contradicts(f"{sentence}, not {wanted}")

    def _compare_release(self) -> None:
        wanted, said = self._expected.releases, self._said.value("release")
        if wanted and said not in wanted:
            said = _value(self._said, "release")
            self._contradicts(
                f"the guest's kernel is {said}, not {quoted(printable(wanted[0].encode()))}"
            )

    def _compare_cmdline(self) -> None:
        """A kernel may have words of its own (CONFIG_CMDLINE, a boot configuration)."""
        wanted = self._expected.cmdline
        if not _has_words(self._cmdline, wanted):
            self._contradicts(
                f"the command line is {_value(self._said, 'cmdline')}, not {quoted(wanted)}"
            )
        elif self._cmdline != wanted:
            before, _, after = self._cmdline.partition(wanted)
            added = f"{before.strip()} {after.strip()}".strip()
            self.explained.append(f"the kernel has {quoted(added)} in its command line by itself")

    def _compare_cpus(self) -> None:
        cpus, wanted = self._said.number("cpus"), self._expected.cpus
        if cpus == wanted:
            return
        sentence = f"the guest has {self._said.value('cpus')} CPU{'' if cpus == 1 else 's'}"
        fewer = cpus is not None and 0 < cpus < wanted
        self._differs(sentence, str(wanted), options.CPUS if fewer else frozenset())

    def _compare_machine(self) -> None:
        found = self._said.value("machine")
        if found != self._expected.arch:
            self._contradicts(f"the guest is a {found}, not {self._expected.arch}")

    def _compare_code(self) -> None:
        code, wanted = self._said.code, self._expected.code
        if code is None:
            self._contradicts("the guest did not say where its kernel code is")
        elif wanted is not None and (wrong := wanted.contradiction(code.start)):
            self._contradicts(wrong)

    def _compare_virtual_start(self) -> None:
        wanted, found = self._expected.virtual_start, self._said.number("virtual_start", 16)
        if wanted is not None and found != wanted:
            at = "nowhere that it says" if found is None else f"{found:#x}"
            self._contradicts(f"the kernel's first byte is at virtual {at}, not at {wanted:#x}")

    def _compare_memory(self) -> None:
        """The map is the one that was given, and the machine has what it tells of."""
        visible, wanted = joined(self._said.ram), joined(self._expected.ram)
        alike = visible == wanted or self._reserved_twice(visible, wanted)
        if not alike and not self._unplaced(visible, wanted):
            self._differs(f"the guest sees RAM {_listed(visible)}", _listed(wanted), options.MEMORY)
        banks = joined(self._expected.banks)
        nowhere = [part for part in visible if not any(bank.contains(part) for bank in banks)]
        if nowhere:
            self._contradicts(
                f"the guest sees RAM {_listed(nowhere)}, but the machine has {_listed(banks)}"
            )
        total, most = (self._said.number("memory") or 0) << 10, sum(part.size for part in visible)
        if visible and not 0 < total <= most and not self._expected.other:
            self._contradicts(
                f"the guest has {format_size(total)} of memory in use, of {format_size(most)}"
            )

    def _reserved_twice(self, visible: Sequence[Range], wanted: Sequence[Range]) -> bool:
        """Whether it only maps, beside what it was told to, RAM that is reserved in two ways."""
        more = [part for area in visible for part in without(area, wanted)]
        twice = joined(self._expected.reserved_twice)
        less = [part for area in wanted for part in without(area, visible)]
        if not more or less or not all(any(t.contains(part) for t in twice) for part in more):
            return False
        self.explained.append(f"the kernel maps {_listed(more)}, which is reserved in two ways")
        return True

    def _unplaced(self, visible: Sequence[Range], wanted: Sequence[Range]) -> bool:
        """Whether it sees all but what it was told to keep from itself, wherever it likes."""
        kept = [hole for area in wanted for hole in without(area, visible)]
        more = [part for area in visible for part in without(area, wanted)]
        if more or sum(hole.size for hole in kept) != self._expected.unplaced:
            return False
        self.explained.append(f"the kernel keeps {_listed(kept)} unmapped: it was told to")
        return True

    def _compare_loader(self) -> None:
        wanted, found = self._expected.bootloader_type, self._said.number("bootloader_type")
        if wanted is not None and found != wanted:
            self._contradicts(f"bootloader_type is {found}, not {wanted}")
        asked = self._expected.request
        if asked is not None and self._said.value("request") != asked:
            request = _value(self._said, "request")
            self._contradicts(f"the device tree is of request {request}, not {quoted(asked)}")


def _listed(ranges: Sequence[Range]) -> str:
    return ", ".join(map(str, ranges)) or "nothing"


def _value(said: GuestEvidence, key: str) -> str:
    value = said.value(key)
    return "None" if value is None else quoted(value)


def _mode_contradictions(expected: Expected, seen: Observation) -> Iterator[str]:
    logged = expected.mode_log.search(seen.transcript) if expected.mode_log else None
    if logged and logged.group(1).decode() != expected.mode:
        yield f"the kernel was entered in {printable(logged.group(1))}, not in {expected.mode}"


def _text_contradictions(seen: Observation) -> Iterator[str]:
    if seen.text is not None and not seen.text.fits:
        yield (
            f"the kernel's code is not in RAM where the guest says it is: {seen.text.share:.0%} of"
            f" {seen.text.words} words differ"
        )


def _at(seen: Observation) -> str:
    return "" if seen.place is None else f" at {seen.place}"


def _cost(seen: Observation) -> str:
    if seen.instructions is None:
        return f"{seen.cpu_seconds:.1f} s of QEMU CPU time"
    return f"{seen.instructions / 1e6:,.0f} million guest instructions"


_SLOW: Final = 50_000_000  # guest instructions in a CPU second: the budgets are for a host of more


def _slow(seen: Observation) -> str:
    """What is to be known of a guest whose CPU seconds were used up by few instructions."""
    done = seen.instructions or 0
    if seen.end not in (End.BUDGET, End.NO_PROGRESS) or not 0 < done < seen.cpu_seconds * _SLOW:
        return ""
    rate = done / seen.cpu_seconds / 1e6
    return f"; {rate:.0f} million in a CPU second: a host that slow needs more (--budget-seconds)"
