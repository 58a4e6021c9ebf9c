"""The history of a matrix as text and as a page of its own, a trend picture for each case."""

from __future__ import annotations

from typing import Final

from bootproof.dataclass import dataclass
from bootproof.harness.report import page
from bootproof.harness.report.failure import mark, said
from bootproof.harness.results.history import History, Point, Trend
from bootproof.loader.address import counted

_WIDTH, _HEIGHT, _MARGIN = 600.0, 64.0, 8.0
_FLAT: Final = 0.002  # a range smaller than this part of the count is drawn as flat as it is
_LEVELS: Final = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Dot:
    """A run in the picture."""

    point: Point
    x: float
    y: float | None  # None without an instruction count


@dataclass(frozen=True, slots=True)
class Picture:
    """A case's trend: dots, and lines between those that may be compared."""

    trend: Trend
    dots: tuple[Dot, ...]
    lines: tuple[str, ...]
    lowest: int | None
    highest: int | None


def render(history: History) -> str:
    """The page."""
    template = page.environment().get_template("history.html.j2")
    style = (page.TEMPLATES / "report.css").read_text("utf-8")
    pictures = [_picture(trend, history.runs) for trend in history.trends]
    return template.render(history=history, pictures=pictures, style=style, w=_WIDTH, h=_HEIGHT)


def text(history: History) -> str:
    """A line for each case: its counts as a row of bars, the last verdict, the change."""
    width = max((len(trend.case) for trend in history.trends), default=0)
    lines = [f"{counted(len(history.runs), 'run')} from {history.runs[0]} to {history.runs[-1]}"]
    for trend in history.trends:
        last = trend.points[-1]
        change = "" if trend.change is None else f"{trend.change:+.2%}"
        end = "ok" if last.as_expected else said(last.outcome).upper()
        words = (f"{trend.case:<{width}}", _spark(trend), last.verdict, change, end)
        lines.append(" ".join(filter(None, words)))
    return "\n".join(lines) + "\n"


def _spark(trend: Trend) -> str:
    """One sign a run: ✗ is not as expected, ? cannot be told, · has no count."""
    low, high = _range(trend)
    signs = []
    for point in trend.points:
        if not point.as_expected:
            signs.append(mark(point.outcome))
        elif point.instructions is None:
            signs.append("·")
        else:
            part = (point.instructions - low) / (high - low)
            signs.append(_LEVELS[min(len(_LEVELS) - 1, int(part * len(_LEVELS)))])
    return "".join(signs)


def _range(trend: Trend) -> tuple[float, float]:
    """What the picture spans: wider than the counts, so that noise of a ppm looks like none."""
    counts = [p.instructions for p in trend.points if p.instructions is not None] or [0]
    low, high = min(counts), max(counts)
    room = max(0.0, high * _FLAT - (high - low)) / 2 or 0.5
    return low - room, high + room


def _picture(trend: Trend, runs: tuple[str, ...]) -> Picture:
    low, high = _range(trend)
    step = (_WIDTH - 2 * _MARGIN) / max(1, len(runs) - 1)
    dots = []
    for point in trend.points:
        y = None
        if point.instructions is not None:
            y = (
                _HEIGHT
                - _MARGIN
                - (point.instructions - low) / (high - low) * (_HEIGHT - 2 * _MARGIN)
            )
        x = _MARGIN + runs.index(point.started) * step
        dots.append(Dot(point, round(x, 1), None if y is None else round(y, 1)))
    counts = [p.instructions for p in trend.points if p.instructions is not None]
    lowest, highest = (min(counts), max(counts)) if counts else (None, None)
    return Picture(trend, tuple(dots), tuple(_lines(dots)), lowest, highest)


def _lines(dots: list[Dot]) -> list[str]:
    """Polylines, broken where the surroundings changed."""
    lines: list[list[str]] = [[]]
    for dot in dots:
        if dot.point.broken:
            lines.append([])
        if dot.y is not None:
            lines[-1].append(f"{dot.x},{dot.y}")
    return [" ".join(line) for line in lines if len(line) > 1]
