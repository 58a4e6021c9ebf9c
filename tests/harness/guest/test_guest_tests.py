"""The tests in a guest, out of a transcript: of the kernel, of --test, of the user's init."""

from __future__ import annotations

import pytest

from bootproof.harness.guest import guest_tests
from bootproof.harness.guest.tap import Status
from tests.builders.guests import Claim, machine
from tests.harness.guest.test_tap import ADD_FAILS, KUNIT

PROOF = Claim(machine("x86_64"), 2 << 20).text()
BOOT = b"[    0.000000] Linux version 6.1.0\r\n"
KUNIT_LOG = b"".join(
    b"[    0.51%04d] %s\r\n" % pair for pair in enumerate(KUNIT.encode().split(b"\n"))
)
TAP = b"TAP version 13\r\n1..2\r\nok 1 one\r\nnot ok 2 two\r\n"


def begins(number: int, of: int, name: str) -> bytes:
    return f"\r\nbootproof: test {number}/{of} begins: {name}\r\n".encode() * 2


def ended(number: int, of: int, code: int) -> bytes:
    return f"\r\nbootproof: test {number}/{of} ended with {code}\r\n".encode() * 2


def told(transcript: bytes, *, asked: bool = False, cut: bool = False) -> list[str]:
    found = guest_tests.find(transcript, asked=asked, cut=cut)
    return [f"{test.status.value} {test}" for test in found]


def test_tests_of_the_kernel() -> None:
    """KUnit's, in the kernel's log: with stamps, and other messages between its lines."""
    other = b"[    0.510004] random: crng init done\r\n"
    wanted = [
        "passed tests of the kernel / list-kunit-test / list_test_init",
        f"failed tests of the kernel / {ADD_FAILS}",
        "passed tests of the kernel / time / divides / by 1",
        "passed tests of the kernel / time / divides / by 2",
        "skipped tests of the kernel / time / clocks: no RTC",
    ]
    assert told(BOOT + KUNIT_LOG + PROOF) == wanted
    lines = KUNIT_LOG.splitlines(keepends=True)
    assert told(BOOT + b"".join(line + other for line in lines[:6]) + b"".join(lines[6:])) == wanted
    # Without CONFIG_PRINTK_TIME.
    assert told(b"Linux version 6.1.0\r\n" + KUNIT.encode() + PROOF) == wanted


MODULE = """\
    KTAP version 1
    # Subtest: of-module
    1..2
    ok 1 first
    not ok 2 second
not ok 3 of-module
"""


def test_tests_of_a_module_are_beyond_the_plan_of_the_boot() -> None:
    """As kernel 6.1 prints them: nested at once, without a plan, and numbered on."""
    later = b"".join(b"[    0.8] " + line + b"\r\n" for line in MODULE.encode().splitlines())
    loaded = begins(1, 1, "insmod of-module.ko") + later + ended(1, 1, 0)
    wanted = [
        *told(BOOT + KUNIT_LOG + PROOF),
        "passed tests of the kernel / of-module / first",
        "failed tests of the kernel / of-module / second",
        "passed insmod of-module.ko",
    ]
    assert told(BOOT + KUNIT_LOG + PROOF + loaded, asked=True) == wanted
    # A test in which the kernel dies did not end.
    died = later[: later.index(b"not ok 2")]
    assert told(BOOT + KUNIT_LOG + PROOF + died)[-1] == (
        "failed tests of the kernel / of-module: 1 of 2 tests were run"
    )


def test_what_an_init_prints_after_the_proof() -> None:
    assert told(BOOT + PROOF + TAP) == ["passed one", "failed two"]
    assert told(BOOT + PROOF + TAP.replace(b"1..2", b"1..3"))[-1] == (
        "failed tests: 2 of 3 tests were run"
    )
    cut = TAP.replace(b"ok 1 one", b"ok 1 [    2.000000] usb: new device\r\none")
    assert told(BOOT + PROOF + cut) == ["passed one", "failed two"]


def test_what_an_init_prints_after_tests_that_only_came_before_it() -> None:
    loads = begins(1, 1, "insmod loop.ko") + ended(1, 1, 0)
    wanted = ["passed insmod loop.ko", "passed one", "failed two"]
    assert told(BOOT + PROOF + loads + TAP, asked=True) == wanted
    assert told(BOOT + PROOF + loads + b"ok 1 said by anybody\r\n", asked=True) == wanted[:1]
    cut = begins(1, 2, "insmod loop.ko") + ended(1, 2, 0)
    assert "one" not in str(told(BOOT + PROOF + cut + TAP, asked=True))


def test_what_counts_for_nothing() -> None:
    """Words before the proof that are not the kernel's, and results without a version."""
    assert told(BOOT + TAP + PROOF) == []
    assert told(BOOT + PROOF + b"1..2\r\nok 1 one\r\nnot ok 2 two\r\n") == []
    assert told(b"") == []


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (begins(1, 1, "true") + ended(1, 1, 0), ["passed true"]),
        (ended(1, 1, 0), ["passed test 1"]),  # both lines of its beginning are spoilt
        (begins(1, 1, "./t") + b"1..1\r\nok 1 a\r\n" + ended(1, 1, 0), ["passed ./t / a"]),
        (begins(1, 1, "./t") + TAP + ended(1, 1, 1), ["passed ./t / one", "failed ./t / two"]),
        (begins(1, 1, "./t") + b"no\r\n" + ended(1, 1, 1), ["failed ./t: exit code 1: no"]),
        # A program that fails beside its results, and one that skips as kselftest does.
        (
            begins(1, 1, "./t") + b"1..1\r\nok 1 a\r\n" + ended(1, 1, 139),
            ["passed ./t / a", "failed ./t: exit code 139"],
        ),
        (
            begins(1, 1, "./t") + b"1..0 # SKIP no root\r\n" + ended(1, 1, 4),
            ["skipped ./t: no root", "skipped ./t: exit code 4"],
        ),
        (begins(1, 1, "./t") + ended(1, 1, 4), ["failed ./t: exit code 4"]),
        (begins(1, 1, "./t") + b"not ok 1 a\r\n" + ended(1, 1, 4), ["failed ./t / a"]),
        # What never ended, or never began.
        (begins(1, 2, "./t") + b"hm\r\n", ["failed ./t: did not end, after 'hm'",
                                          "failed --test: 1 of 2 never began"]),
        (
            begins(1, 2, "a") + ended(1, 2, 0) + begins(2, 2, "b"),
            ["passed a", "failed b: did not end"],
        ),
        # A test that prints a frame of fewer tests.
        (
            begins(1, 2, "./t") + ended(1, 1, 0) + ended(1, 2, 0),
            ["passed ./t", "failed --test: 1 of 2 never began"],
        ),
        (b"", ["failed --test: no test began"]),
        # A message of the kernel in one of the two lines of a frame.
        (
            begins(1, 1, "true").replace(b"begins", b"be[    2.000000] usb: x\r\ngins", 1)
            + ended(1, 1, 0),
            ["passed true"],
        ),
    ],
)  # fmt: skip
def test_commands(said: bytes, wanted: list[str]) -> None:
    assert told(BOOT + PROOF + said, asked=True) == wanted


def test_what_the_host_cut_short_has_not_failed() -> None:
    """Of each kind what has ended counts, and nothing that did not come."""
    kernel = BOOT + b"".join(KUNIT_LOG.splitlines(keepends=True)[:7])
    assert told(kernel, cut=True) == [
        "passed tests of the kernel / list-kunit-test / list_test_init"
    ]
    assert any(line.startswith("failed") for line in told(kernel))
    assert told(BOOT + PROOF + b"TAP version 13\r\n1..3\r\nok 1 a\r\n", cut=True) == ["passed a"]
    said = begins(1, 3, "a") + ended(1, 3, 0) + begins(2, 3, "b") + b"1..2\r\nok 1 x\r\n"
    assert told(BOOT + PROOF + said, asked=True, cut=True) == ["passed a"]
    then = begins(1, 1, "a") + ended(1, 1, 0) + TAP[: TAP.index(b"not ok")]
    assert told(BOOT + PROOF + then, asked=True, cut=True) == ["passed a", "passed one"]
    assert told(BOOT + PROOF, asked=True, cut=True) == []
    later = b"".join(b"[    0.8] " + line + b"\r\n" for line in MODULE.encode().splitlines()[:4])
    assert told(BOOT + PROOF + later, cut=True) == [
        "passed tests of the kernel / of-module / first"
    ]


def test_failures_come_before_all_that_is_too_much() -> None:
    many = b"TAP version 13\r\n" + b"ok 1 a\r\n" * 12_000 + b"not ok 2 the last\r\n"
    tests = guest_tests.find(BOOT + PROOF + many)
    assert len(tests) == 10_000
    assert [test.name for test in tests if test.status is Status.FAILED] == ["the last"]
    assert guest_tests.failures(tests) == "1 of 10000 tests failed: the last"


def test_summaries() -> None:
    tests = guest_tests.find(BOOT + PROOF + b"TAP version 13\r\n" + b"not ok 1\r\n" * 5)
    assert guest_tests.failures(tests) == (
        "5 of 5 tests failed: test 1; test 1; test 1; and 2 more"
    )
    assert guest_tests.summary(guest_tests.find(BOOT + PROOF + TAP)) == "1 passed, 1 failed"
    assert guest_tests.failures(()) is None
