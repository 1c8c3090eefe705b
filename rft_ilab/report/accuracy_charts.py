"""Charts of accuracies from 0 to 100 %: a dot with its interval, and a line of them over commits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from rft_ilab.report import wording
from rft_ilab.report.charts import AXIS_PX, ROW_PX, polyline
from rft_ilab.report.gate_data import Interval
from rft_ilab.report.svg import Scale, drawing, tag
from rft_ilab.types import Outcome

SHARE = Scale(0.0, 1.0)
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
MOST_NAMES = 5  # below a chart, so that they do not overlap on a phone


def accuracy_row(name: str, score: float, ci: Interval, key: str, *, filled: bool) -> Markup:
    """One model's accuracy; its dot is hollow unless ``filled``, so that colour is never needed."""
    mid, style = ROW_PX / 2, "after" if filled else "before"
    low, high = (SHARE.across(end) for end in ci)
    parts = [
        tag("line", x1=SHARE.across(tick), x2=SHARE.across(tick), y1=0, y2=ROW_PX, class_="grid") for tick in TICKS
    ]
    parts.append(tag("line", x1=low, x2=high, y1=mid, y2=mid, class_=f"whisker {style}"))
    for end in (low, high):
        parts.append(tag("line", x1=end, x2=end, y1=mid - 4, y2=mid + 4, class_=f"whisker {style}"))
    parts.append(tag("circle", cx=SHARE.across(score), cy=mid, r=4.5, class_="dot after" if filled else "dot hollow"))
    desc = f"{wording.percent(score)} {wording.interval(ci)}"
    return drawing(*parts, title=f"{name}: accuracy with its interval", desc=desc, key=key, height=ROW_PX)


def accuracy_axis() -> Markup:
    """The axis below such rows. Hidden from screen readers, which get numbers in every row."""
    labels = []
    for tick in TICKS:
        at = SHARE.across(tick)
        labels.append(tag("line", x1=at, x2=at, y1=0, y2=4, class_="tickmark"))
        labels.append(tag("text", f"{tick:.0%}", x=at, y=16, class_="tick", text_anchor="middle"))
    return tag("svg", *labels, class_="plot", width="100%", height=AXIS_PX, aria_hidden="true")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One verdict on one skill: accuracies, and where the candidate's may lie by the paired difference ``ci``.

    ``floor`` is the accuracy that the interval has to stay above, None for a target (it has to beat ``before``)."""

    before: float
    after: float
    ci: Interval
    floor: float | None
    outcome: Outcome
    name: str


def trend_chart(
    skill: str, points: Sequence[Judged | None], names: Sequence[str], key: str, height: int = 170
) -> Markup:
    """Candidates from left to right in the order of their commits, each with interval, baseline and bar to clear.

    None keeps a place free, which still has its name. PASS is a disc, FAIL a cross, INCONCLUSIVE a ring: shapes, not
    colours alone.
    """
    shown = [(i, p) for i, p in enumerate(points) if p is not None]
    if not shown:
        return Markup("")
    across = Scale(-0.5, len(points) - 0.5)
    parts = []
    for tick in TICKS:
        y = SHARE.down(tick, height)
        parts.append(tag("line", x1=0, x2="100%", y1=y, y2=y, class_="grid"))
        parts.append(tag("text", f"{tick:.0%}", x=-8, y=y + 4, class_="tick", text_anchor="end"))
    apart = -(-len(names) // MOST_NAMES)
    for i in range(len(names) - 1, -1, -apart):
        parts.append(tag("text", names[i], x=across.across(i), y=height + 17, class_="tick", text_anchor="middle"))
    half = min(0.3, 0.3 * len(points) / 6)
    for i, p in shown:
        left, right = across.across(i - half), across.across(i + half)
        y = SHARE.down(p.before, height)
        parts.append(tag("line", x1=left, x2=right, y1=y, y2=y, class_="line before"))
        if p.floor is not None:
            y = SHARE.down(p.floor, height)
            parts.append(tag("line", x1=left, x2=right, y1=y, y2=y, class_="margin"))
    parts.append(polyline([(i, p.after) for i, p in shown], "trend", across, SHARE, height))
    for i, p in shown:
        x = across.across(i)
        low, high = (SHARE.down(min(max(p.before + end, 0.0), 1.0), height) for end in p.ci)
        parts.append(tag("line", x1=x, x2=x, y1=low, y2=high, class_=f"whisker {p.outcome}"))
        parts.append(_mark(x, SHARE.down(p.after, height), p.outcome))
    desc = "; ".join(
        f"{p.name}: {p.outcome}, {wording.percent(p.before)} before, {wording.percent(p.after)} after"
        for _, p in shown[-12:]
    )
    rest = f"The last 12 of {len(shown)}. " if len(shown) > 12 else ""
    return drawing(*parts, title=f"{skill}: accuracy by commit", desc=rest + desc, key=key, height=height)


def key_mark(outcome: Outcome) -> Markup:
    """The mark of an outcome, for a legend."""
    return tag("svg", _mark("6", 6, outcome), width=12, height=12, class_="key", aria_hidden="true")


def _mark(x: str, y: float, outcome: Outcome) -> Markup:
    if outcome != "FAIL":
        return tag("circle", cx=x, cy=y, r=5, class_="mark PASS" if outcome == "PASS" else "mark ring")
    # Percent and pixels do not mix in a path, so the cross is drawn around the origin of an inner drawing.
    arms = [tag("line", x1=-5, x2=5, y1=-5 * s, y2=5 * s, class_="mark cross") for s in (1, -1)]
    return tag("svg", *arms, x=x, y=y, class_="frame")
