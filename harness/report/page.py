"""report.html: a matrix run on one page that opens from disk and asks the network for nothing.

Makes the page's view of the results and renders it. Everything in the results may come from a
hostile guest: the template escapes all of it, transcripts travel as base64, and the page's own
policy allows no script but the one that is in it.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jinja2

from bootproof.harness.report import picture, timeline, transcripts
from bootproof.harness.report.grid import grids
from bootproof.harness.report.picture import Bar
from bootproof.harness.report.timeline import Timeline
from bootproof.harness.results.results import CaseResult, Reference, Results

TEMPLATES: Final = Path(__file__).parent / "templates"


_QEMUS_OWN: Final = "QEMU's own -kernel with the same kernel, initrd and command line"


@dataclass(frozen=True, slots=True)
class View:
    """A case with what is drawn of it."""

    case: CaseResult
    bars: Sequence[Bar]
    timeline: Timeline | None
    beside: str | None  # what the reference is, where it is not the run before

    @property
    def state(self) -> str:
        """What the eye is to see: `bad`, `booted`, or `failed` as it was expected to."""
        if not self.case.as_expected:
            return "bad"
        return "booted" if self.case.passed else "failed"

    @property
    def mark(self) -> str:
        return "✗" if self.state == "bad" else "✓"


def render(results: Results, baseline: Results | None = None) -> str:
    """The page; `baseline` is an earlier run whose stages are drawn beside these."""
    before = {case.case: case for case in baseline.cases} if baseline else {}
    views = [
        _view(case, before.get(case.case), results.references.get(case.case))
        for case in _ordered(results.cases)
    ]
    script = (TEMPLATES / "report.js").read_text()
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            results=results,
            views=views,
            view_of={view.case.case: view for view in views},
            grids=grids(results.cases),
            verdicts=sorted({case.verdict for case in results.cases}),
            qemus=sorted({case.key.qemu for case in results.cases if case.key}),
            transcripts=transcripts.packed(view.case for view in views),
            reference=baseline.started if baseline else None,
            script=script,
            script_hash=policy_hash(script),
            style=(TEMPLATES / "report.css").read_text(),
        )
    )


def policy_hash(script: str) -> str:
    """How a Content-Security-Policy names an inline script."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"'sha256-{digest}'"


@functools.cache
def environment() -> jinja2.Environment:
    """The templates of all pages."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: Mapping[str, Any] = {
        "amount": picture.amount,
        "count": lambda value: f"{value:,}",
        "millions": _millions,
        "percent": lambda ratio: f"{ratio:+.2%}",
        "hex": lambda value: f"{value:#x}",
        "duration": _duration,
    }
    made.filters.update(filters)
    return made


def _view(case: CaseResult, before: CaseResult | None, reference: Reference | None) -> View:
    """A case beside the run before, where the two can be compared, else beside the reference."""
    comparable = (
        before is not None
        and before.key is not None
        and case.key is not None
        and not any(case.key.other_surroundings(before.key))
    )
    return View(
        case,
        picture.bars(case.memory) if case.memory else (),
        timeline.timeline(case, before if comparable else reference),
        None if comparable else _QEMUS_OWN,
    )


def _ordered(cases: Sequence[CaseResult]) -> list[CaseResult]:
    """What needs a look first; then by architecture, claim and kernel."""
    return sorted(cases, key=lambda c: (c.as_expected, c.arch, c.claim, c.kernel.name))


def _millions(value: int) -> str:
    return f"{value / 1e6:,.1f} M" if value >= 100_000 else f"{value:,}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
