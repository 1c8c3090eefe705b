"""The charts of the HTML report, each a small function from numbers to one inline SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from rft_ilab.report import wording
from rft_ilab.report.gate_data import Interval
from rft_ilab.report.svg import Scale, drawing, round_scale, tag

ROW_PX = 30
AXIS_PX = 20
NAMED_AXIS_PX = 38
MOST_POINTS = 300
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Series:
    """One line (or, with ``dots``, separate marks) of a chart; ``style`` is a CSS class."""

    name: str
    points: Points
    style: str
    dots: bool = False


def interval_scale(intervals: Sequence[Interval], margins: Sequence[float] = ()) -> tuple[Scale, list[float]]:
    """One scale in points for all rows of a forest plot: every interval, every margin, and zero."""
    ends = [100 * end for ci in intervals for end in ci] + [-100 * margin for margin in margins]
    if margins:  # room on both sides of the margin, and for a gain as visible as a loss
        ends += [-120 * max(margins), 60 * max(margins)]
    return round_scale(ends, wanted=6)


def interval_row(
    name: str,
    delta: float,
    ci: Interval,
    scale: Scale,
    key: str,
    margin: float | None = None,
    style: str = "after",
    *,
    both_sides: bool = False,
) -> Markup:
    """One row of a forest plot: zero line, margin mark (above zero, too, if ``both_sides``), interval and estimate."""
    mid = ROW_PX / 2
    low, high = (scale.across(100 * end) for end in ci)
    parts = [tag("line", x1=scale.across(0), x2=scale.across(0), y1=0, y2=ROW_PX, class_="zero")]
    desc = wording.difference(delta, ci)
    if margin is not None:
        for at in [scale.across(100 * side * margin) for side in ((-1, 1) if both_sides else (-1,))]:
            parts.append(tag("line", x1=at, x2=at, y1=0, y2=ROW_PX, class_="margin"))
        desc += f"; margin {wording.points(-margin)} points"
    parts.append(tag("line", x1=low, x2=high, y1=mid, y2=mid, class_=f"whisker {style}"))
    for end in (low, high):
        parts.append(tag("line", x1=end, x2=end, y1=mid - 4, y2=mid + 4, class_=f"whisker {style}"))
    parts.append(tag("circle", cx=scale.across(100 * delta), cy=mid, r=4.5, class_=f"dot {style}"))
    return drawing(*parts, title=f"{name}: difference with its interval", desc=desc, key=key, height=ROW_PX)


def interval_axis(scale: Scale, ticks: Sequence[float], *, named: bool = False) -> Markup:
    """The axis below a forest plot, ``named``: with its unit and which way is better.

    Hidden from screen readers, which get numbers in every row.
    """
    labels = []
    for tick in ticks:
        at = scale.across(tick)
        labels.append(tag("line", x1=at, x2=at, y1=0, y2=4, class_="tickmark"))
        text = f"{tick:+g}".replace("-", "−") if tick else "0"
        labels.append(tag("text", text, x=at, y=16, class_="tick", text_anchor="middle"))
    if named:
        labels.append(tag("text", "points, better →", x="100%", y=33, class_="tick", text_anchor="end"))
        if scale.fraction(0) > 0.15:
            labels.append(tag("text", "← worse", x=0, y=33, class_="tick"))
    height = NAMED_AXIS_PX if named else AXIS_PX
    return tag("svg", *labels, class_="plot", width="100%", height=height, aria_hidden="true")


def before_after_dots(name: str, before: float | None, after: float | None, key: str) -> Markup:
    """From a hollow mark (before) to a full one (after), 0 to 100 %; empty if one of them was not measured."""
    if before is None or after is None:
        return Markup("")
    old, new = f"{100 * before:.2f}%", f"{100 * after:.2f}%"
    parts = [
        tag("line", x1=0, x2="100%", y1=11, y2=11, class_="rail"),
        tag("line", x1=old, x2=new, y1=11, y2=11, class_="whisker"),
        tag("circle", cx=old, cy=11, r=4.5, class_="dot hollow"),
        tag("circle", cx=new, cy=11, r=5, class_="dot after"),
    ]
    desc = f"before {wording.percent(before)}, after {wording.percent(after)}"
    return drawing(*parts, title=f"{name}: right answers", desc=desc, key=key, height=22)


def percent_axis() -> Markup:
    """Below :func:`before_after_dots`. Hidden from screen readers, which get numbers in every row."""
    labels = []
    for tick, anchor in ((0, "start"), (50, "middle"), (100, "end")):
        labels.append(tag("text", f"{tick}%", x=f"{tick}%", y=12, class_="tick", text_anchor=anchor))
    return tag("svg", *labels, class_="plot", width="100%", height=15, aria_hidden="true")


def before_after_bars(name: str, before: float, after: float, key: str) -> Markup:
    """Two bars of accuracy from 0 to 100 %: before above, after below."""
    parts = [tag("rect", x=0, y=2, width="100%", height=20, class_="track")]
    for y, value, style in ((3, before, "before"), (13, after, "after")):
        # a bar of zero still gets a hairline, so that it reads as measured and not as missing
        parts.append(tag("rect", x=0, y=y, width=f"{max(100 * value, 0.4):.2f}%", height=8, class_=f"bar {style}"))
    desc = f"before {wording.percent(before)}, after {wording.percent(after)}"
    return drawing(*parts, title=f"{name}: accuracy", desc=desc, key=key, height=24)


def share_bar(parts: Sequence[tuple[str, float, str]], title: str, key: str) -> Markup:
    """One bar split by share; ``parts`` are (name, size, CSS class). Empty parts are left out."""
    total = sum(n for _, n, _ in parts) or 1.0
    drawn, left = [], 0.0
    for _, n, style in parts:
        if n:
            x, width = (f"{100 * value / total:.2f}%" for value in (left, n))
            drawn.append(tag("rect", x=x, y=0, width=width, height=16, class_=style))
            left += n
    desc = ", ".join(f"{name}: {wording.percent(n / total)}" for name, n, _ in parts)
    return drawing(*drawn, title=title, desc=desc, key=key, height=16, class_="plot share")


def thin(points: Points, most: int = MOST_POINTS) -> Points:
    """At most ``most`` points: means over neighbouring steps where there are more.

    >>> thin([(1, 0.0), (2, 1.0), (3, 2.0), (4, 3.0)], most=2)
    [(1.5, 0.5), (3.5, 2.5)]
    """
    if len(points) <= most:
        return points
    size = -(-len(points) // most)
    blocks = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in b) / len(b), sum(y for _, y in b) / len(b)) for b in blocks]


def line_chart(
    title: str,
    series: Sequence[Series],
    key: str,
    *,
    show: Callable[[float], str],
    scale: tuple[Scale, list[float]] | None = None,
    height: int = 190,
    mark: tuple[float, str] | None = None,
    unit: str = "",
) -> Markup:
    """Lines and dots over training steps; ``show`` writes a y value, ``mark`` is a labelled step, ``unit`` that of y.

    Empty series are skipped; returns an empty string when nothing is left to draw.
    """
    drawn = [s for s in series if s.points]
    if not drawn:
        return Markup("")
    y_scale, y_ticks = scale or round_scale([y for s in drawn for _, y in s.points], wanted=3)
    steps = [x for s in drawn for x, _ in s.points]
    x_scale = Scale(0.0, max(*steps, 1.0))
    x_ticks = [tick for tick in round_scale(steps, wanted=4)[1] if tick <= x_scale.high]
    parts = []
    for tick in y_ticks:
        y = y_scale.down(tick, height)
        parts.append(tag("line", x1=0, x2="100%", y1=y, y2=y, class_="grid"))
        parts.append(tag("text", show(tick), x=-8, y=y + 4, class_="tick", text_anchor="end"))
    for tick in x_ticks:
        at, last = x_scale.across(tick), tick == x_ticks[-1]
        text = f"step {tick:g}" if last else f"{tick:g}"
        parts.append(tag("text", text, x=at, y=height + 17, class_="tick", text_anchor="end" if last else "middle"))
    if unit:
        parts.append(tag("text", unit, x=0, y=-12, dx=-36, class_="tick"))
    if mark is not None:
        at = x_scale.across(mark[0])
        end = "end" if x_scale.fraction(mark[0]) > 0.5 else "start"
        parts.append(tag("line", x1=at, x2=at, y1=0, y2=height, class_="chosen"))
        parts.append(tag("text", mark[1], x=at, y=-6, class_="tick", text_anchor=end))
    for s in drawn:
        if s.dots:
            parts += [
                tag("circle", cx=x_scale.across(x), cy=y_scale.down(y, height), r=4, class_=f"dot {s.style}")
                for x, y in s.points
            ]
        else:
            parts.append(polyline(s.points, s.style, x_scale, y_scale, height))
    desc = ". ".join(_in_words(s, show, unit) for s in drawn)
    return drawing(*parts, title=title, desc=desc, key=key, height=height, class_="plot chart")


def _in_words(s: Series, show: Callable[[float], str], unit: str) -> str:
    (x0, y0), (x1, y1) = s.points[0], s.points[-1]
    low, high = min(y for _, y in s.points), max(y for _, y in s.points)
    of = f" {unit}" if unit else ""
    return (
        f"{s.name}: from {show(y0)}{of} at step {x0:g} to {show(y1)} at step {x1:g}; "
        f"lowest {show(low)}, highest {show(high)}"
    )


def polyline(line: Points, style: str, x_scale: Scale, y_scale: Scale, height: int) -> Markup:
    """A line in a stretched inner frame, as ``points`` takes no percent; its stroke is not stretched."""
    points = " ".join(f"{1000 * x_scale.fraction(x):.1f},{y_scale.down(y, height):.1f}" for x, y in thin(line))
    drawn = tag("polyline", points=points, class_=f"line {style}", vector_effect="non-scaling-stroke")
    box = f"0 0 1000 {height}"
    return tag("svg", drawn, viewBox=box, preserveAspectRatio="none", width="100%", height=height, class_="frame")
