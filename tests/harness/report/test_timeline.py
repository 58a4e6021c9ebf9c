"""A boot's stages on the scale of a reference's."""

from __future__ import annotations

import pytest

from bootproof.harness.report import timeline
from tests.builders import results as builder


def test_time_line_adds_up() -> None:
    found = timeline.timeline(builder.case(), None)
    assert found is not None
    assert [step.name for step in found.steps] == ["entry", "banner", "memory", "proof", "end"]
    assert sum(step.cost for step in found.steps) == found.total == 1_300_000_000
    assert found.steps[-1].left + found.steps[-1].width == pytest.approx(100, abs=0.01)
    assert timeline.timeline(builder.case(stages=()), None) is None
    assert timeline.timeline(builder.case(instructions=None), None) is None


def test_time_line_with_a_reference() -> None:
    before = builder.case(instructions=650_000_000, stages=builder.STAGES[:2])
    found = timeline.timeline(builder.case(), before)
    assert found is not None
    assert (found.reference, found.steps[1].reference, found.steps[1].change) == (
        *(650_000_000, 400_000_000, 0.0),
    )
    assert found.reference_steps[-1].left + found.reference_steps[-1].width == pytest.approx(50)


def test_a_stage_has_one_colour_and_no_other_has_it() -> None:
    """Also where one of the boots lacks a stage."""
    before = builder.case(stages=builder.STAGES[1:])
    found = timeline.timeline(builder.case(), before)
    assert found is not None
    colours = {step.name: step.colour for step in found.steps}
    assert len(set(colours.values())) == len(colours)
    assert all(colours[step.name] == step.colour for step in found.reference_steps)
