"""report.html: a matrix run on one page that opens from disk and asks the network for nothing.

Makes the page's view of the results and renders it. What it says without a script: how every case
ended and why, and all of the first failures; the rest of a case is unpacked when it is opened
(bootproof.harness.report.details). Everything in the results may come from a hostile guest: the
templates escape all of it, packed text is base64, and the page's own policy allows no script but
the one that is in it.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import jinja2

from bootproof.dataclass import dataclass
from bootproof.harness.report import details, failure, picture, timeline
from bootproof.harness.report.failure import mark, said
from bootproof.harness.report.grid import Cell, by_size, grids
from bootproof.harness.results.results import CaseResult, Results
from bootproof.harness.results.roles import Earlier
from bootproof.harness.text import duration
from bootproof.loader.address import counted

TEMPLATES: Final = Path(__file__).parent / "templates"


_QEMUS_OWN: Final = "QEMU's own -kernel with the same kernel, initrd and command line"


_PIECES: Final = 100  # of a template, that are written at once
_SHOWN_WITHOUT_SCRIPT: Final = 20  # failures whose details stand in the page as they are


@dataclass(frozen=True, slots=True)
class View:
    """A case, or its cell in a table, as it is drawn."""

    case: CaseResult | Cell
    # Its details where they stand in the page itself; the block that has the case, its place there.
    body: str | None = None
    place: tuple[int, int] = (0, 0)

    @property
    def state(self) -> str:
        """What the eye is to see: `bad`, `booted`, or `failed` as it was expected to."""
        if not self.case.as_expected:
            return "bad"
        return "booted" if self.case.passed else "failed"

    @property
    def said(self) -> str:
        """What is wrong with it, for those who do not see the colour."""
        return said(self.case.outcome) if self.case.bad else ""

    @property
    def mark(self) -> str:
        return mark(self.case.outcome) if self.state == "bad" else "✓"


@dataclass(frozen=True, slots=True)
class Group:
    """Failures that are alike."""

    problem: str  # of the first of them
    views: Sequence[View]


def render(results: Results, baseline: Results | None = None) -> str:
    """The page; `baseline` is an earlier run whose stages are drawn beside these."""
    return "".join(parts(results, baseline))


def parts(results: Results, baseline: Results | None = None) -> Iterator[str]:
    """The page as `render` gives it, piece by piece, and never more than some cases of it."""
    earlier = Earlier(baseline.cases if baseline else ())
    body = functools.partial(_body, results, baseline, earlier)
    bad = [number for number, case in enumerate(results.cases) if case.bad]
    places = dict(zip((case.case for case in results.unexpected), bad, strict=True))
    alike = [
        cases
        for group in failure.alike(results.unexpected)
        if (cases := [case for case in group if isinstance(case, CaseResult)])
    ]
    whole = {case.case: body(case) for group in alike[:_SHOWN_WITHOUT_SCRIPT] for case in group[:1]}
    packed = details.packed(results.cases, lambda case: "" if case.case in whole else body(case))

    def view(case: CaseResult, number: int) -> View:
        return View(case, whole.get(case.case), packed.places[number])

    groups = [
        Group(g[0].problem or "", [view(case, places[case.case]) for case in g]) for g in alike
    ]
    good = _ordered(results.cases, bad)
    views = (view(results.cases[number], number) for number in good)
    return _rendered(results, groups=groups, views=views, blocks=packed.blocks)


def _rendered(results: Results, **shown: Any) -> Iterator[str]:
    script = (TEMPLATES / "report.js").read_text("utf-8")
    made = (
        environment()
        .get_template("report.html.j2")
        .stream(
            results=results,
            checks=failure.alike(results.bad_checks),
            view_of=View,
            grids=grids(results.cases),
            verdicts=sorted({case.verdict for case in results.cases}),
            qemus=sorted({case.key.qemu for case in results.cases if case.key}),
            script=script,
            script_hash=policy_hash(script),
            style=(TEMPLATES / "report.css").read_text("utf-8"),
            **shown,
        )
    )
    made.enable_buffering(_PIECES)
    return iter(made)


def _body(
    results: Results,
    baseline: Results | None,
    before: Earlier,
    case: CaseResult,
) -> str:
    """The details of a case as HTML, beside the run before, where the two can be compared, else
    beside the reference.
    """
    earlier = before.of(case)
    comparable = (
        earlier is not None
        and earlier.key is not None
        and case.key is not None
        and not any(case.key.other_surroundings(earlier.key))
    )
    reference = earlier if comparable else results.references.get(case.case)
    return (
        environment()
        .get_template("case.html.j2")
        .render(
            case=case,
            bars=picture.bars(case.memory) if case.memory else (),
            line=timeline.timeline(case, reference),
            beside=None if comparable else _QEMUS_OWN,
            reference=baseline.started if baseline else None,
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
        "counted": counted,
        "count": lambda value: f"{value:,}",
        "millions": _millions,
        "percent": lambda ratio: f"{ratio:+.2%}",
        "hex": lambda value: f"{value:#x}",
        "duration": duration,
        "said": said,
        "mark": mark,
    }
    made.filters.update(filters)
    return made


def _ordered(cases: Sequence[CaseResult], without: Sequence[int]) -> list[int]:
    """The numbers of the others, by architecture, claim and kernel."""
    left_out = set(without)
    order = details.order_of(cases, lambda c: (c.arch, by_size(c.claim), c.kernel.name))
    return [number for number in order if number not in left_out]


def _millions(value: int) -> str:
    return f"{value / 1e6:,.1f} M" if value >= 100_000 else f"{value:,}"
