"""TAP and KTAP, as test programs print them: nested, cut short, in the kernel's log. Pure.

One reader for TAP 12 to 14, KTAP, what KUnit prints and what kselftest's runner does, which nests
by `# ` instead of blanks. A plan that is not met, `Bail out!`, and a group whose own result never
came are failures: a test that did not end did not pass.

Sources: Documentation/dev-tools/ktap.rst of the kernel; testanything.org, versions 13 and 14;
tools/testing/selftests/kselftest/runner.sh, lib/kunit/test.c. `tap.py`, the one living parser on
PyPI, reads neither nested results nor KTAP.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import field, replace
from enum import StrEnum
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.harness.typedjson import about

_PREFIX: Final = re.compile(r"(?: |# )*")
_SUBTEST: Final = re.compile(r"((?: |# )*)# Subtest:[ \t]*(.*)")
_VERSION: Final = re.compile(r"K?TAP version \d+\s*")
_PLAN: Final = re.compile(r"1\.\.(\d{1,100})\s*(?:#\s*(.*))?")
_RESULT: Final = re.compile(r"(not )?ok\b(?:[ \t]+(\d{1,9}))?(?:[ \t]+-)?(?:[ \t]+(.*))?")
_DIRECTIVE: Final = re.compile(r"(?:^|\s)#\s*([A-Za-z]+)\b[:,]?\s*(.*)$")
_BAIL_OUT: Final = re.compile(r"Bail out!\s*(.*)", re.IGNORECASE)
_DEEPEST: Final = 16
_LONGEST: Final = 300  # characters of a name or a reason
_REMEMBERED: Final = 3  # lines in front of a failure that may tell why
SEPARATOR: Final = " / "


class Status(StrEnum):
    """How a test ended. The values stand in JSON files."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    EXPECTED_FAILURE = "expected-failure"


@dataclass(frozen=True, slots=True)
class GuestTest:
    """A test that ran in the guest, whatever printed its result."""

    name: str = about("with the names of the groups that it is in before it: suite / test")
    status: Status = about("passed, failed, skipped or expected-failure")
    why: str = about("of a failure what was said of it, of a test that was skipped why", default="")

    @property
    def failed(self) -> bool:
        return self.status is Status.FAILED

    def __str__(self) -> str:
        return f"{self.name}: {self.why}" if self.why else self.name


def begins(text: str, *, sure: bool) -> bool:
    """Whether these lines hold results. `sure` says that they are of tests, which need not name the
    version then.
    """
    patterns = (_VERSION, _PLAN, _RESULT) if sure else (_VERSION,)
    return any(p.fullmatch(_body(line)[1]) for line in text.split("\n") for p in patterns)


def read(text: str, *, cut: bool = False) -> list[GuestTest]:
    """Every test of the lines, in order: of a group its members, and itself where it failed.

    `cut` says that lines are missing at the end: then what did not come has not failed.
    """
    reader = _Reader(cut=cut)
    for line in text.split("\n"):
        reader.line(line.rstrip("\r"))
    return reader.end()


@dataclass(slots=True)
class _Group:
    """Tests of one depth, while they come in."""

    # Characters in front of its lines.
    width: int
    name: str = ""
    plan: int | None = None
    # How many results it has of its own; those and what was in them.
    results: int = 0
    # Those of the results that have a number.
    numbers: list[int] = field(default_factory=list)
    tests: list[GuestTest] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def problem(self) -> str | None:
        """Why it cannot be complete."""
        if self.plan is None:
            return None if self.results else "no test was run"
        if self.plan != self.results:
            return f"{self.results} of {self.plan} tests were run"
        return _miscounted(self.numbers) if len(self.numbers) == self.results else None


class _Reader:
    def __init__(self, *, cut: bool) -> None:
        self._cut = cut
        self._open: list[_Group] = []
        self._all: list[GuestTest] = []

    def line(self, line: str) -> None:
        width, body = _body(line)
        subtest = _SUBTEST.fullmatch(line)
        if subtest:
            self._begin(len(subtest[1]), planned=False)
            self._open[-1].name = _short(subtest[2])
        elif _VERSION.fullmatch(body):
            self._begin(width)
        elif plan := _PLAN.fullmatch(body):
            self._planned(width, int(plan[1]), plan[2] or "")
        elif result := _RESULT.fullmatch(body):
            self._result(width, result)
        elif said := _BAIL_OUT.fullmatch(body):
            self._bail_out(said[1])
        elif self._open and body:
            self._open[-1].notes = [*self._open[-1].notes, body][-_REMEMBERED:]

    def end(self) -> list[GuestTest]:
        while self._open:
            group = self._open.pop()
            if self._cut:
                tests = self._open[-1].tests if self._open else self._all
                tests += _named(group.tests, group.name)
            else:
                self._close(group)
        return self._all

    def _group(self, width: int) -> _Group:
        """The group of this depth: one that is under way, or a new one inside of the others."""
        while self._open and self._open[-1].width > width:
            self._close(self._open.pop())
        if not self._open or (self._open[-1].width < width and len(self._open) < _DEEPEST):
            self._open.append(_Group(width))
        return self._open[-1]

    def _begin(self, width: int, *, planned: bool = True) -> None:
        """A new group: one of the same depth that is under way is over; with `planned` also one
        that has but a plan.
        """
        group = self._group(width)
        if group.results or (planned and group.plan is not None):
            self._close(self._open.pop())
            self._group(width)

    def _planned(self, width: int, count: int, remark: str) -> None:
        group = self._group(width)
        if group.plan is not None:
            self._begin(width)
            group = self._open[-1]
        group.plan = count
        if count == 0 and not group.results:
            group.tests.append(GuestTest("", Status.SKIPPED, _short(_reason(remark))))

    def _result(self, width: int, found: re.Match[str]) -> None:
        inner: list[_Group] = []
        while self._open and self._open[-1].width > width:
            inner.append(self._open.pop())
        for group, outer in itertools.pairwise(inner):  # whose own result never came
            outer.tests += _of_group(group, _UNENDED)
        group = self._group(width)
        group.results += 1
        group.numbers += [int(found[2])] if found[2] else []
        notes, group.notes = group.notes, []
        test = _test(found, group.results, inner[-1].name if inner else "", notes)
        if not inner:
            group.tests.append(test)
            return
        group.tests += _of_group(inner[-1], test)

    def _bail_out(self, why: str) -> None:
        """Nothing after it counts as a test that was meant to be run."""
        outermost = self._open[0] if self._open else _Group(0)
        reason = f"bailed out: {_short(why)}" if why else "bailed out"
        while self._open:
            group = self._open.pop()
            group.plan, group.results = None, max(group.results, 1)
            self._close(group)
        self._all.append(GuestTest(outermost.name, Status.FAILED, reason))

    def _close(self, group: _Group) -> None:
        """A group that ends without a result of its own: right for the outermost only."""
        if self._open:
            self._open[-1].tests += _of_group(group, _UNENDED)
            return
        problem = group.problem()
        self._all += _named(group.tests, group.name)
        if problem is not None:
            self._all.append(GuestTest(group.name, Status.FAILED, problem))


def _miscounted(numbers: Sequence[int]) -> str | None:
    """What is wrong with the numbers of as many results as were planned: each is of one test.

    Suites of KUnit that are modules do not begin at 1.
    """
    for number, following in itertools.pairwise(sorted(numbers)):
        if number == following:
            return f"not every test was run: result {number} came twice"
        if number + 1 < following:
            return f"not every test was run: result {number + 1} never came"
    return None


_UNENDED: Final = GuestTest("", Status.FAILED, "did not end")


def _of_group(group: _Group, own: GuestTest) -> Iterator[GuestTest]:
    """The members of a group, and the group's own result where it says more than they do."""
    own = replace(own, name=own.name or group.name or "a group without a name")
    problem = None if own.status in _EXCUSED else group.problem()
    if problem is not None:
        own = replace(own, status=Status.FAILED, why=problem)
    members = [*_named(group.tests, own.name)]
    if own.status in _EXCUSED:  # what is in it may fail then
        members = [replace(m, status=own.status) if m.failed else m for m in members]
    yield from members
    if problem is not None or not members or (own.failed and not any(m.failed for m in members)):
        yield own


_EXCUSED: Final = (Status.SKIPPED, Status.EXPECTED_FAILURE)


def _named(tests: Iterable[GuestTest], name: str) -> Iterator[GuestTest]:
    for test in tests:
        yield replace(test, name=_short(SEPARATOR.join(filter(None, (name, test.name)))))


def _test(found: re.Match[str], number: int, group: str, notes: list[str]) -> GuestTest:
    """A test by its own line, which may be preceded by why it failed."""
    said = found[3] or ""
    directive = _DIRECTIVE.search(said)
    word = directive[1].upper() if directive else ""
    name = said[: directive.start()].strip() if directive else said.strip()
    name = _short(name or group or f"test {found[2] or number}")
    remark = directive[2].strip() if directive else ""
    if word.startswith("SKIP"):
        return GuestTest(name, Status.SKIPPED, _short(remark))
    if word in ("TODO", "XFAIL") and (found[1] or word == "XFAIL"):
        return GuestTest(name, Status.EXPECTED_FAILURE, _short(remark))
    if not found[1]:
        return GuestTest(name, Status.PASSED)
    own = said[directive.start() :].strip().removeprefix("#").strip() if directive else ""
    why = filter(None, (own, *(note for note in notes if note != name)))
    return GuestTest(name, Status.FAILED, _short("; ".join(why)))


def _body(line: str) -> tuple[int, str]:
    """The width of what a line is nested by, and the rest of it."""
    match = _PREFIX.match(line)
    width = match.end() if match else 0
    return width, line[width:].rstrip()


def _reason(remark: str) -> str:
    return re.sub(r"^SKIP\w*\s*", "", remark, flags=re.IGNORECASE)


def _short(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
