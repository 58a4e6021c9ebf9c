"""The tests that ran in a guest: those of `--test`, of the user's own init, of the kernel. Pure.

The kernel's own (KUnit) are among its messages, with a time stamp before each line, from its first
word on. All others are what came after the proof without the kernel's messages: those of `--test`
stand between the lines with which loader/guest/run-tests frames them; without those it is TAP or
KTAP that names its version, since anything else may say `ok`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from bootproof.harness.guest import evidence, kernellog, tap
from bootproof.harness.guest.tap import GuestTest, Status
from bootproof.harness.text import printable

_MESSAGE: Final = re.compile(kernellog.STAMP + rb"[^\n]*\n?")
_STAMPED: Final = re.compile(rb"^" + kernellog.STAMP + rb"([^\n]*)", re.MULTILINE)
_FRAME: Final = re.compile(
    rb"^bootproof: test (\d{1,6})/(\d{1,6}) (?:begins: ([^\r\n]*)|ended with (\d{1,3}))\r?$",
    re.MULTILINE,
)
_SKIPS: Final = 4  # KSFT_SKIP of tools/testing/selftests/kselftest.h
_MOST: Final = 10_000  # that are kept of each kind; failures come first
_NAMED: Final = 3
_KERNEL: Final = "tests of the kernel"
_USER: Final = "tests"


def find(
    transcript: bytes, *, asked: bool = False, ended: bool = True, cut: bool = False
) -> tuple[GuestTest, ...]:
    """Every test that a guest ran.

    `asked` says that there must have been some of `--test`, `ended` whether the guest has ended by
    itself, as it does behind the last of them: a test can print the lines that frame it. `cut` says
    that the host may have ended it, or lost what it said: what did not come has not failed then.
    """
    after = transcript[evidence.proof_end(transcript) :]
    tests = [*_of_kernel(transcript, cut), *_of_user(_MESSAGE.sub(b"", after), asked, cut)]
    if asked and not (ended or cut or any(test.failed for test in tests)):
        tests.append(GuestTest("--test", Status.FAILED, "the guest did not end behind the last"))
    return tuple(_kept([replace(test, name=test.name or _USER) for test in tests]))


def failures(tests: Sequence[GuestTest]) -> str | None:
    """How many of the tests failed, and the first of them; None when none did."""
    failed = [str(test) for test in tests if test.failed]
    if not failed:
        return None
    more = f"; and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
    return f"{len(failed)} of {len(tests)} tests failed: {'; '.join(failed[:_NAMED])}{more}"


def summary(tests: Sequence[GuestTest]) -> str:
    """How many tests ended how: `12 passed, 1 failed`."""
    counts = Counter(test.status for test in tests)
    return ", ".join(
        f"{counts[status]} {status.replace('-', ' ')}" for status in Status if counts[status]
    )


def _of_kernel(transcript: bytes, cut: bool) -> Iterator[GuestTest]:
    """Those whose results are messages of the kernel; without stamps, what came before init.

    The plan is of the suites that are a part of the kernel: it has run them before it starts init.
    Those of modules come later, and without one (kunit_exec_run_tests in lib/kunit/executor.c).
    """
    start = evidence.proof_start(transcript)
    boot, later = transcript[:start], transcript[start:]
    for said, whole in ((_messages(boot) or boot, bool(later)), (_messages(later), False)):
        text = _text(said)
        at = text.find("TAP version")  # what came before may look like anything
        text = text[text.rfind("\n", 0, at) + 1 :] if at >= 0 else ""
        if tap.begins(text, sure=False):
            tests = tap.read(text, cut=cut and not whole)
            yield from (_in(_KERNEL, test) for test in tests)


def _messages(transcript: bytes) -> bytes:
    """The kernel's messages that have stamps, without these."""
    return b"\n".join([line[1] for line in _STAMPED.finditer(transcript)])


def _of_user(said: bytes, asked: bool, cut: bool) -> Iterator[GuestTest]:
    frames = [*_FRAME.finditer(said)]
    if asked and not frames and not cut:
        yield GuestTest("--test", Status.FAILED, "no test began")
    if not frames and not asked:
        text = _text(said)
        yield from tap.read(text, cut=cut) if tap.begins(text, sure=False) else ()
    begins = {int(f[1]): f for f in reversed(frames) if f[3] is not None}
    ends = {int(f[1]): f for f in frames if f[4] is not None}
    total = max((int(frame[2]) for frame in frames), default=0)
    for number in sorted(ends if cut else {*begins, *ends}):
        start, end = begins.get(number), ends.get(number)
        following = begins.get(number + 1)
        stop = end.start() if end else following.start() if following else len(said)
        between = said[start.end() if start else stop : stop]
        name = _text(start[3]).strip() if start else f"test {number}"
        yield from _of_command(name, _text(_FRAME.sub(b"", between)), int(end[4]) if end else None)
    missing = 0 if cut else total - len({*begins, *ends})
    if missing:
        yield GuestTest("--test", Status.FAILED, f"{missing} of {total} never began")
    if frames and len(ends) == total:  # what runs then may be the user's own init
        rest = _text(said[frames[-1].end() :])
        yield from tap.read(rest, cut=cut) if tap.begins(rest, sure=False) else ()


def _of_command(name: str, said: str, code: int | None) -> Iterator[GuestTest]:
    """The tests of one command; it is one itself where it prints none, or fails beside them."""
    tests = [_in(name, test) for test in tap.read(said)] if tap.begins(said, sure=True) else []
    yield from tests
    words = "" if tests else _last_words(said)
    if code is None:
        yield GuestTest(name, Status.FAILED, f"did not end{f', after {words!r}' if words else ''}")
    elif code == _SKIPS and tests and not any(test.failed for test in tests):
        yield GuestTest(name, Status.SKIPPED, f"exit code {code}")
    elif code and not any(test.failed for test in tests):
        yield GuestTest(name, Status.FAILED, f"exit code {code}{f': {words}' if words else ''}")
    elif not tests:
        yield GuestTest(name, Status.PASSED)


def _last_words(said: str) -> str:
    return next((line.strip() for line in reversed(said.split("\n")) if line.strip()), "")


def _in(name: str, test: GuestTest) -> GuestTest:
    return replace(test, name=f"{name}{tap.SEPARATOR}{test.name}" if test.name else name)


def _kept(tests: Sequence[GuestTest]) -> Sequence[GuestTest]:
    """Of too many, the first failures and the first of the others."""
    if len(tests) <= _MOST:
        return tests
    failed = [test for test in tests if test.failed][:_MOST]
    return [*failed, *[test for test in tests if not test.failed][: _MOST - len(failed)]]


def _text(said: bytes) -> str:
    return "\n".join(printable(line.removesuffix(b"\r")) for line in said.split(b"\n"))
