"""A comparison on a terminal."""

from __future__ import annotations

import re
from dataclasses import replace

from bootproof.harness.report.comparison import render
from tests.builders.comparisons import BAD, GOOD, comparison


def test_report_names_what_is_unexplained() -> None:
    text = render(comparison(BAD, GOOD))
    assert "UNEXPLAINED" in text
    assert re.search(r"parameters +cmdline +console=ttyS0 quietly +console=ttyS0", text)
    assert "✗ 1 of 2 differences are unexplained" in text
    assert "\x1b" not in text  # no terminal, no colours


def test_report_of_what_is_explained() -> None:
    text = render(comparison(GOOD))
    assert "UNEXPLAINED" not in text
    assert re.search(r"registers at the entry +place +1 +rbx", text)
    assert "✓ 1 difference, none unexplained" in text
    assert re.search(r"guest instructions +1,000,000 +1,000,000", text)
    assert re.search(r"guest instructions to: first-output +900,000 +900,000", text)
    assert re.search(r"guest seconds to: banner +0.000 +0.000", text)
    assert "instructions to: banner" not in text


def test_a_boot_that_says_nothing_of_its_guest_is_compared_with_nothing() -> None:
    """What is lacking in it would be differences, and "a bug, or not yet known"."""
    known = comparison(BAD, GOOD)
    text = render(replace(known, reference=replace(known.reference, verdict="qemu-failed")))
    assert "✗ not compared: one of the boots says nothing of its guest, see the verdicts" in text
    assert re.search(r"verdict +booted +qemu-failed", text)
    assert "UNEXPLAINED" not in text and "known differences" not in text
