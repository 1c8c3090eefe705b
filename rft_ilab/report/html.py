"""The report as one self-contained HTML file: no script but its own, no request to anywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from rft_ilab.report import ledger, provenance, training, wording
from rft_ilab.report.brief import brief
from rft_ilab.report.charts import (
    before_after_bars,
    before_after_dots,
    interval_axis,
    interval_row,
    interval_scale,
    percent_axis,
)
from rft_ilab.report.data import RunReport
from rft_ilab.report.flips import worst_group_first
from rft_ilab.report.gate_data import Change, ClassResult, Flip, GateResult, Ungraded
from rft_ilab.report.page import LONG, asset, clip, content_policy, environment
from rft_ilab.report.passes import pass_rows
from rft_ilab.report.svg import Scale
from rft_ilab.store import write_atomic

# Bytes of the page are bounded by these, whatever the run holds: about 1.6 MB at the very worst.
MOST_FLIPS = 1000
FLIP_BYTES = 700_000
FLIP_FRAME_BYTES = 1100  # of one flip beside its texts
FIRST_FLIPS = 12
FIRST_SUITES = 8
MOST_CLASSES = 60
MOST_ROWS = 200


def write_html(report: RunReport, path: Path) -> None:
    """Write the whole report to ``path``, atomically. A run without verdict is rendered as far as it goes."""
    write_atomic(path, render_html(report))


def render_html(report: RunReport) -> str:
    """The report as HTML text; the same bytes for the same run."""
    style, script = Markup(asset("report.css")), Markup(asset("report.js"))
    pages = environment()
    pages.globals |= {"bars": before_after_bars, "dots": before_after_dots}
    gate = report.gate
    flip_skills = skills_of(() if gate is None else gate.flips, report.ungraded)
    return pages.get_template("report.html").render(
        report=report,
        gate=gate,
        style=style,
        script=script,
        policy=content_policy(style, script),
        answers=brief(report),
        percent_axis=percent_axis(),
        plots=None if gate is None else _plots(gate),
        classes={} if gate is None else {t.skill: largest_classes(t.classes) for t in wording.judged(gate)},
        flips=() if gate is None else shown_flips(gate.flips),
        passes=() if gate is None else pass_rows(gate),
        ungraded=report.ungraded,
        flip_skills=flip_skills,
        skill_numbers={name: number for number, name in enumerate(flip_skills)},
        training=training.build(report),
        ledger=ledger.rows(report),
        first_flips=FIRST_FLIPS,
        first_suites=FIRST_SUITES,
        most_rows=MOST_ROWS,
        provenance=provenance.rows(report)[:MOST_ROWS],
    )


def largest_classes(classes: Sequence[ClassResult]) -> Sequence[ClassResult]:
    return sorted(classes, key=lambda c: (-c.n, c.name))[:MOST_CLASSES]


def shown_flips(flips: Sequence[Flip]) -> Sequence[Flip]:
    """The flips that the page holds: broken ones, the worst group first, then a turn for each skill and class."""
    broken = worst_group_first([flip for flip in flips if flip.direction == "broken"])
    fixed = [flip for flip in flips if flip.direction != "broken"]
    turns: Counter[tuple[str, str]] = Counter()
    ranked = []
    for position, flip in enumerate(fixed):
        kind = (flip.skill, flip.reference)
        ranked.append((turns[kind], position))
        turns[kind] += 1
    return _within_bytes([*broken, *(fixed[position] for _, position in sorted(ranked))][:MOST_FLIPS])


def skills_of(flips: Sequence[Flip], ungraded: Sequence[Ungraded]) -> Sequence[str]:
    """The skills that the reader can choose among."""
    return sorted({flip.skill for flip in flips} | {answer.skill for answer in ungraded})[:MOST_ROWS]


def _within_bytes(flips: Sequence[Flip]) -> Sequence[Flip]:
    """As many as ``FLIP_BYTES`` allow, the first ones."""
    used = 0
    for position, flip in enumerate(flips):
        texts = (flip.prompt, flip.reference, flip.before, flip.after, flip.before_reason, flip.after_reason)
        used += FLIP_FRAME_BYTES + sum(len(clip(text, LONG).encode()) for text in texts)
        if used > FLIP_BYTES:
            return flips[:position]
    return flips


@dataclass(frozen=True, slots=True)
class Plots:
    """Drawn rows, in the order of the verdict; a target has (greedy, sampled, over majority, axis)."""

    targets: Sequence[tuple[Markup, Markup | None, Markup | None, Markup]]
    watched: Sequence[Markup]
    watched_axis: Markup


def _plots(gate: GateResult) -> Plots:
    targets = []
    for i, t in enumerate(gate.targets):
        changes = [change for change in (t.greedy, t.sampled) if change and change.delta is not None]
        over_ci = [t.over_majority[1]] if t.over_majority else []
        scale, ticks = interval_scale([*(change.ci for change in changes), *over_ci, (0.0, 0.1)])
        greedy = _row(f"{t.skill}, greedy", t.greedy, scale, f"target-{i}-greedy")
        sampled = t.sampled and _row(f"{t.skill}, sampled", t.sampled, scale, f"target-{i}-sampled")
        over = t.over_majority and interval_row(
            f"{t.skill}, over the majority baseline", *t.over_majority, scale, f"target-{i}-majority", style="before"
        )
        targets.append((greedy, sampled or None, over or None, interval_axis(scale, ticks, named=True)))
    cis = [w.greedy.ci for w in gate.watched if w.greedy.delta is not None]
    margins = [w.margin for w in gate.watched]
    scale, ticks = interval_scale(cis or [(-0.1, 0.1)], margins)
    watched = [
        _row(w.skill, w.greedy, scale, f"watched-{i}", w.margin, f"after {w.outcome}")
        for i, w in enumerate(gate.watched)
    ]
    return Plots(targets, watched, interval_axis(scale, ticks, named=True))


def _row(
    name: str, change: Change, scale: Scale, key: str, margin: float | None = None, style: str = "after"
) -> Markup:
    """A drawn comparison; empty if there was nothing to compare."""
    if change.delta is None:
        return Markup("")
    return interval_row(name, change.delta, change.ci, scale, key, margin, style)
