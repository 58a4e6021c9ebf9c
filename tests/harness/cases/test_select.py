"""Filters as users write them, and what a case is thought to cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bootproof.harness.case import Case, Expectation
from bootproof.harness.cases import select
from bootproof.harness.errors import UserError
from bootproof.harness.terms import Placement
from bootproof.harness.verdict import Verdict

GIB, MIB = 1 << 30, 1 << 20
PVH = Case("x86_64", "6.1-cloud-amd64", "elf", "pvh", memory=GIB, board="microvm")
ARM = Case(
    "aarch64", "6.12-cloud-arm64", "image", "arm64", GIB + 2 * MIB, unsafe=True, budget=7_000_000
)
MAPPED = Case("x86_64", "newest-cloud-amd64", "elf", "linux64", 0, placement=Placement.MAPPED)


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ([], [PVH, ARM, MAPPED]),
        (["arch=aarch64"], [ARM]),
        (["kernel=6.*"], [PVH, ARM]),
        (["kernel=6.*", "kernel=newest-*", "arch=x86_64"], [PVH, MAPPED]),
        (["offset=none"], [PVH]),
        (["offset=ram+2M"], [ARM]),
        (["offset=0x40200000"], [ARM]),
        (["offset=0"], [MAPPED]),
        (["memory=1024M"], [PVH]),
        (["machine=microvm"], [PVH]),
        (["placement=mapped"], [MAPPED]),
        (["unsafe=true"], [ARM]),
        (["budget=7M"], [ARM]),
        (["label=*"], []),
    ],
)
def test_what_a_filter_leaves(words: list[str], left: list[Case]) -> None:
    assert [*filter(select.filter_for(words), [PVH, ARM, MAPPED])] == left


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("protcol=pvh", "unknown filter 'protcol'; did you mean 'protocol'?"),
        ("protocol", "filter 'protocol' has no value; write it like protocol=pvh"),
        ("protocol=pvhh", "protocol: unknown value 'pvhh'; did you mean 'pvh'?"),
        ("offset=x", "offset: 'x' is neither a size nor an address"),
        ("unsafe=1", "unsafe: must be true or false, not the text '1'"),
        ("budget=x", "budget: must be instructions like 2G, or 60s, not the text 'x'"),
    ],
)
def test_what_is_no_filter(word: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        select.filter_for([word])
    assert str(caught.value).startswith(said)


def test_costs_are_measured_or_estimated() -> None:
    refused = Case("x86_64", "k", "elf", "pvh", 0, expect=Expectation(Verdict.LOAD_REFUSED))
    assert select.cost(PVH, {PVH.id: 12}) == 12
    assert select.cost(PVH, {}) == select.BOOT_COST
    assert select.cost(refused, {}) == select.REFUSAL_COST < select.BOOT_COST / 10
    assert select.cost(replace(PVH, profile="fast"), {}) == select.FAST_COST < select.BOOT_COST


def test_costs_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text("{}")
    with pytest.raises(UserError, match="no results that can be read"):
        select.read_costs(path)
