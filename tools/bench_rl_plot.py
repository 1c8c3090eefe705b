"""Reward against processor time of both sides in one drawing, and the numbers of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rft_ilab.report.svg import Scale, round_scale, tag
from rft_ilab.store import write_atomic, write_json

WIDTH, HEIGHT, LEFT, TOP, GAP = 720, 200, 60, 44, 66
COLOURS = {"ours": "#1f6feb", "TRL": "#bc4c00"}
# (cumulated processor seconds, reward) of every step.
Curve = Sequence[tuple[float, float]]


def curve(steps: Sequence[Mapping[str, Any]]) -> Curve:
    """
    >>> curve([{"cpu_s": 2.0, "reward": 0.5}, {"cpu_s": 1.0, "reward": 1.0}])
    [(2.0, 0.5), (3.0, 1.0)]
    """
    total, found = 0.0, []
    for step in steps:
        total += step["cpu_s"]
        found.append((total, step["reward"]))
    return found


def write_plot(file: Path, comparisons: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]) -> Path:
    """Draw every comparison, and write its numbers beside ``file`` as JSON; returns where those are.

    ``comparisons`` has, by its title, the steps of each side, first to last, with ``cpu_s`` and ``reward``.
    """
    numbers = file.with_suffix(".json")
    curves = {title: {side: curve(steps) for side, steps in sides.items()} for title, sides in comparisons.items()}
    rows = {
        title: {
            side: [{"step": i + 1, "cumulated_cpu_s": round(x, 3), "reward": y} for i, (x, y) in enumerate(points)]
            for side, points in sides.items()
        }
        for title, sides in curves.items()
    }
    write_json(numbers, rows)
    write_atomic(file, drawn(curves) + "\n")
    return numbers


def drawn(curves: Mapping[str, Mapping[str, Curve]]) -> str:
    """One panel a comparison, all with the same logarithmic axis of processor seconds."""
    seconds = [x for sides in curves.values() for points in sides.values() for x, _ in points]
    low, high = (math.log10(x) for x in (min(seconds), max(seconds)))
    across = Scale(math.floor(low * 4) / 4, max(math.ceil(high * 4) / 4, low + 0.5))
    parts = []
    for i, (title, sides) in enumerate(curves.items()):
        parts += _panel(title, sides, across, TOP + i * (HEIGHT + GAP))
    height = TOP + len(curves) * (HEIGHT + GAP)
    name = "Reward of every GRPO step against the processor seconds spent so far"
    return tag(
        "svg",
        tag("title", name),
        tag("rect", width="100%", height="100%", fill="#ffffff"),
        tag("text", name, x=LEFT, y=20, font_size=14, fill="#1f2328"),
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {height}",
        width=WIDTH,
        height=height,
        font_family="sans-serif",
        role="img",
    )


def _panel(title: str, sides: Mapping[str, Curve], across: Scale, top: float) -> list[str]:
    wide = WIDTH - LEFT - 20
    down, ticks = round_scale([y for points in sides.values() for _, y in points], wanted=3)

    def at(x: float, y: float) -> tuple[float, float]:
        return LEFT + wide * across.fraction(math.log10(x)), top + down.down(y, HEIGHT)

    parts: list[str] = [tag("text", title, x=LEFT, y=top - 6, font_size=12, fill="#1f2328")]
    for tick in ticks:
        y = top + down.down(tick, HEIGHT)
        parts.append(tag("line", x1=LEFT, x2=LEFT + wide, y1=y, y2=y, stroke="#d0d7de"))
        parts.append(_label(f"{tick:g}", LEFT - 6, y + 4, "end"))
    for seconds in _round_seconds(across):
        x, y = at(seconds, down.low)
        parts.append(tag("line", x1=x, x2=x, y1=y, y2=y + 4, stroke="#57606a"))
        parts.append(_label(f"{seconds:,g} s", x, y + 17, "middle"))
    for i, (side, points) in enumerate(sides.items()):
        colour = COLOURS.get(side, "#57606a")
        places = [at(x, y) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(tag("polyline", points=path, fill="none", stroke=colour, stroke_width=2))
        parts += [tag("circle", cx=x, cy=y, r=3, fill=colour) for x, y in places]
        parts.append(tag("text", side, x=LEFT + wide - 60 * i, y=top - 6, font_size=12, fill=colour, text_anchor="end"))
    return parts


def _label(text: str, x: float, y: float, anchor: str) -> str:
    return tag("text", text, x=x, y=y, font_size=11, fill="#57606a", text_anchor=anchor)


def _round_seconds(across: Scale) -> list[float]:
    """1, 2 and 5 times powers of ten within the axis; powers alone where that would be too many.

    >>> _round_seconds(Scale(0.0, 1.0)), _round_seconds(Scale(0.5, 4.0))
    ([1.0, 2.0, 5.0, 10.0], [10.0, 100.0, 1000.0, 10000.0])
    """
    factors = (1, 2, 5) if across.high - across.low <= 2.5 else (1,)
    powers = range(math.floor(across.low), math.ceil(across.high) + 1)
    return [f * 10.0**p for p in powers for f in factors if across.low <= math.log10(f * 10.0**p) <= across.high]
