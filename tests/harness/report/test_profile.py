"""A profile as text, as folded stacks and as a page."""

from __future__ import annotations

import re
from dataclasses import replace

from bootproof.harness.record.profile import Part, Profile
from bootproof.harness.report import profile_page, profile_text

HOSTILE = "</script><script>alert(1)</script>\"'&{{ 7 * 7 }}"
PARTS = (
    Part(("to init", "initcall slow", "start_kernel", "work"), 600),
    Part(("to init", "start_kernel"), 300),
    Part(("to proof", "[user space]"), 100),
)
PROFILE = Profile(
    *("a run", 1000, PARTS, 10, True),
    stages=(("to init", 910), ("to proof", 90)),
    initcalls=(("slow", 590),),
)
SLOWER = replace(
    PROFILE,
    name="another",
    instructions=1200,
    parts=(*PARTS[:2], Part(("to proof", "work"), 300)),
    stages=(("to init", 900), ("to proof", 300)),
)


def test_text() -> None:
    assert profile_text.summary(PROFILE).splitlines() == [
        "profile   a run",
        "total     1,000 guest instructions, 10 samples",
        "stage                  910  91.0%  to init",
        "stage                   90   9.0%  to proof",
        "initcall               590  59.0%  slow",
        "function               600  60.0%  work",
        "function               300  30.0%  start_kernel",
        "function               100  10.0%  [user space]",
    ]
    told = profile_text.summary(replace(PROFILE, remark="nobody knows"))
    assert "no names  nobody knows\n" in told


def test_folded_stacks_are_all_of_the_run() -> None:
    text = profile_text.folded(PROFILE)
    assert "to init;initcall slow;start_kernel;work 600\n" in text
    assert sum(int(line.rpartition(" ")[2]) for line in text.splitlines()) == 1000


def test_difference() -> None:
    assert profile_text.difference(PROFILE, SLOWER).splitlines() == [
        "before    a run: 1,000 guest instructions",
        "now       another: 1,200 guest instructions",
        "change    +200 (+20.00%)",
        "stage                 +210 (90 -> 300)  to proof",
        "stage                  -10 (910 -> 900)  to init",
        "function              +300 (600 -> 900)  work",
        "function              -100 (100 -> 0)  [user space]",
    ]


def test_tree() -> None:
    root = profile_page.tree(PARTS)
    (init, proof) = root.shown
    assert (root.instructions, init.name, init.instructions, proof.own) == (1000, "to init", 900, 0)
    assert [(child.name, child.own) for child in init.shown] == [
        ("initcall slow", 0),
        ("start_kernel", 300),
    ]
    narrow = profile_page.tree([*PARTS, Part(("to init", "tiny"), 0)])
    assert "tiny" not in [child.name for child in narrow.shown[0].shown]
    assert narrow.own + sum(child.instructions for child in narrow.shown) == 1000


def test_page() -> None:
    text = profile_page.render(PROFILE)
    assert not re.search(r"https?:|\burl\(|@import|src=", text)
    assert 'title="work: 600 instructions, 60.00 %"' in text
    assert re.findall(r'class="frame" style="flex-grow:(\d+)"', text) == [
        *("1000", "900", "600", "600", "600", "300", "100", "100"),
    ]
    for title in ("Stages", "Initcalls", "Functions"):
        assert f">{title}</h2>" in text
    assert "by frame pointers" in text


def test_page_of_two() -> None:
    text = profile_page.render_difference(PROFILE, SLOWER)
    assert "+200 instructions" in text
    assert "What changed: functions" in text and ">+300<" in text


def test_names_are_shown_and_not_obeyed() -> None:
    parts = (Part((HOSTILE, HOSTILE), 1000),)
    for text in (
        profile_page.render(replace(PROFILE, parts=parts, name=HOSTILE, remark=HOSTILE)),
        profile_page.render_difference(replace(PROFILE, name=HOSTILE, parts=parts), PROFILE),
    ):
        assert len(re.findall("<script", text)) == 1
        assert "alert(1)" in text
