"""Writing SVG: elements that escape by construction, scales with round ticks.

Drawings have no viewBox: x is given in percent and y in pixels, so text keeps its size and a chart
fills a phone as well as a desk screen. Colours come from CSS classes, hence follow light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from rft_ilab.report.wording import visible


def tag(name: str, *children: str, **attributes: str | float) -> Markup:
    """One element. Text and attribute values are made visible and escaped; a trailing ``_`` is cut.

    >>> tag("text", "a<b", class_="tick", text_anchor="end", x=1.25)
    Markup('<text class="tick" text-anchor="end" x="1.25">a&lt;b</text>')
    """
    shown = "".join(f' {key.rstrip("_").replace("_", "-")}="{_value(value)}"' for key, value in attributes.items())
    inner = "".join(child if isinstance(child, Markup) else escape(visible(child)) for child in children)
    return Markup(f"<{name}{shown}>{inner}</{name}>")


def _value(value: str | float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else escape(visible(str(value)))


def drawing(*children: str, title: str, desc: str, key: str, height: int, class_: str = "plot") -> Markup:
    """A full-width SVG that a screen reader announces by ``title`` and ``desc``; ``key`` is unique in the page."""
    return tag(
        "svg",
        tag("title", title, id=f"{key}-t"),
        tag("desc", desc, id=f"{key}-d"),
        *children,
        class_=class_,
        width="100%",
        height=height,
        role="img",
        aria_labelledby=f"{key}-t {key}-d",
    )


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values from [low, high] to percent of the width, or to pixels with :meth:`down`."""

    low: float
    high: float

    def fraction(self, value: float) -> float:
        """0 at ``low``, 1 at ``high``; values outside are clamped to the frame."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def across(self, value: float) -> str:
        return f"{100 * self.fraction(value):.2f}%"

    def down(self, value: float, height: float) -> float:
        """Pixels from the top."""
        return height * (1 - self.fraction(value))


def round_step(span: float, wanted: int) -> float:
    """A step of 1, 2 or 5 times a power of ten that gives about ``wanted`` ticks.

    >>> round_step(100, 5), round_step(0.8, 4)
    (20.0, 0.2)
    """
    power = float(10.0 ** math.floor(math.log10(span / wanted)))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= span / wanted * 0.999)


def round_scale(values: Sequence[float], *, wanted: int = 4, zero: bool = True) -> tuple[Scale, list[float]]:
    """A scale with round ends around the values (and zero), with its ticks."""
    low, high = min([*values, *([0.0] if zero else [])]), max([*values, *([0.0] if zero else [])])
    if high - low < 1e-9:
        high = low + 1.0
    step = round_step(high - low, wanted)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [round(i * step, 10) + 0.0 for i in range(first, last + 1)]
    return Scale(ticks[0], ticks[-1]), ticks
