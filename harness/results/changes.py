"""What is different between two runs of a matrix: verdicts, instruction counts, transcripts.

Counts and transcripts are compared only where that means something (bootproof.harness.results.key):
never across other surroundings; with an identical boot image every difference is non-determinism;
with another one only changes of the counts beyond a threshold are told. Pure.
"""

from __future__ import annotations

import enum
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.harness import exitcode, places
from bootproof.harness.judgement import ERROR
from bootproof.harness.results.key import Key
from bootproof.harness.results.results import CaseResult, Check, Reference, Results
from bootproof.harness.results.roles import Earlier, Role, role_between

THRESHOLD: Final = 0.005  # of the instruction count
_SHARE: Final = 0.1  # of the threshold: what a stage must add to the whole boot to be a regression
_SHOWN: Final = 160  # characters of a transcript line
_UNCOUNTED: Final = "the instructions of one of the runs are not known: they were not compared"
# What differs between any two kernels, boot images or runs, and says nothing: the nonce of a case
# follows from the kernel's digest, the proof and what checks the line of the command line from it.
_VOLATILE: Final = (
    (re.compile(r"bootproof\.nonce=[0-9a-f]+"), "bootproof.nonce=…"),
    (re.compile(r"^bootproof: (proof|\d+) [0-9a-f]+"), r"bootproof: \1 …"),
    (re.compile(r"^\[ *[0-9]+\.[0-9]+\]"), "[…]"),
)


class Kind(enum.Enum):
    """What became of a case, the worst first."""

    NONDETERMINISTIC = "not deterministic"
    REGRESSED = "regressed"
    NOT_COMPARED = "not compared"
    NEW = "new"
    CHANGED = "changed"
    IMPROVED = "improved"
    GONE = "gone"
    SAME = "same"

    @property
    def bad(self) -> bool:
        """Whether a run with such a case is worse than the one before."""
        return self in (Kind.NONDETERMINISTIC, Kind.REGRESSED)

    @property
    def unknown(self) -> bool:
        """Whether the run before says nothing of such a case."""
        return self in (Kind.NOT_COMPARED, Kind.NEW)

    @property
    def compared(self) -> bool:
        """Whether both runs have something to say of such a case."""
        return not self.unknown and self is not Kind.GONE


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one case, in sentences."""

    case: str
    kind: Kind
    sentences: tuple[str, ...] = ()
    # Where it was held against the case of another kernel.
    role: Role | None = None


@dataclass(frozen=True, slots=True)
class CountChange:
    """A count of guest instructions, before and now."""

    what: str
    before: int
    now: int

    @property
    def ratio(self) -> float:
        return (self.now - self.before) / self.before if self.before else float(self.now != 0)

    def __str__(self) -> str:
        return f"{self.what}: {self.before:,} -> {self.now:,} instructions ({self.ratio:+.2%})"


def exit_code(changes: Sequence[Change]) -> int:
    """What is worse fails; so does what was not compared, in its own way."""
    if any(change.kind.bad for change in changes):
        return exitcode.NOT_AS_EXPECTED
    unknown = any(change.kind.unknown for change in changes)
    any_compared = any(change.kind.compared for change in changes)
    return exitcode.NOT_COMPARED if unknown or not any_compared else exitcode.OK


def judged(results: Results, changes: Sequence[Change]) -> Results:
    """The run with what a comparison says of its cases: this is what every output shows.

    A case that became worse is not as expected any more, and says why; one that could not be
    compared is an error beside it.
    """
    if not changes:
        return results
    of_case = {change.case: change for change in changes}
    pairs = [with_change(case, of_case.get(case.case)) for case in results.cases]
    return replace(
        results,
        cases=tuple(case for case, _ in pairs),
        checks=(*results.checks, *(check for _, check in pairs if check)),
    )


def with_change(case: CaseResult, change: Change | None) -> tuple[CaseResult, Check | None]:
    """A case after its comparison, and the error that this ended in, if it did."""
    if change is None:
        return case, None
    told = "; ".join([*change.sentences, *([str(change.role)] if change.role else [])])
    if change.kind.bad and case.as_expected:
        problem = f"{change.kind.value} since the run before: {told}"
        return replace(case, problem=problem), None
    if change.kind.unknown and not case.bad:
        return case, Check(f"{case.case} beside the run before", ERROR, told, 0.0, ran=False)
    return case, None


def compare(before: Results, now: Results, threshold: float = THRESHOLD) -> list[Change]:
    """The change of every case of either run: the worst first, then by case."""
    earlier = Earlier(before.cases)
    changes = [compare_case(earlier, case, threshold) for case in now.cases]
    again = {old.case for case in now.cases if (old := earlier.of(case)) is not None}
    for case in before.cases:
        if case.case not in again:
            told = f"was {case.verdict}; it is not in this run"
            changes.append(Change(case.case, Kind.GONE, (told,)))
    order = list(Kind)
    return sorted(changes, key=lambda change: (order.index(change.kind), change.case))


def compare_case(earlier: Earlier, now: CaseResult, threshold: float) -> Change:
    """The change of one case since the earlier run, which may say nothing of it."""
    before = earlier.of(now)
    if before is None:
        told = f"{now.verdict}; the run before says nothing of it: {earlier.why_none(now)}"
        return Change(now.case, Kind.NEW, (told,))
    return replace(_compare_pair(before, now, threshold), role=role_between(before, now))


def _compare_pair(before: CaseResult, now: CaseResult, threshold: float) -> Change:
    if ERROR in (before.outcome, now.outcome):
        told = f"was {before.verdict}, is {now.verdict}: one of them says nothing of the guest"
        return Change(now.case, Kind.NOT_COMPARED, (told,))
    was, is_ = ((case.verdict, case.code, case.as_expected) for case in (before, now))
    if was != is_:
        return _other_verdict(before, now)
    if before.key is None or now.key is None:
        return Change(now.case, Kind.SAME)  # nothing ran: all there is has been compared
    surroundings = tuple(now.key.other_surroundings(before.key))
    if surroundings:
        told = f"the runs cannot be compared: {'; '.join(surroundings)}"
        return Change(now.case, Kind.NOT_COMPARED, (told,))
    why = _only_the_verdict(now.key, exact_end=before.exact_end and now.exact_end)
    if why is not None:
        return Change(now.case, Kind.SAME, (f"{why}: only the verdict was compared",))
    if now.key.same_boot_image(before.key):
        return _identical(before, now)
    return _other_image(before, now, threshold)


def _only_the_verdict(key: Key, *, exact_end: bool) -> str | None:
    """Why counts and transcripts of such runs are not compared; None when they are."""
    if key.icount_shift is None:
        return "in real time"
    if not exact_end:
        return "of a guest that did not end by itself"
    # When one CPU ends the machine, the others run on until QEMU has stopped them.
    return f"with {key.cpus} CPUs" if key.cpus > 1 else None


def _other_verdict(before: CaseResult, now: CaseResult) -> Change:
    was, is_ = (f"{case.verdict}{f' ({case.code})' if case.code else ''}" for case in (before, now))
    sentences = [f"was {was}, is {is_}: {now.reason}"]
    kind = Kind.CHANGED
    if before.as_expected and not now.as_expected:
        kind = Kind.REGRESSED
        sentences.append(f"not as expected: {now.problem}")
    elif now.as_expected and not before.as_expected:
        kind = Kind.IMPROVED
        sentences.append("now as expected")
    return Change(now.case, kind, (*sentences, *_first_difference(before, now)))


def _identical(before: CaseResult, now: CaseResult) -> Change:
    """The same boot image in the same surroundings: everything must be the same."""
    differences = list(_first_difference(before, now, exact=True))
    was, is_ = before.instructions, now.instructions
    if was is not None and is_ is not None and was != is_:
        differences.append(str(CountChange("whole boot", was, is_)))
    if not differences:
        return Change(now.case, Kind.SAME, _uncounted(before, now))
    told = "the boot image is the same, bit by bit, but not the run"
    return Change(now.case, Kind.NONDETERMINISTIC, (told, *differences))


def _other_image(before: CaseResult, now: CaseResult, threshold: float) -> Change:
    costs = [cost for cost in _costs(before, now) if abs(cost.ratio) > threshold]
    told = [*map(str, costs), *_missing_stages(before, now)]
    told += _first_difference(before, now)
    # A thousand instructions are a lot for a short stage and nothing for a boot.
    matters = threshold * _SHARE * (before.instructions or 0)
    if any(cost.ratio > threshold and cost.now - cost.before > matters for cost in costs):
        return Change(now.case, Kind.REGRESSED, (*told, *_where_it_grew(before, now)))
    if costs:
        better = all(cost.ratio < 0 for cost in costs)
        return Change(now.case, Kind.IMPROVED if better else Kind.CHANGED, tuple(told))
    kind = Kind.CHANGED if told else Kind.SAME
    return Change(now.case, kind, (*told, *_uncounted(before, now)))


def _uncounted(before: CaseResult, now: CaseResult) -> tuple[str, ...]:
    was, is_ = before.instructions, now.instructions
    return (_UNCOUNTED,) if was != is_ and None in (was, is_) else ()


def _where_it_grew(before: CaseResult, now: CaseResult) -> Iterator[str]:
    """The command that shows it, where the second run has not taken the place of the first."""
    if before.directory != now.directory:
        runs = " ".join(shlex.quote(case.directory) for case in (before, now))
        yield f"what grew: {places.COMMAND} profile {runs}"


def _costs(before: CaseResult, now: CaseResult) -> Iterator[CountChange]:
    """The whole boot, and each stage by itself: the instructions since the stage before."""
    if before.instructions is not None and now.instructions is not None:
        yield CountChange("whole boot", before.instructions, now.instructions)
    old, new = stage_costs(before), stage_costs(now)
    for name in old:
        if name in new:
            yield CountChange(f"stage {name}", old[name], new[name])


def stage_costs(case: CaseResult | Reference) -> Mapping[str, int]:
    """Guest instructions from the stage before to each stage, of those that are known."""
    costs, last = {}, 0
    for stage in case.stages:
        if stage.instructions is not None:
            costs[stage.name] = max(0, stage.instructions - last)
            last = max(last, stage.instructions)
    return costs


def _missing_stages(before: CaseResult, now: CaseResult) -> Iterator[str]:
    old, new = ([stage.name for stage in case.stages] for case in (before, now))
    for name in old:
        if name not in new:
            yield f"stage {name} was not reached any more"
    for name in new:
        if name not in old:
            yield f"stage {name} is new"


def _first_difference(before: CaseResult, now: CaseResult, *, exact: bool = False) -> Iterator[str]:
    """The first line that differs. Time stamps and nonces count only when `exact`."""
    if before.transcript is None or now.transcript is None:
        return
    if before.transcript.sha256 == now.transcript.sha256:
        return
    lines = zip_longest(before.transcript.lines, now.transcript.lines)
    for number, (old, new) in enumerate(lines, 1):
        if (old != new) if exact else (_stable(old) != _stable(new)):
            yield f"console line {number} was {_quoted(old)}"
            yield f"console line {number} is  {_quoted(new)}"
            return
    if exact:
        yield "the transcripts differ only in bytes that are not kept"


def _stable(line: str | None) -> str | None:
    if line is None:
        return None
    for pattern, text in _VOLATILE:
        line = pattern.sub(text, line)
    return line


def _quoted(line: str | None) -> str:
    if line is None:
        return "not there"
    return f"'{line}'" if len(line) <= _SHOWN else f"'{line[:_SHOWN]}…'"
