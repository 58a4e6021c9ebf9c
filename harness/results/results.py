"""results.json, version 2: everything about a matrix run that anybody wants to know afterwards.

Self-sufficient: transcripts, keys and memory layouts are in it, so that any file can be compared
with any other, shown as a page or merged, without the run directories. Owns the file and its
reading, which trusts nothing (docs/results.schema.json is made from the same types). Knows neither
pytest nor QEMU.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.harness import exitcode, judgement, typedjson
from bootproof.harness.errors import UserError
from bootproof.harness.guest.stages import Stage
from bootproof.harness.guest.tap import GuestTest
from bootproof.harness.host.files import (
    Ours,
    make_directory,
    read_given,
    refuse_foreign,
    write_whole,
)
from bootproof.harness.judgement import BAD, ERROR, FAILED, SKIPPED
from bootproof.harness.results.key import Key
from bootproof.harness.text import duration, printable
from bootproof.harness.typedjson import about
from bootproof.harness.verdict import Verdict
from bootproof.loader import strictjson
from bootproof.loader.address import counted

RESULTS: Final = "results.json"
FORMAT: Final = "bootproof results"
OURS: Final = re.compile(rb'\A\{\s*"\$schema": "urn:bootproof:results:|"bootproof": "[0-9]').search
VERSION: Final = 2
SCHEMA_ID: Final = "urn:bootproof:results:2"
MOST_SHARDS: Final = 9999
STARTED: Final = "%Y-%m-%dT%H:%M:%SZ"
_FILE_LIMIT: Final = 512 << 20
_BETWEEN_VALUES: Final = (b",", b"[", b"{")
_MOST_VALUES: Final = 10_000_000  # commas in transcripts, which count too, are few
_CASES: Final = "cases"
_TOTALS: Final = "totals"
_TRANSCRIPT_LIMIT: Final = 1 << 20  # characters kept of one; half from each end
_TAIL: Final = 10
_VERDICTS: Final = tuple(verdict.value for verdict in Verdict)
_PASSED: Final = frozenset(verdict.value for verdict in Verdict if verdict.passed)


@dataclass(frozen=True, slots=True)
class Kernel:
    """The kernel of a case."""

    name: str = about("as it was given, that of the catalogue, or else that of the file")
    sha256: str | None = about("of the file; null when it was not read")
    release: str | None = about("what the running kernel calls itself; null when it never said")
    role: str | None = about(
        "of one with the name of its file: that without the version; null: the name lasts",
        default=None,
    )


@dataclass(frozen=True, slots=True)
class Expected:
    """How the case had to end."""

    verdict: str = about("a verdict of docs/verdicts.md")
    why: str = about("why that is what must happen; may be empty")


@dataclass(frozen=True, slots=True)
class Reference:
    """A case started by QEMU's own -kernel, firmware and all."""

    instructions: int | None = about("guest instructions executed; null when not known")
    stages: tuple[Stage, ...] = about("in the order in which they were reached")


@dataclass(frozen=True, slots=True)
class Area:
    """A named piece of guest-physical RAM."""

    name: str
    address: int
    size: int = about("in bytes")


@dataclass(frozen=True, slots=True)
class Memory:
    """Guest-physical RAM at the kernel's first instruction."""

    banks: tuple[Area, ...] = about("RAM")
    regions: tuple[Area, ...] = about(
        "what lies in it; `kernel` is all that it uses early, `kernel file` what was read from disk"
    )


@dataclass(frozen=True, slots=True)
class Register:
    """A register at the kernel's first instruction."""

    name: str
    expected: str = about("as the boot image says")
    actual: str | None = about("as the CPU had it; null when the entry was not looked at")
    agrees: bool = about("whether both mean the same: a busy TSS, for one, is as good as its own")


@dataclass(frozen=True, slots=True)
class Transcript:
    """What the guest printed, fit for any terminal: control characters are written as \\x1b."""

    text: str = about("lines; of a very long transcript the middle is left out", lines=True)
    size: int = about("bytes that the guest printed")
    sha256: str = about("of those bytes")

    @property
    def lines(self) -> list[str]:
        return self.text.split("\n") if self.text else []

    @property
    def tail(self) -> list[str]:
        """The last lines that hold anything but blanks."""
        return [line for line in self.lines[-4 * _TAIL :] if line.strip()][-_TAIL:]


@dataclass(frozen=True, slots=True)
class Complaint:
    """Something that the kernel complained of, whatever the verdict is."""

    kind: str = about(
        "panic, oops, lockup, stall, hung-task, bug, warning, initramfs, init or out-of-memory"
    )
    text: str = about("the kernel's own line, and the function that it was in, if it says so")
    count: int = about("how often it came, numbers in it aside")
    after_proof: bool = about("whether it came after the guest's proof")

    def __str__(self) -> str:
        times = f" ({self.count} times)" if self.count > 1 else ""
        return f"{self.text}{times}{', after the proof' if self.after_proof else ''}"


@dataclass(frozen=True, slots=True)
class CaseResult:
    """How one case ended, and all that it rests on."""

    case: str = about("the case's id")
    arch: str = about("architecture")
    kernel: Kernel = about("the kernel that was booted")
    claim: str = about("the id without architecture and kernel")
    expected: Expected = about("how it had to end")
    verdict: str = about("how it ended")
    reason: str = about("one sentence")
    code: str | None = about("the loader's error code, when it refused")
    problem: str | None = about("what is not as expected; null when all is")
    unsafe: bool = about("started although the loader would have refused")
    protocol: str | None = about("how the kernel was entered; null when it was not")
    entry: int | None = about("guest address of the first instruction")
    seconds: float = about("wall time on the host")
    harness_seconds: float = about("the part of it in which QEMU did not run")
    cpu_seconds: float | None = about("CPU time of QEMU")
    instructions: int | None = about("guest instructions executed; null when not known")
    stages: tuple[Stage, ...] = about("in the order in which they were reached")
    key: Key | None = about("what another run must have in common to be compared; null: no run")
    evidence: Mapping[str, tuple[str, ...]] = about("what the guest's init said, by key")
    proof: str | None = about("the digest over nonce and evidence that init printed")
    findings: tuple[str, ...] = about("remarks of the entry probe and of the protocol's rules")
    registers: tuple[Register, ...] = about("at the kernel's first instruction")
    memory: Memory | None = about("at the kernel's first instruction; null when nothing was loaded")
    transcript: Transcript | None = about("the console; null when nothing was started")
    log: Transcript | None = about("the log buffer in guest RAM; null when it was not looked at")
    cmdline: str | None = about("the kernel command line")
    reproduce: str = about("the command that runs this case again")
    directory: str = about("the run directory")
    exact_end: bool = about(
        "whether the guest ended by itself: else where its count and transcript stop says nothing",
        default=True,
    )
    complaints: tuple[Complaint, ...] = about(
        "of the kernel, in the order in which they first came", default=()
    )
    tests: tuple[GuestTest, ...] = about("that ran in the guest, in order", default=())

    @property
    def name(self) -> str:
        return self.case

    @property
    def as_expected(self) -> bool:
        return self.problem is None

    @property
    def outcome(self) -> str:
        """As of a `Check`: an error where the verdict says nothing of the guest."""
        return judgement.came_to(self.verdict, self.problem)

    @property
    def bad(self) -> bool:
        return self.outcome in BAD

    @property
    def summary(self) -> str:
        """The case in one line."""
        return self.problem or self.verdict

    @property
    def passed(self) -> bool:
        """Whether the guest did all that was asked of it."""
        return self.verdict in _PASSED

    @property
    def complaints_of_boot(self) -> tuple[Complaint, ...]:
        """The complaints of a kernel that booted all the same; those of another are its verdict."""
        return self.complaints if self.passed else ()

    @property
    def failed_tests(self) -> tuple[GuestTest, ...]:
        return tuple(test for test in self.tests if test.failed)

    @property
    def tail(self) -> list[str]:
        """The last console lines, printable."""
        return self.transcript.tail if self.transcript else []


@dataclass(frozen=True, slots=True)
class Check:
    """A test of the matrix that is not one boot, or a case that came to no result."""

    name: str
    outcome: str = about("passed, failed, error or skipped")
    text: str = about("what went wrong, or why it was skipped", lines=True)
    seconds: float = about("wall time on the host")
    ran: bool = about("false for what is missing: a shard, something to compare with", default=True)
    of_case: bool = about("true for a case that came to no result", default=False)

    @property
    def bad(self) -> bool:
        return self.outcome in BAD

    @property
    def summary(self) -> str:
        """The first line of its text."""
        return next(iter(self.text.splitlines()), self.outcome)


@dataclass(frozen=True, slots=True)
class Totals:
    """How much there is of a run, and what all boots of it cost together."""

    cases: int = about("how many there are: another number is refused, some were cut out")
    checks: int = about("how many there are, in the same way")
    seconds: float = about("wall time of the boots on the host, as if one after the other")
    cpu_seconds: float = about("CPU time of QEMU")
    instructions: int = about("guest instructions executed, of the boots that count them")

    @property
    def words(self) -> str:
        """The cost in a few words, the same in every output."""
        spent = duration(self.cpu_seconds)
        return f"QEMU: {spent} of CPU time, {self.instructions / 1e9:,.1f} G instructions"


@dataclass(frozen=True, slots=True)
class Part:
    """Which shard of a run."""

    number: int = about("from 1")
    of: int = about("how many there are")

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


@dataclass(frozen=True, slots=True)
class Run:
    """Which run this is, and what was to be run."""

    id: str = about("made for this run alone; of merged shards, that of the first")
    shared_id: str | None = about("what --run-id says: all shards of one run have it")
    selection: str = about("the command and what selects the cases, before sharding")
    selected: str = about("SHA-256 over the ids of all that is selected, before sharding")
    planned: int = about("how many cases and other tests were to be run here")
    shard: Part | None = about("null: all that is selected")


@dataclass(frozen=True, slots=True)
class Results:
    """A whole matrix run."""

    format: str = about(f"always {FORMAT!r}")
    version: int = about(f"of this format: {VERSION}")
    bootproof: str = about("version of the program that wrote it")
    started: str = about("when, in UTC: 2026-01-31T23:59:59Z")
    seconds: float = about("wall time on the host")
    complete: bool = about("false until all that was planned has been run")
    cases: Sequence[CaseResult] = about("by id; merged shards one after the other")
    checks: tuple[Check, ...] = about("what else was tested, and what came to no result")
    references: Mapping[str, Reference] = about(
        "reference boots by the case that they are beside", default_factory=dict
    )
    run: Run | None = about("null in a file of an older bootproof", default=None)

    @property
    def unexpected(self) -> list[CaseResult]:
        return [case for case in self.cases if case.bad]

    @property
    def bad_checks(self) -> list[Check]:
        return [check for check in self.checks if check.bad]

    @property
    def wrong(self) -> list[CaseResult | Check]:
        """All that is not as expected."""
        return [*self.unexpected, *self.bad_checks]

    @property
    def totals(self) -> Totals:
        return Totals(
            cases=len(self.cases),
            checks=len(self.checks),
            seconds=round(sum(case.seconds for case in self.cases), 3),
            cpu_seconds=round(sum(case.cpu_seconds or 0.0 for case in self.cases), 3),
            instructions=sum(case.instructions or 0 for case in self.cases),
        )

    @property
    def success(self) -> bool:
        """Whether all was run that was to be run, and nothing is wrong with it."""
        return self.exit_code == exitcode.OK

    @property
    def exit_code(self) -> int:
        """What a command that ran or read this ends with."""
        codes = [exitcode.of_outcome(case.outcome) for case in self.cases]
        for check in self.checks:  # which comes to no result where something is missing
            error = check.outcome == ERROR
            codes.append(exitcode.USAGE if error else exitcode.of_outcome(check.outcome))
        return exitcode.worst([*codes, *(exitcode.CANNOT_TELL for _ in self.lacks)])

    @property
    def lacks(self) -> list[str]:
        """What keeps a run in which nothing is wrong from being a success."""
        return [
            *([] if self.complete else ["not complete"]),
            *([] if any(self.ran) else ["nothing was run"]),
        ]

    @property
    def ran(self) -> tuple[int, int]:
        """How many cases and how many other tests were run."""
        ran = [check for check in self.checks if check.ran and check.outcome != SKIPPED]
        of_case = sum(check.of_case for check in ran)
        return len(self.cases) + of_case, len(ran) - of_case

    @property
    def as_expected(self) -> tuple[int, int]:
        """How many of these ended as they had to."""
        bad = [check for check in self.bad_checks if check.ran]
        of_case = sum(check.of_case for check in bad)
        cases, others = self.ran
        return cases - len(self.unexpected) - of_case, others - (len(bad) - of_case)

    @property
    def headline(self) -> str:
        """The whole run in a few words, the same in every output."""
        told = [*_wrong_words(self.wrong), *self.lacks]
        told = told or [f"{self._all} as expected"]
        shard = self.run and self.run.shard
        told += [f"shard {shard}"] if shard else []
        text = ", ".join(told)
        return text[0].upper() + text[1:]

    @property
    def _all(self) -> str:
        cases, others = self.ran
        parts = [counted(cases, "case")] if cases else []
        parts += [counted(others, f"{self._other}test")] if others else []
        whole = " and ".join(parts)
        return whole if whole.startswith("1 ") else f"All {whole}"

    @property
    def counts(self) -> str:
        """How much of the run is as expected: `5 of 5 cases and 2 of 2 other tests`."""
        (cases, others), good = self.ran, self.as_expected
        parts = [f"{good[0]} of {cases} cases"] if cases else []
        parts += [f"{good[1]} of {others} {self._other}tests"] if others else []
        return " and ".join(parts) or "nothing"

    @property
    def _other(self) -> str:
        return "other " if self.ran[0] else ""

    @property
    def checks_in_words(self) -> str:
        """How many checks there are that are no case, and what is wrong with them."""
        checks = [check for check in self.checks if not check.of_case]
        return ", ".join([str(len(checks)), *_wrong_words([item for item in checks if item.bad])])


def _wrong_words(wrong: Sequence[CaseResult | Check]) -> list[str]:
    """`2 not as expected`, `1 cannot be told`; nothing of what there is none of."""
    failed = sum(item.outcome == FAILED for item in wrong)
    counts = {"not as expected": failed, "cannot be told": len(wrong) - failed}
    return [f"{count} {words}" for words, count in counts.items() if count]


def transcript(raw: bytes) -> Transcript:
    """Guest output as it is kept."""
    half = _TRANSCRIPT_LIMIT // 2
    whole = len(raw) <= _TRANSCRIPT_LIMIT
    text = _as_text(raw) if whole else ""
    if not whole or len(text) > _TRANSCRIPT_LIMIT:
        told = f"[… left out of {len(raw)} bytes: all but the beginning and the end …]"
        text = f"{_as_text(raw[:half])[:half]}\n{told}\n{_as_text(raw[-half:])[-half:]}"
    return Transcript(text, len(raw), hashlib.sha256(raw).hexdigest())


def _as_text(raw: bytes) -> str:
    lines = [printable(line.removesuffix(b"\r")) for line in raw.split(b"\n")]
    return "\n".join(lines).removesuffix("\n")


def write(results: Results, path: Path) -> None:
    """Writes all of the file or nothing. Raises UserError, also where another program's file is."""
    write_text(path, _parts(results), OURS)


def _parts(results: Results) -> Iterator[str]:
    """The text of the file, a case at a time: of thousands it is not in memory at once."""
    root = {"$schema": SCHEMA_ID} | typedjson.to_json(replace(results, cases=()))
    before = "{"
    for key, value in (root | {_TOTALS: typedjson.to_json(results.totals)}).items():
        yield f"{before}\n {json.dumps(key)}: "
        before = ","
        if key == _CASES and results.cases:
            for number, case in enumerate(results.cases):
                yield "[\n  " if number == 0 else ",\n  "
                yield _json(typedjson.to_json(case), "  ")
            yield "\n ]"
        else:
            yield _json(value, " ")
    yield "\n}\n"


def _json(value: object, indent: str) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False).replace("\n", f"\n{indent}")


def write_text(path: Path, text: str | Iterable[str], ours: Ours) -> None:
    """Writes all of a file or nothing, with the directories above it; it may come in parts.

    Raises UserError, also where a file is that is not `ours`.
    """
    refuse_foreign(path, ours)
    make_directory(path.parent)
    write_whole(path, (part.encode() for part in ([text] if isinstance(text, str) else text)))


class NoResults(UserError):
    """A whole JSON file of another program. A reader of many files may leave it out."""


class _Foreign(ValueError):
    pass


def read(path: Path) -> Results:
    """The results in a file, or in the results.json of a directory. Raises UserError, NoResults."""
    path = path / RESULTS if path.is_dir() else path
    raw = read_given(path, _FILE_LIMIT)
    try:
        return _parse(raw)
    except ValueError as error:
        kind = NoResults if isinstance(error, _Foreign) else UserError
        raise kind(f"{path}: no results that can be read: {error}") from error


def _parse(raw: bytes) -> Results:
    values = sum(map(raw.count, _BETWEEN_VALUES))
    if values > _MOST_VALUES:  # each takes much more memory than it has characters
        raise ValueError(f"it holds {values} values, and more than {_MOST_VALUES} are not read")
    root = strictjson.mapping(strictjson.parse(raw), "$")
    version = root.get("version")
    if version == 1 and "format" not in root:
        raise ValueError("$.version: 1 is of an older bootproof; run the matrix again")
    if root.get("format") != FORMAT:
        raise _Foreign(f"$.format: is not {FORMAT!r}: another program's file")
    if version != VERSION:
        raise ValueError(
            f"$.version: {strictjson.shown(version)} is of another bootproof; this one reads"
            f" {VERSION}: use the one that wrote it"
        )
    root.pop("$schema", None)
    totals = root.pop(_TOTALS, {})  # follows from the cases, of which none may be lost
    results = typedjson.from_json(Results, root)
    _check_counts(results, totals)
    seen: set[str] = set()
    for number, case in enumerate(results.cases):
        path = f"$.cases[{number}]"
        if case.case in seen:
            raise ValueError(f"{path}.case: {strictjson.shown(case.case)} occurs twice")
        seen.add(case.case)
        _check_end(case, path)
    try:
        datetime.strptime(results.started, STARTED)
    except ValueError:
        said = strictjson.shown(results.started)
        raise ValueError(f"$.started: {said} is no time such as 2026-01-31T23:59:59Z") from None
    shard = results.run and results.run.shard
    if shard and not 1 <= shard.number <= shard.of <= MOST_SHARDS:
        raise ValueError(f"$.run.shard: {shard} is none of 1 to {MOST_SHARDS} shards")
    for number, check in enumerate(results.checks):
        strictjson.one_of(check.outcome, f"$.checks[{number}].outcome", judgement.OUTCOMES)
    return results


def _check_counts(results: Results, totals: object) -> None:
    """Raises ValueError when cases or checks are lost, or that cannot be told: what is left would
    be shown as all.
    """
    said = strictjson.mapping(totals, f"$.{_TOTALS}")
    for name, there in (("cases", results.cases), ("checks", results.checks)):
        if name not in said:
            raise ValueError(
                f"$.{_TOTALS}.{name}: missing, so nobody can tell whether all {name} are here: an"
                " older bootproof wrote the file, or it was changed by hand; run the matrix again"
            )
        written = strictjson.number(said[name], f"$.{_TOTALS}.{name}")
        if written != len(there):
            raise ValueError(
                f"$.{name}: {len(there)} of them, but {written} were written"
                f" ($.{_TOTALS}.{name}); a file that was changed by hand says nothing"
            )


def _check_end(case: CaseResult, path: str) -> None:
    """Raises ValueError for a case that cannot have ended so: it would be shown as what it says."""
    strictjson.one_of(case.verdict, f"{path}.verdict", _VERDICTS)
    strictjson.one_of(case.expected.verdict, f"{path}.expected.verdict", _VERDICTS)
    if case.problem is None and case.verdict != case.expected.verdict:
        raise ValueError(
            f"{path}.problem: null, but the case is {case.verdict} instead of"
            f" {case.expected.verdict}; a file that was changed by hand says nothing"
        )
