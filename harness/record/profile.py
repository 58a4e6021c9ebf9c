"""Where a recorded boot's instructions went: by stage, initcall, function and those that called it.

Owns names for samples, and what is summed. The sums are the run's exact number of instructions;
one function's share is as exact as its samples are many. Between initcalls the counts are exact:
they are read out of the record's log, not sampled.
"""

from __future__ import annotations

import bisect
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

from bootproof.dataclass import dataclass
from bootproof.harness.errors import UserError
from bootproof.harness.guest import kernellog
from bootproof.harness.inputs import images, symbols
from bootproof.harness.inputs.symbols import Symbols
from bootproof.harness.observation import End, Observation
from bootproof.harness.record import playback, recording, replaylog, sampling
from bootproof.harness.record.playback import Recorded
from bootproof.harness.record.sampling import Sample
from bootproof.kernels.errors import BadSource, FetchError
from bootproof.loader.errors import LoaderError
from bootproof.printable import one_line

_GIVE_IT: Final = "; name it (--symbols FILE)"
_KERNEL_HALF: Final = 1 << 63
_BEFORE, _USER, _NAMELESS = "[before the kernel]", "[user space]", "[kernel, no name]"
_INITCALL: Final = re.compile(
    rb"(?:^|" + kernellog.STAMP + rb")"
    rb"(?:calling  (\w+)\+0x[^\r\n]*|initcall (\w+)\+0x\S+(?: \[\w+\])? returned [^\r\n]*)",
    re.MULTILINE,
)
AFTER: Final = "after the last stage"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Part:
    """Instructions that were spent in one place: outermost first, what called what."""

    stack: tuple[str, ...]
    instructions: int


@dataclass(frozen=True, slots=True)
class Profile:
    """One boot. The instructions of its parts are, in all, those of the run."""

    # As the user knows it.
    name: str
    instructions: int
    parts: tuple[Part, ...]
    # How many samples there are.
    samples: int
    # Whether the callers of functions are known.
    has_stacks: bool
    # Exact, of each stage in order: what was executed until it was reached, and after the last.
    stages: tuple[tuple[str, int], ...]
    # Exact, of each initcall that the console tells of (initcall_debug), the largest first.
    initcalls: tuple[tuple[str, int], ...] = ()
    # Why there are no names; None where there are.
    remark: str | None = None

    @property
    def functions(self) -> dict[str, int]:
        """Instructions of each function itself, the largest first."""
        sums = _summed((part.stack[-1], part.instructions) for part in self.parts)
        return dict(sorted(sums.items(), key=lambda item: (-item[1], item[0])))


def profile(
    directory: Path,
    count: int,
    name: str,
    given: Symbols | None = None,
    binary: str | None = None,
) -> Profile:
    """The profile of a recorded run, from `count` samples; the user knows it by `name`.

    `given` are the kernel's names, where the run's own kernel has not.

    Raises UserError and LoaderError.
    """
    recorded = playback.open_recorded(directory, binary)
    known, remark = _names(recorded, given)
    samples = sampling.take(recorded, count)
    calls = [*_initcalls(recorded)]
    named = _Named(known, samples)
    stages = _stages(recorded)
    whole = _summed((_stack(s, named, stages, calls), s.weight) for s in samples)
    return Profile(
        name=name,
        instructions=recorded.instructions,
        parts=tuple(Part(stack, count) for stack, count in whole.items()),
        samples=len(samples),
        has_stacks=recorded.machine.arch.dump.frames is not None,
        stages=_extents(stages, recorded.instructions),
        initcalls=_costs(calls),
        remark=remark,
    )


def _summed(counts: Iterable[tuple[_T, int]]) -> dict[_T, int]:
    sums: Counter[_T] = Counter()
    for what, count in counts:
        sums[what] += count
    return dict(sums)


# --- names ---------------------------------------------------------------------------------------


def names_in(vmlinux: Path) -> Symbols:
    """The names in a file that the user gives. Raises UserError."""
    try:
        found = symbols.read(vmlinux)
    except LoaderError as error:
        raise UserError(f"{error} (--symbols)") from error
    if found is None:
        raise UserError(f"{vmlinux}: is no uncompressed kernel with symbols (--symbols)")
    return found


def _names(recorded: Recorded, given: Symbols | None) -> tuple[Symbols | None, str | None]:
    """The names of a run's kernel, or why there are none."""
    if given is not None:
        return given, None
    of = recorded.image.provenance
    name = of.get("kernel", "")
    try:
        file = images.kernel_file(name)
        if file.sha256 != of.get("kernel_sha256"):
            return None, f"{file.name} is not the kernel that was booted{_GIVE_IT}"
        found = images.symbols_of(images.running(file, of.get("format", "file")))
    except BadSource:  # the file of a path is there where the run was started, if at all
        told = f"'{one_line(name)}' is not found from here" if name else "is not named in boot.json"
        return None, f"the run's kernel {told}{_GIVE_IT}"
    except (UserError, FetchError, LoaderError, OSError) as error:
        return None, str(error)
    return found, None if found else "the kernel has no symbol table, and no kallsyms"


class _Named:
    """Functions of guest-virtual addresses, once it is known where the kernel runs."""

    def __init__(self, known: Symbols | None, samples: Sequence[Sample]) -> None:
        self._symbols = known
        self._places = {
            (s.pc, s.before, s.at): known.place(s.pc, s.before, s.at) if known else None
            for s in samples
        }
        # A kernel moves once at most, before it runs in its own half of the address space.
        slides = Counter(
            key[0] - place
            for key, place in self._places.items()
            if place is not None and key[0] >= _KERNEL_HALF
        )
        self._slide = slides.most_common(1)[0][0] if slides else None
        named = (s.start for s in samples if s.pc >= _KERNEL_HALF or self.function(s))
        self._kernel_since = min(named, default=None)

    def function(self, sample: Sample) -> str | None:
        """The function that a sample is in."""
        place = self._places[sample.pc, sample.before, sample.at]
        if place is not None and self._symbols is not None:
            return self._symbols.function(place)
        return self.caller(sample.pc) if sample.pc >= _KERNEL_HALF else None

    def caller(self, address: int) -> str | None:
        """The function of an address in the kernel's half."""
        if self._symbols is None or self._slide is None:
            return None
        return self._symbols.function(address - self._slide)

    def frames(self, sample: Sample) -> tuple[str, ...]:
        """The functions of a sample, outermost first; a word for what has no name."""
        own = self.function(sample)
        if own is None and sample.pc < _KERNEL_HALF:
            before = self._kernel_since is None or sample.start < self._kernel_since
            return (_BEFORE if before else _USER,)
        # An address to return to is behind the call, and may be that of another function.
        callers = [self.caller(address - 1) or _NAMELESS for address in sample.callers]
        return (*reversed(callers), own or _NAMELESS)


# --- stages and initcalls ------------------------------------------------------------------------


def _stages(recorded: Recorded) -> list[tuple[int, str]]:
    """Where each stage ends, in instructions, and its name; those with no extent are left out."""
    seen = Observation(recorded.transcript, End.GUEST_RESET, instructions=recorded.instructions)
    ends = [(0, "")]
    log = recording.read_log(recorded.log, seen.transcript)
    for stage in recording.stages(seen, log):
        if stage.instructions is not None and stage.instructions > ends[-1][0]:
            ends.append((stage.instructions, f"to {stage.name}"))
    return ends[1:]


def _extents(ends: Sequence[tuple[int, str]], whole: int) -> tuple[tuple[str, int], ...]:
    starts = [0, *(end for end, _ in ends)]
    every = zip(starts, [*ends, (whole, AFTER)], strict=True)
    return tuple((name, end - start) for start, (end, name) in every)


@dataclass(frozen=True, slots=True)
class _Call:
    name: str
    start: int
    end: int


def _initcalls(recorded: Recorded) -> Iterator[_Call]:
    """What the console tells of initcalls, in exact instructions; they do not nest."""
    said = [*_INITCALL.finditer(recorded.transcript)]
    if not said:
        return
    counts = replaylog.read(recorded.log, [match.start() for match in said]).at
    begun: tuple[str, int] | None = None
    for match, count in zip(said, counts, strict=True):
        if match[1] is not None:
            begun = (match[1].decode(), count)
        elif begun is not None and match[2].decode() == begun[0]:
            yield _Call(*begun, count)
            begun = None


def _costs(calls: Sequence[_Call]) -> tuple[tuple[str, int], ...]:
    sums = _summed((call.name, call.end - call.start) for call in calls)
    sorted_ = sorted(sums.items(), key=lambda item: (-item[1], item[0]))
    return tuple((name, count) for name, count in sorted_ if count)


def _stack(
    sample: Sample, named: _Named, stages: Sequence[tuple[int, str]], calls: Sequence[_Call]
) -> tuple[str, ...]:
    middle = sample.start + sample.weight // 2
    at = bisect.bisect_right(stages, middle, key=lambda stage: stage[0])
    stage = stages[at][1] if at < len(stages) else AFTER
    index = bisect.bisect_right(calls, middle, key=lambda call: call.start) - 1
    inside = index >= 0 and middle < calls[index].end
    initcall = (f"initcall {calls[index].name}",) if inside else ()
    return (stage, *initcall, *named.frames(sample))


# --- two of them ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Growth:
    """What became of one place between two boots, in instructions."""

    what: str
    before: int
    now: int

    @property
    def change(self) -> int:
        return self.now - self.before


def growth(before: dict[str, int], now: dict[str, int]) -> list[Growth]:
    """Every place of either boot: what grew most first, what shrank most last."""
    every = (Growth(what, before.get(what, 0), now.get(what, 0)) for what in {**before, **now})
    return sorted(every, key=lambda item: (-item.change, item.what))
