"""The training part of the HTML report: charts, checkpoints, signal, and groups of answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from rft_ilab.report import frontier
from rft_ilab.report.charts import Series, line_chart, share_bar
from rft_ilab.report.data import Attribution, Rollouts, RunReport, Selection, Signal, Step
from rft_ilab.report.svg import Scale
from rft_ilab.report.wording import percent

MOST_TABLE_STEPS = 40


@dataclass(frozen=True, slots=True)
class Chart:
    title: str
    note: str
    drawing: Markup
    legend: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class SignalView:
    signal: Signal
    bar: Markup
    legend: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class StepRow:
    step: int
    reward: float | None
    val: float | None
    macro: float | None
    entropy: float | None
    kl: float | None
    signal: float | None


@dataclass(frozen=True, slots=True)
class Training:
    """What the template shows of training; empty parts are left out of the page."""

    reward: Chart | None
    small: Sequence[Chart]
    rows: Sequence[StepRow]
    steps: int
    selection: Selection | None
    watched: Sequence[str]
    frontier: frontier.Frontier | None
    attribution: Sequence[Attribution]
    signals: Sequence[SignalView]
    first_step: str
    rollouts: Rollouts | None

    @property
    def any(self) -> bool:
        return bool(self.reward or self.small or self.selection or self.signals or self.rollouts)


def build(report: RunReport) -> Training:
    """Draw and condense; step tables keep at most 40 evenly spaced rows."""
    grpo = _with_candidates([step for step in report.steps if step.stage == "grpo"], report.selection)
    every = -(-len(grpo) // MOST_TABLE_STEPS) or 1
    # counted from the end, so that the last step is always shown
    rows = [_row(step) for step in grpo[::-1][::every]][::-1]
    selection = report.selection
    return Training(
        reward=_reward(grpo, selection),
        small=[chart for chart in _small(report.steps, grpo) if chart.drawing],
        rows=rows,
        steps=len(grpo),
        selection=selection,
        watched=sorted({name for c in selection.candidates for name in c.watched}) if selection else (),
        frontier=frontier.build(selection),
        attribution=report.attribution,
        signals=[_signal(signal, i) for i, signal in enumerate(report.signals)],
        first_step=_first_step(grpo),
        rollouts=report.rollouts,
    )


def _with_candidates(grpo: Sequence[Step], selection: Selection | None) -> list[Step]:
    """The steps, with the validation that selection gave to those that were not validated while training (the last)."""
    measured = {c.name: c for c in selection.candidates} if selection else {}
    found = []
    for step in grpo:
        own = measured.get(f"step-{step.step}")
        if own is not None and not step.val:
            val = {name: value for name, value in (("greedy", own.val), ("macro", own.macro)) if value is not None}
            step = replace(step, val=val)
        found.append(step)
    return found


def _points(steps: Sequence[Step], key: str) -> list[tuple[float, float]]:
    return [(float(step.step), step.values[key]) for step in steps if key in step.values]


def _val_points(steps: Sequence[Step], key: str) -> list[tuple[float, float]]:
    return [(float(step.step), step.val[key]) for step in steps if key in step.val]


def _share(step: Step) -> float | None:
    groups = step.values.get("groups")
    return step.values["signal_groups"] / groups if groups and "signal_groups" in step.values else None


def _first_step(grpo: Sequence[Step]) -> str:
    """How the first step compares with what the signal report predicted; empty if it did not."""
    first = grpo[0] if grpo and grpo[0].step == 1 else None
    if first is None or "expected_signal" not in first.values or _share(first) is None:
        return ""
    mixed, groups = int(first.values["signal_groups"]), int(first.values["groups"])
    found, expected = percent(mixed / groups), percent(first.values["expected_signal"])
    return f"In the first step {mixed} of {groups} groups were mixed ({found}; {expected} were expected)."


def _row(step: Step) -> StepRow:
    values, val = step.values, step.val
    return StepRow(
        step=step.step,
        reward=values.get("reward"),
        val=val.get("greedy"),
        macro=val.get("macro"),
        entropy=values.get("entropy"),
        kl=values.get("kl"),
        signal=_share(step),
    )


def _percent(value: float) -> str:
    return f"{100 * value:.0f}%"


def _reward(grpo: Sequence[Step], selection: Selection | None) -> Chart | None:
    series = [
        Series("training reward", _points(grpo, "reward"), "before"),
        Series("validation accuracy, greedy", _val_points(grpo, "greedy"), "after", dots=True),
        Series("validation accuracy, mean over classes", _val_points(grpo, "macro"), "macro", dots=True),
    ]
    chosen = re.fullmatch(r"step-(\d+)", selection.chosen) if selection else None
    mark = (float(chosen[1]), "chosen") if chosen and grpo and int(chosen[1]) <= grpo[-1].step else None
    scale = (Scale(0.0, 1.0), [0.0, 0.25, 0.5, 0.75, 1.0])
    title = "Reward and validation accuracy, by step of reinforcement learning (GRPO)"
    drawing = line_chart(title, series, "reward", show=_percent, scale=scale, height=220, mark=mark)
    if not drawing:
        return None
    note = "Mean reward of the sampled answers, in percent of the highest possible, and accuracy on validation tasks."
    return Chart(title, note, drawing, [(s.name, s.style) for s in series if s.points])


def _small(steps: Sequence[Step], grpo: Sequence[Step]) -> list[Chart]:
    sft = [step for step in steps if step.stage == "sft"]
    shares = [(float(step.step), share) for step in grpo if (share := _share(step)) is not None]
    parts = [
        ("Entropy", "Near 0 the model no longer tries anything else.", _points(grpo, "entropy"), "nats per token"),
        ("KL to the base model", "How far the model has moved; exact, where it was measured.", _points(grpo, "kl"),
         "nats per token"),
        ("Groups with signal", "Share of prompts whose answers differ in reward; it teaches by them.", shares, ""),
        ("Warm start: loss", "Supervised steps on the checked examples.", _points(sft, "loss"), "nats per token"),
        ("Gradient norm", "Before clipping. Spikes mean unstable steps.", _points(grpo, "grad_norm"), "norm"),
        ("Importance gap", "Between the log-probabilities of sampler and trainer.", _points(grpo, "importance_gap"),
         "nats, mean"),
    ]  # fmt: skip
    charts = []
    for i, (title, note, points, unit) in enumerate(parts):
        series = [Series(title, points, "after")]
        show, scale = ("{:.3g}".format, None) if unit else (_percent, (Scale(0.0, 1.0), [0.0, 0.5, 1.0]))
        drawing = line_chart(title, series, f"small-{i}", show=show, scale=scale, height=90, unit=unit)
        charts.append(Chart(title, note, drawing))
    return charts


def _signal(signal: Signal, index: int) -> SignalView:
    numbers = signal.numbers
    parts = [
        ("all answers wrong", numbers.get("all_wrong", 0.0), "s-wrong", "before"),
        ("mixed", numbers.get("mixed", 0.0), "s-mixed", "after"),
        ("all answers right", numbers.get("all_right", 0.0), "s-right", "faint"),
    ]
    legend = [(f"{name}: {percent(share)} of tasks", f"square {style}") for name, share, _, style in parts]
    bar = share_bar([part[:3] for part in parts], f"{signal.skill}: tasks by their sampled answers", f"signal-{index}")
    return SignalView(signal, bar, legend)
