"""The panel that a terminal shows while training runs. Everything in it is ``Text``: nothing is read as markup."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from rft_ilab.pipeline.pace import Pace, clock_time, time_left

SHOWN = 30
BARS, ASCII_BARS = "▁▂▃▄▅▆▇█", "_.-=+*#"
STAGES = {"sft": "warm start", "grpo": "GRPO"}


class TrainingView:
    """What is known of a training run, drawn anew whenever it is rendered. ``clock`` in seconds."""

    def __init__(self, pace: Pace, clock: Callable[[], float] = time.monotonic) -> None:
        self.pace, self.clock = pace, clock
        self.started = clock()
        self.row: Mapping[str, Any] = {}
        self.rewards: list[float] = []
        self.val: tuple[int, Mapping[str, float]] | None = None
        self.errors = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Take one row of ``rl/steps.jsonl``."""
        self.row = row
        self.errors += row.get("errors", 0)
        if "reward" in row:
            self.rewards = [*self.rewards, row["reward"]][-SHOWN:]
        if "val" in row:
            self.val = row["step"], row["val"]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(overflow="ellipsis", no_wrap=True)
        for label, value in self._lines(ASCII_BARS if options.ascii_only else BARS):
            table.add_row(Text(label, style="dim"), Text(value))
        yield Panel(table, title=Text(self._title()), title_align="left", border_style="cyan")

    def _title(self) -> str:
        row = self.row
        return f"{STAGES.get(row['stage'], row['stage'])} {row['step']}/{row['steps']}" if row else "training"

    def _lines(self, bars: str) -> Iterator[tuple[str, str]]:
        row = self.row
        if "loss" in row and row["stage"] == "sft":
            yield "loss", f"{row['loss']:.3f}"
        if "reward" in row:
            yield "reward", f"{row['reward']:.3f}  {sparkline(self.rewards, bars)}  {_span(self.rewards)}"
        if self.val:
            step, val = self.val
            yield "validation", f"{val['greedy']:.1%} greedy, {val['macro']:.1%} per class (step {step})"
        if "entropy" in row:
            yield "entropy", f"{row['entropy']:.2f} nats a token"
        if row.get("kl") is not None:
            yield "KL", f"{row['kl']:.4f} nats a token{_farthest(row.get('kl_by_skill') or {})}"
        if "signal_groups" in row:
            yield "signal", f"{row['signal_groups']} of {row['groups']} groups"
        if row.get("tokens_per_s") is not None:
            yield "speed", f"{row['tokens_per_s']:,.0f} tokens/s"
        if "errors" in row:
            yield "errors", f"{row['errors']} of the grader in this step, {self.errors} since the start"
        left = time_left(self.pace)
        yield "time", f"{clock_time(self.clock() - self.started)} so far" + (f", {left}" if left else "")


def _span(values: Sequence[float]) -> str:
    return f"{min(values):.3f} to {max(values):.3f} in {len(values)} steps" if len(values) > 1 else ""


def _farthest(kl: Mapping[str, float]) -> str:
    """The skill that moved most, where there are several."""
    known = {skill: value for skill, value in kl.items() if value is not None}
    if len(known) < 2:
        return ""
    skill = max(known, key=lambda name: known[name])
    return f", most in {skill}: {known[skill]:.4f}"


def sparkline(values: Sequence[float], bars: str = BARS) -> str:
    """One bar a value, the lowest and the highest of them filling the scale.

    >>> sparkline([0.0, 0.5, 1.0]), sparkline([0.3, 0.3])
    ('▁▅█', '▁▁')
    """
    low, high = min(values), max(values)
    width = high - low
    # Halves go up, so that the middle of the scale is the fifth bar of eight.
    return "".join(bars[int((v - low) / width * (len(bars) - 1) + 0.5) if width else 0] for v in values)
