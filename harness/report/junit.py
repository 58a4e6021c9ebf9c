"""junit.xml as GitLab, Jenkins and the reporters of GitHub read it.

A suite for each kernel, a test for each case and for each test that ran in its guest. Their readers
agree on little: no attribute and no element is used that one of them refuses (properties of a test
are refused by the schema of Jenkins' xUnit plugin, junit-10.xsd), so what there is to say of a case
beyond its failure stands in its output, and in properties of the suite (`CLAIM.verdict`). Pure.
"""

from __future__ import annotations

import functools
import re
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from bootproof.harness.guest.tap import GuestTest
from bootproof.harness.judgement import ERROR
from bootproof.harness.report import details, failure
from bootproof.harness.results.results import CaseResult, Check, Results

# What XML 1.0 cannot hold, not even escaped (section 2.2).
_INVALID: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_OTHER: Final = "other tests"
_MESSAGE_LIMIT: Final = 1000  # characters; readers show it in one line


def render(results: Results) -> str:
    """The file."""
    return "".join(parts(results))


def parts(results: Results) -> Iterator[str]:
    """The file as `render` gives it, a suite at a time."""
    suites = _suites(results)
    root = ET.Element("testsuites", {"name": "bootproof"})
    counts = [_counts(suite()) for suite in suites.values()]
    for count in ("tests", "failures", "errors"):
        root.set(count, str(sum(each[count] for each in counts)))
    root.set("time", _seconds(results.seconds))
    head = ET.tostring(root, "unicode")
    yield '<?xml version="1.0" encoding="utf-8"?>\n'
    if not suites:
        yield f"{head}\n"
        return
    yield head.removesuffix(" />") + ">"
    for name, items in suites.items():
        yield f"\n  {_suite(results, name, items())}"
    yield "\n</testsuites>\n"


Items: TypeAlias = Sequence[CaseResult | Check]


def _suites(results: Results) -> Mapping[str, Callable[[], Items]]:
    """What is in each suite, by its name; asked for a suite at a time."""
    cases = results.cases
    order = details.order_of(cases, lambda case: (case.arch, case.kernel.name, case.claim))
    names = [sys.intern(f"{case.arch}.{case.kernel.name}") for case in cases]
    numbers: dict[str, list[int]] = {}
    for number in order:
        numbers.setdefault(names[number], []).append(number)
    suites: dict[str, Callable[[], Items]] = {
        name: functools.partial(_members, cases, members) for name, members in numbers.items()
    }
    # Its readers take what is not there for good.
    lacking = [Check("the whole run", ERROR, text, 0.0) for text in results.lacks]
    others = [*results.checks, *lacking]
    return suites | ({_OTHER: lambda: others} if others else {})


def _members(cases: Sequence[CaseResult], numbers: Sequence[int]) -> Items:
    return [cases[number] for number in numbers]


def _counts(items: Items) -> Mapping[str, int]:
    outcomes = Counter(item.outcome for item in items)
    cases = [item for item in items if isinstance(item, CaseResult)]
    outcomes += Counter(_GUEST_OUTCOMES[test.status] for case in cases for test in case.tests)
    counts = {"failures": outcomes["failed"], "errors": outcomes["error"]}
    return counts | {"tests": outcomes.total(), "skipped": outcomes["skipped"]}


def _suite(results: Results, name: str, items: Items) -> str:
    when = {"timestamp": _text(results.started.removesuffix("Z"))}
    seconds = {"time": _seconds(sum(item.seconds for item in items))}
    counts = {key: str(count) for key, count in _counts(items).items()}
    suite = ET.Element("testsuite", {"name": _text(name)} | counts | when | seconds)
    cases = [item for item in items if isinstance(item, CaseResult)]
    if cases:
        properties = ET.SubElement(suite, "properties")
        for key, value in _facts(cases):
            ET.SubElement(properties, "property", {"name": _text(key), "value": _text(value)})
    for item in items:
        _test(suite, name, item)
        if isinstance(item, CaseResult):
            for test in item.tests:
                _guest_test(suite, f"{name}.{item.claim}", test)
    ET.indent(suite, level=1)
    return ET.tostring(suite, "unicode")


def _test(suite: ET.Element, class_: str, item: CaseResult | Check) -> None:
    case = item if isinstance(item, CaseResult) else None
    attributes = {"classname": f"bootproof.{_text(class_)}", "time": _seconds(item.seconds)}
    attributes["name"] = _text(case.claim if case else item.name)
    test = ET.SubElement(suite, "testcase", attributes)
    if item.outcome == "skipped":
        ET.SubElement(test, "skipped", {"message": _text(item.summary)})
    elif item.bad:
        tag = "error" if item.outcome == "error" else "failure"
        kind = {"type": _text(case.verdict if case else item.outcome)}
        message = {"message": _text(item.summary)[:_MESSAGE_LIMIT]}
        ET.SubElement(test, tag, kind | message).text = _text(_failure(item))
    if case:
        ET.SubElement(test, "system-out").text = _text(_output(case))


def _guest_test(suite: ET.Element, class_: str, guest: GuestTest) -> None:
    """A test that ran in a guest; how long it took is part of its case's time."""
    attributes = {"classname": f"bootproof.{_text(class_)}", "time": _seconds(0)}
    test = ET.SubElement(suite, "testcase", attributes | {"name": _text(guest.name)})
    message = {"message": _text(guest.why)}
    if _GUEST_OUTCOMES[guest.status] == "skipped":
        ET.SubElement(test, "skipped", message)
    elif guest.failed:
        ET.SubElement(test, "failure", {"type": guest.status} | message).text = _text(str(guest))


# A failure that was expected is no pass either: readers have no third word.
_GUEST_OUTCOMES: Final = {
    "passed": "passed",
    "failed": "failed",
    "skipped": "skipped",
    "expected-failure": "skipped",
}


def _facts(cases: Sequence[CaseResult]) -> Iterator[tuple[str, str]]:
    kernel = cases[0].kernel
    yield "kernel", kernel.name
    if kernel.sha256:
        yield "kernel.sha256", kernel.sha256
    if kernel.release:
        yield "kernel.release", kernel.release
    for qemu in sorted({case.key.qemu for case in cases if case.key}):
        yield "qemu", qemu
    for case in cases:
        key = case.key
        facts = {
            "verdict": case.verdict,
            "protocol": case.protocol,
            "instructions": case.instructions,
            "cpu-seconds": case.cpu_seconds,
            "boot-image": key and key.boot_image,
            "deterministic": None if key is None else str(key.icount_shift is not None).lower(),
            "proof": case.proof,
            **{f"evidence.{name}": "; ".join(values) for name, values in case.evidence.items()},
        }
        for name, value in facts.items():
            if value is not None:
                yield f"{case.claim}.{name}", str(value)


def _failure(item: CaseResult | Check) -> str:
    first = []
    if isinstance(item, CaseResult):
        first = [f"{item.verdict}: {item.reason}", f"expected: {item.expected.verdict}"]
    return "\n".join([*first, *failure.lines(item)])


def _output(case: CaseResult) -> str:
    lines = [f"verdict: {case.verdict}", f"reason: {case.reason}"]
    lines += [f"code: {case.code}"] if case.code else []
    lines += failure.complaints(case)
    lines += [f"instructions: {case.instructions}"] if case.instructions is not None else []
    return "\n".join([*lines, f"reproduce: {case.reproduce}"])


def _text(text: str) -> str:
    return _INVALID.sub("", text)


def _seconds(value: float) -> str:
    return f"{value:.3f}"
