"""The frontier of the chosen checkpoint: what more or less of the adapter gains on the target and costs elsewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from rft_ilab.report import wording
from rft_ilab.report.charts import polyline
from rft_ilab.report.data import Checkpoint, Selection
from rft_ilab.report.svg import Scale, drawing, round_scale, tag

HEIGHT = 130
MOST_LINES = 12
PATTERNS = 4  # dash patterns of report.css, .w0 to .w3


@dataclass(frozen=True, slots=True)
class Line:
    """Differences to the base in points, by adapter scale; ``style`` are CSS classes."""

    name: str
    points: Sequence[tuple[float, float]]
    style: str

    @property
    def key(self) -> Markup:
        """A piece of the line for the legend."""
        stroke = tag("line", x1=0, x2=28, y1=5, y2=5, class_=f"line {self.style}")
        return tag("svg", stroke, class_="swatch", width=28, height=10, aria_hidden="true")


@dataclass(frozen=True, slots=True)
class Frontier:
    """What the template shows; ``lines`` are those of watched skills, ``rows`` the measured points, base first.

    Target and watched skills are drawn apart: on one scale, a loss that matters could not be seen beside the gain.
    """

    checkpoint: str
    target: Markup
    watched: Markup
    lines: Sequence[Line]
    rows: Sequence[Checkpoint]
    names: Sequence[str]
    allowed: Sequence[float]
    sentence: str


def build(selection: Selection | None) -> Frontier | None:
    """The chart of a frontier of at least two points; None without one."""
    if selection is None or len(selection.frontier) < 2 or selection.frontier[0].val is None:
        return None
    base, rows = selection.frontier[0], selection.frontier
    names = sorted(name for name in base.watched)[:MOST_LINES]
    target = [(c.scale or 0.0, 100 * (c.val - (base.val or 0.0))) for c in rows if c.val is not None]
    lines = []
    for i, name in enumerate(names):
        moved = [(c.scale or 0.0, 100 * (c.watched[name] - base.watched[name])) for c in rows if name in c.watched]
        lines.append(Line(name, moved, f"before w{i % PATTERNS}"))
    allowed = sorted({selection.allowed_loss[name] for name in names if name in selection.allowed_loss})
    scale = selection.point.scale if selection.point else None
    return Frontier(
        checkpoint=rows[-1].name,
        target=_draw("Target by adapter scale", "frontier-target", [Line("target", target, "after")], (), scale),
        watched=_draw("Watched skills by adapter scale", "frontier-watched", lines, allowed, scale),
        lines=lines,
        rows=rows,
        names=names,
        allowed=allowed,
        sentence=chosen_sentence(selection),
    )


def chosen_sentence(selection: Selection) -> str:
    """Which weights were kept, and what they gain and cost on validation, in one line; empty for older runs.

    The gain is in greedy accuracy against the base with the same prompt (the gate's baseline may be better).
    """
    point = selection.point
    if point is None or point.val is None or selection.frontier[0].val is None:
        return ""
    base = selection.frontier[0]
    gain = wording.points(point.val - (base.val or 0.0))
    moves = [point.watched[name] - base.watched[name] for name in base.watched if name in point.watched]
    rest = f", other skills {wording.points(min(moves))} at worst" if moves else ""
    return f"{kept_weights(selection)}; on validation tasks the target {gain} points{rest}"


def kept_weights(selection: Selection) -> str:
    """Which weights were chosen, for people: after which step, and with how much of the adapter."""
    if not selection.scale:
        return "the base model, unchanged"
    step = re.fullmatch(r"step-(\d+)", selection.chosen)
    name = f"weights after GRPO step {step[1]}" if step else selection.chosen
    name = "weights after the warm start" if selection.chosen == "sft" else name
    return name if selection.scale == 1 else f"{name}, with {selection.scale:g} of what training changed"


def _draw(title: str, key: str, lines: Sequence[Line], allowed: Sequence[float], chosen: float | None) -> Markup:
    """Points against scale, the ``chosen`` one marked. A margin is a loss, so it is drawn below zero."""
    if not lines:
        return Markup("")
    floors = [-100 * loss for loss in allowed]
    y_scale, y_ticks = round_scale([*(y for line in lines for _, y in line.points), *floors], wanted=4)
    x_scale = Scale(0.0, 1.0)
    parts = []
    for tick in y_ticks:
        y = y_scale.down(tick, HEIGHT)
        parts.append(tag("line", x1=0, x2="100%", y1=y, y2=y, class_="grid" if tick else "zero"))
        text = f"{tick:+g}".replace("-", "−") if tick else "0"
        parts.append(tag("text", text, x=-8, y=y + 4, class_="tick", text_anchor="end"))
    parts.append(tag("text", "points", x=0, y=-12, dx=-36, class_="tick"))
    for scale, anchor in ((0.0, "start"), (0.25, "middle"), (0.5, "middle"), (0.75, "middle"), (1.0, "end")):
        text = {0.0: "0, the base", 1.0: "1, all of it"}.get(scale, f"{scale:g}")
        at = x_scale.across(scale)
        parts.append(tag("text", text, x=at, y=HEIGHT + 17, class_="tick", text_anchor=anchor))
    for floor in floors:
        y = y_scale.down(floor, HEIGHT)
        parts.append(tag("line", x1=0, x2="100%", y1=y, y2=y, class_="margin"))
    parts += [polyline(line.points, line.style, x_scale, y_scale, HEIGHT) for line in lines]
    words = [_in_words(line) for line in lines]
    words += [f"largest loss allowed: {loss * 100:.1f} points" for loss in allowed]
    if chosen is not None:
        x, anchor = x_scale.across(chosen), "end" if chosen > 0.5 else "start"
        parts.append(tag("line", x1=x, x2=x, y1=0, y2=HEIGHT, class_="chosen"))
        parts.append(tag("text", "chosen", x=x, y=-6, class_="tick", text_anchor=anchor))
        for line in lines:
            for y in (y for at, y in line.points if at == chosen):
                mark = f"dot {line.style.split()[0]}"
                parts.append(tag("circle", cx=x, cy=y_scale.down(y, HEIGHT), r=4, class_=mark))
        words.append(f"chosen: scale {chosen:g}")
    return drawing(*parts, title=title, desc=". ".join(words), key=key, height=HEIGHT, class_="plot chart")


def _in_words(line: Line) -> str:
    return f"{line.name[:60]}: " + ", ".join(f"{y:+.1f} points at scale {x:g}" for x, y in line.points)
