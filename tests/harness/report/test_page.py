"""report.html as text: all is in it, nothing of a hostile guest does anything, it stays small."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from bootproof.harness.guest.stages import Stage
from bootproof.harness.report import page
from bootproof.harness.results import results, shards
from bootproof.harness.results.results import Area, Check, Memory, Reference, Transcript
from bootproof.loader.address import KIB, MIB
from tests.builders import results as builder
from tests.builders.pages import blocks, opened

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7 * 7 }}"


class Page(HTMLParser):
    """Every element with its attributes, and what the scripts hold."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_page_has_every_case_with_all_that_is_known() -> None:
    run = builder.run(builder.case(), builder.failed(), builder.refused())
    text = opened(page.render(run))
    found = Page(text)
    ids = [item["id"] for item in found.all("details") if "case" in (item.get("class") or "")]
    assert sorted(map(str, ids)) == sorted(case.case for case in run.cases)
    assert ids[0] == run.unexpected[0].case  # what needs a look comes first
    for word in (
        "1 not as expected",
        "0x1000850",
        "≠ 0x1",
        "0x1fe00000",
        "1,300,000,000",
        "7.2.22",
    ):
        assert word in text
    assert "Unable to mount root" in text and "multiple of 2 MiB" in text


def test_what_is_not_as_expected_has_the_other_mark() -> None:
    """In the table and at the case itself; a failure that had to come is as expected."""
    run = builder.run(
        builder.case("a"), builder.failed("b"), builder.refused("c"), builder.unknown("d")
    )
    text = opened(page.render(run))
    marked = r'class="(cell|badge) (\w+)"[^>]*><span aria-hidden="true">(.)</span> ([\w-]+)'
    wanted = {
        ("booted", "✓", run.cases[0].verdict),
        ("bad", "✗", run.cases[1].verdict),
        ("failed", "✓", run.cases[2].verdict),
        ("bad", "?", run.cases[3].verdict),
    }
    for place in ("cell", "badge"):
        assert {row[1:] for row in re.findall(marked, text) if row[0] == place} == wanted


def test_tests_in_the_guest_are_listed_and_found_by_their_names() -> None:
    text = opened(page.render(builder.run(builder.tested())))
    assert "<strong>suite / two</strong>: EXPECTATION FAILED at x.c:1" in text
    assert "4 tests, 1 failed" in text and ">expected failure<" in text
    assert [d["data-tests"] for d in Page(text).all("details") if "data-tests" in d] == [
        "suite / two"
    ]


def test_a_test_that_comes_to_no_result_has_not_failed() -> None:
    text = opened(page.render(builder.mixed()))
    assert "<dt>Other tests</dt><dd>4, 1 not as expected, 1 cannot be told</dd>" in text


def test_a_case_that_comes_to_no_result_is_a_case() -> None:
    lost = Check("x.toml::claim[x86_64-6.1]", "error", "the disk is full", 0.0, of_case=True)
    text = opened(page.render(builder.run(builder.case(), checks=(lost,))))
    assert "<dt>Cases</dt><dd>2</dd>" in text and "<dt>As expected</dt><dd>1</dd>" in text


def test_nothing_comes_from_elsewhere() -> None:
    text = opened(page.render(builder.run(builder.case())))
    assert not re.search(r"https?:|\burl\(|@import|src=", text)
    assert "default-src 'none'" in text


@pytest.mark.parametrize(
    "hurt",
    [
        {"reason": HOSTILE, "problem": HOSTILE},
        {"evidence": {HOSTILE: (HOSTILE,)}, "proof": HOSTILE, "cmdline": HOSTILE},
        {"log": results.transcript(HOSTILE.encode() + b"\x1b[2J\xff\0\n" * 300)},
        {"transcript": results.transcript(HOSTILE.encode() + b"\x1b[2J\xff\0\n" * 3)},
        {"verdict": HOSTILE, "case": HOSTILE, "claim": HOSTILE, "arch": HOSTILE},
        {"reproduce": HOSTILE, "directory": HOSTILE, "findings": (HOSTILE,), "protocol": HOSTILE},
        {"stages": (Stage(HOSTILE, 1, 0.0),)},
        {"memory": Memory((Area(HOSTILE, 0, MIB),), (Area(HOSTILE, 0, KIB),))},
        {
            "expected": results.Expected(HOSTILE, HOSTILE),
            "kernel": HOSTILE,
        },
    ],
    ids=lambda hurt: next(iter(hurt)),
)
def test_hostile_text_stays_text(hurt: dict[str, Any]) -> None:
    """The elements are those of the harmless page, and not one attribute name is new."""
    tame = {key: _tame(value) for key, value in hurt.items()}
    runs = [
        builder.run(
            builder.failed(**some), builder.failed(**some | {"case": "other"}), builder.case()
        )
        for some in (hurt, tame)
    ]
    pages = [Page(opened(page.render(run))) for run in runs]
    shapes = [[(tag, sorted(attributes)) for tag, attributes in p.elements] for p in pages]
    assert shapes[0] == shapes[1]
    assert len(pages[0].all("script")) == 1 and not pages[0].all("img")
    assert len(Page(page.render(runs[0])).all("script")) == 2


def _tame(value: Any) -> Any:
    """The same value with harmless text."""
    if isinstance(value, Transcript):
        return results.transcript(b"harmless\n" * len(value.lines))
    return eval(repr(value).replace(repr(HOSTILE), "'harmless'"), vars(results))


def test_hostile_check() -> None:
    check = Check(HOSTILE, "failed", HOSTILE, 1.0)
    found = Page(page.render(builder.run(checks=(check,))))
    assert len(found.all("script")) == 1 and not found.all("img")


def test_page_of_200_cases_is_under_1_mb() -> None:
    """With transcripts as long as a Debian kernel's, and another clock in each of them."""
    cases = []
    for number in range(200):
        log = "".join(
            f"[ {line / 50 + number / 7:11.6f}] {'some driver says ' * 4}{line * 7919 % 1000}\r\n"
            for line in range(1000)
        )
        registers = tuple(
            results.Register(f"r{n}", f"selector {n:#x} base 0x0 limit 0xffffffff", "0x0", True)
            for n in range(34)
        )
        cases.append(
            builder.case(
                f"case-{number}", transcript=results.transcript(log.encode()), registers=registers
            )
        )
    text = page.render(builder.run(*cases))
    assert len(text.encode()) < 1_000_000
    # What a browser reads before anything is opened.
    assert len(re.sub(r'class="block">[^<]*<', "", text)) < 250_000


def test_baseline_is_drawn_beside_the_stages_where_it_can_be_compared() -> None:
    now, before = builder.run(builder.case()), builder.run(builder.case())
    assert 'class="n">reference' in opened(page.render(now, before))
    other = builder.run(builder.case(key=builder.KEY_OF_ANOTHER_QEMU))
    assert 'class="n">reference' not in opened(page.render(now, other))


def test_reference_boot_is_drawn_beside_the_stages() -> None:
    """Of its own case only, and not where a baseline is: also from another shard."""
    stages = (Stage("entry", 7_070_503, None), Stage("banner", 430_000_000, 0.0))
    cases = builder.shard(1, builder.case("case-1"), builder.case("case-2"))
    references = {cases.cases[0].case: Reference(1_400_000_000, stages)}
    parts = [cases, replace(builder.shard(2), references=references)]
    text = opened(page.render(shards.merged(parts, ("one", "two"))))
    assert text.count("below QEMU&#39;s own -kernel with the same kernel") == 1
    assert text.count("reference, entry: 7,070,503 instructions") == 1
    assert text.count('<td class="n">7,070,503</td>') == 1
    assert "reference, " not in opened(page.render(cases))
    beside = replace(cases, references=references)
    assert "own -kernel" not in opened(page.render(beside, cases))


def test_kernels_are_in_the_order_of_their_versions() -> None:
    run = builder.run(
        *(builder.case(kernel=name) for name in ("6.12-cloud", "newest", "6.1-cloud"))
    )
    text = page.render(run)
    heads = re.findall(r'<th scope="col">([^<]*)</th>', text)
    assert heads[:4] == ["case", "6.1-cloud", "6.12-cloud", "newest"]


def test_failures_that_are_alike_are_one_block() -> None:
    """What is wrong is said once, with a list; numbers in it do not make it another failure."""
    alike = [builder.failed(f"c{n}", problem=f"panic at {n:#x}") for n in range(8)]
    text = page.render(builder.run(builder.case(), *alike, builder.failed("other", problem="else")))
    assert text.count("8 cases: panic at 0x0") == 1
    assert text.count('<span class="why">panic at 0x0</span>') == 0
    assert text.count('<span class="why">panic at 0x3</span>') == 1
    found = Page(text)
    assert [item.get("aria-label") for item in found.all("section")].count("8 cases alike") == 1
    assert len([i for i in found.all("details") if "case" in (i.get("class") or "")]) == 10


def test_tests_that_failed_alike_are_one_block() -> None:
    """Also where each text begins with the id of its own case."""
    checks = tuple(
        Check(f"x.toml::r[x86_64-{kernel}-elf]", "error", f"x86_64-{kernel}-elf: no QEMU", 0.0)
        for kernel in ("6.1", "newest", "mine")
    )
    text = page.render(builder.run(checks=(*checks, Check("test_a.py::test_b", "failed", "no", 1))))
    assert text.count("3 tests: x86_64-6.1-elf: no QEMU") == 1
    assert text.count('<details class="check-result">') == 2
    assert "<li>x.toml::r[x86_64-mine-elf]</li>" in text


def test_without_a_script_it_says_how_all_ended_and_why() -> None:
    """And all of the first failures: the console's last lines, and how to run them again."""
    bad = [builder.failed(f"c{n}", problem=f"{'wrong' * n} it is") for n in range(25)]
    run = builder.run(builder.case(reason="it proved itself"), *bad)
    text = page.render(run)
    assert text.count('<span class="why">it proved itself</span>') == 1
    assert all(case.problem is not None and f">{case.problem}<" in text for case in bad)
    assert text.count("Last console lines") == text.count("Run it again") == 20
    assert sum(bool(body) for block in blocks(text) for body in block["bodies"]) == 6


def test_cost_of_the_run() -> None:
    text = page.render(builder.run(builder.case("a"), builder.case("b"), builder.refused()))
    assert "<dd>QEMU: 1.8 s of CPU time, 2.6 G instructions</dd>" in text
