"""TAP and KTAP as they are printed in the wild, and whatever else may stand there."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootproof.harness.guest import tap

# lib/kunit/test.c of Linux 6.12: a suite that fails, one with parameters, one that is skipped.
KUNIT = """KTAP version 1
1..2
    KTAP version 1
    # Subtest: list-kunit-test
    # module: list_test
    1..2
    ok 1 list_test_init
    # list_test_add: EXPECTATION FAILED at lib/list-test.c:57
    Expected list.next == &b, but
    not ok 2 list_test_add
# list-kunit-test: pass:1 fail:1 skip:0 total:2
# Totals: pass:1 fail:1 skip:0 total:2
not ok 1 list-kunit-test
    KTAP version 1
    # Subtest: time
    1..2
        KTAP version 1
        # Subtest: divides
        ok 1 by 1
        ok 2 by 2
    # divides: pass:2 fail:0 skip:0 total:2
    ok 1 divides
    ok 2 clocks # SKIP no RTC
ok 2 time
"""
ADD_FAILS = (
    "list-kunit-test / list_test_add: list_test_add: EXPECTATION FAILED at lib/list-test.c:57;"
    " Expected list.next == &b, but"
)
SUSPEND = "selftests: breakpoints: step_after_suspend_test"
# tools/testing/selftests/kselftest/runner.sh: what a test prints is nested behind `# `.
KSELFTEST = """TAP version 13
1..4
# timeout set to 45
# selftests: breakpoints: step_after_suspend_test
# TAP version 13
# 1..2
# ok 1 CPU 0
# # it never came back
# not ok 2 CPU 1
# # Totals: pass:1 fail:1 xfail:0 xpass:0 skip:0 error:0
not ok 1 selftests: breakpoints: step_after_suspend_test # exit=1
# selftests: mount: unprivileged-remount-test
# 1..0 # SKIP must be root
ok 2 selftests: mount: unprivileged-remount-test # SKIP
# selftests: net: reuseport
not ok 3 selftests: net: reuseport # TIMEOUT 45 seconds
# selftests: seccomp: seccomp_bpf
ok 4 selftests: seccomp: seccomp_bpf
"""


def told(text: str) -> list[str]:
    return [f"{test.status.value} {test}" for test in tap.read(text)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            KUNIT,
            [
                "passed list-kunit-test / list_test_init",
                f"failed {ADD_FAILS}",
                "passed time / divides / by 1",
                "passed time / divides / by 2",
                "skipped time / clocks: no RTC",
            ],
        ),
        (
            KSELFTEST,
            [
                f"passed {SUSPEND} / CPU 0",
                f"failed {SUSPEND} / CPU 1: it never came back",
                "skipped selftests: mount: unprivileged-remount-test: must be root",
                "failed selftests: net: reuseport: TIMEOUT 45 seconds",
                "passed selftests: seccomp: seccomp_bpf",
            ],
        ),
        (  # TAP 14, its subtests four blanks in
            "TAP version 14\n1..1\n    # Subtest: a\n    1..1\n    ok 1 - b\nok 1 - a\n",
            ["passed a / b"],
        ),
        ("1..3\nnot ok 1 a # TODO soon\nok 2 # XFAIL known\nok 3 b # TODO done\n",
         ["expected-failure a: soon", "expected-failure test 2: known", "passed b"]),
        ("ok 1 a\nnot ok\n1..2\n", ["passed a", "failed test 2"]),  # TAP 12
        ("TAP version 13\n1..1\nok 1 a\nTAP version 13\n1..1\nok 1 b\n", ["passed a", "passed b"]),
        ("TAP version 13\nok 1 a\nTAP version 13\nok 1 b\n1..1\n", ["passed a", "passed b"]),
        ("1..1\nok 1 a\n1..1\nok 1 b\n", ["passed a", "passed b"]),
        ("1..0 # SKIP not here\n", ["skipped : not here"]),
        # --- what did not come to its end
        ("1..5\nok 1 a\nok 2 b\n", ["passed a", "passed b", "failed : 2 of 5 tests were run"]),
        ("1..1\nok 1 a\nok 2 b\n", ["passed a", "passed b", "failed : 2 of 1 tests were run"]),
        ("TAP version 13\n", ["failed : no test was run"]),
        ("1..5\nok 1 a\nBail out! no disk\n", ["passed a", "failed : bailed out: no disk"]),
        (
            "KTAP version 1\n1..2\n  KTAP version 1\n  # Subtest: s\n  1..2\n  ok 1 a\n",
            ["passed s / a", "failed s: 1 of 2 tests were run", "failed : 0 of 2 tests were run"],
        ),
        (
            "KTAP version 1\n1..1\n  # Subtest: s\n  1..1\n  ok 1 a\n",
            ["passed s / a", "failed s: did not end", "failed : 0 of 1 tests were run"],
        ),
        # --- what does not fit together
        ("1..1\n  1..2\n  ok 1 a\nok 1 s\n", ["passed s / a", "failed s: 1 of 2 tests were run"]),
        (
            "1..1\n  1..3\n  not ok 1 a\nnot ok 1 s\n",
            ["failed s / a", "failed s: 1 of 3 tests were run"],
        ),
        ("1..1\n  1..1\n  ok 1 a\nnot ok 1 s # exit=1\n", ["passed s / a", "failed s: exit=1"]),
        ("1..1\n  not ok 1 a\nok 1 s # SKIP later\n", ["skipped s / a"]),
        (
            "1..2\nok 1 a\nok 1 a\n",
            ["passed a", "passed a", "failed : not every test was run: result 1 came twice"],
        ),
        (
            "1..2\nok 3 c\nok 1 a\n",
            ["passed c", "passed a", "failed : not every test was run: result 2 never came"],
        ),
        ("1..2\nok 2 b\nok 1 a\n", ["passed b", "passed a"]),
        ("1..1\nok 2 a suite of a module\n", ["passed a suite of a module"]),
        (
            "1..99999999999\nok 1 a\n",
            ["passed a", "failed : 1 of 99999999999 tests were run"],
        ),
        ("1..2\nok 1 a\nok\n", ["passed a", "passed test 2"]),
    ],
)  # fmt: skip
def test_what_is_read(text: str, wanted: list[str]) -> None:
    assert told(text) == wanted
    assert told(text.replace("\n", "\r\n")) == wanted
    assert tap.begins(text, sure=True)


@pytest.mark.parametrize("text", ["", "it is ok 1 of them\nokay\n", "1 .. 2\nTAP version x\n"])
def test_what_is_none(text: str) -> None:
    assert not tap.begins(text, sure=True)
    assert told(text) == []


def test_results_are_sure_only_where_tests_were_asked_for() -> None:
    assert not tap.begins("ok 1 the network is up\n", sure=False)
    assert tap.begins("noise\nTAP version 13\n", sure=False)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "  ", "    ", "# ", "# # "]),
            st.sampled_from(
                [
                    *("ok 1 a", "not ok 2 b", "1..2", "1..0 # SKIP", "KTAP version 1", "Bail out!"),
                    *("# Subtest: s", "ok", "noise", "ok 3 # SKIP", "not ok 4 # XFAIL", ""),
                ]
            ),
        ),
        max_size=30,
    )
)
def test_no_failure_gets_lost(lines: list[tuple[str, str]]) -> None:
    """Whatever the order: a line that says `not ok`, unexcused, is among the failures."""
    text = "\n".join(prefix + line for prefix, line in lines)
    tests = tap.read(text)
    excuses = ("SKIP", "XFAIL")
    unexcused = "not ok 2" in text and not any(word in text for word in excuses)
    assert any(test.failed for test in tests) or not unexcused


def test_the_cost_grows_with_the_text_only() -> None:
    began = time.process_time()
    tap.read("1..1\n" + "ok 1 some test\n" * 50_000)
    tap.read("\n".join("  " * depth + "ok 1" for depth in range(2000)) + "\n")
    tap.read("# " * 100_000 + "ok 1\n" + " " * 100_000 + "# Subtest:" + " " * 100_000 + "\n")
    assert time.process_time() - began < 10
