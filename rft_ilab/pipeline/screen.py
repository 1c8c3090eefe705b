"""What a person sees while a stage works: one line a milestone, one live progress bar or panel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from rft_ilab.pipeline.live import TrainingView
from rft_ilab.pipeline.pace import Pace, time_left
from rft_ilab.report.wording import visible

# Where there is no terminal to draw on, a line is printed at most this often (share of the work).
PLAIN_EVERY = 0.25

Row = Mapping[str, Any]


class Screen:
    """Progress on ``console`` (stderr, so that results can be piped); plain lines if it is no terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, line: str) -> None:
        """Print a line; what graders and models wrote in it cannot steer the terminal."""
        self.console.print(visible(line), markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar over ``total`` units; yields a function that takes the units just done."""
        if not self.console.is_terminal:
            yield self._plain(label, total)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(label, total=total)
            yield lambda done: progress.advance(task, done)

    def _plain(self, label: str, total: int) -> Callable[[int], None]:
        done, shown = 0, 0.0

        def advance(units: int) -> None:
            nonlocal done, shown
            done += units
            share = done / total if total else 1.0
            if units and (share >= 1.0 or share - shown >= PLAIN_EVERY):
                shown = share
                self.say(f"  {label}: {done}/{total}")

        return advance

    @contextmanager
    def training(self, val_every: int) -> Iterator[Callable[[Row], None]]:
        """A live panel, or where none can be drawn a line a step; yields what takes a row of ``rl/steps.jsonl``.

        ``val_every``: GRPO steps between validations.
        """
        pace = Pace(val_every)
        if not self.console.is_interactive:
            yield lambda row: self._plain_step(row, pace)
            return
        view = TrainingView(pace)

        def step(row: Row) -> None:
            pace.add(row)
            view.add(row)
            # The panel is gone in the end; these lines stay.
            if _went_wrong(row) or row["step"] == row["steps"]:
                self.say(step_line(row))

        with Live(view, console=self.console, transient=True, refresh_per_second=2):
            yield step

    def _plain_step(self, row: Row, pace: Pace) -> None:
        pace.add(row)
        if row["stage"] != "sft" or row["step"] % 5 == 0 or row["step"] == row["steps"] or _went_wrong(row):
            self.say(step_line(row, time_left(pace)))


def step_line(row: Row, left: str = "") -> str:
    """An optimiser step as an engineer watches it, in one glance; what the row lacks is not shown."""
    parts = [f"  {row['stage']:>4} {row['step']:>3}/{row['steps']}"]
    if row["stage"] == "sft":
        parts += [f"loss {row['loss']:.3f}"] if "loss" in row else []
        parts.append(f"{row['seconds']:.1f} s")
        return "  ".join(filter(None, [*parts, _went_wrong(row), left]))
    parts += [f"reward {row['reward']:.3f}"] if "reward" in row else []
    parts.append(f"signal {row['signal_groups']}/{row['groups']}")
    if "entropy" in row:
        parts.append(f"entropy {row['entropy']:.2f}")
    elif "loss" not in row:
        parts.append("no update")
    if row.get("kl") is not None:
        parts.append(f"kl {row['kl']:.4f}")
    parts.append(f"{row['sample_s'] + row['train_s']:.1f} s")
    if row.get("tokens_per_s") is not None:
        parts.append(f"{row['tokens_per_s']:,.0f} tokens/s")
    parts.append(_went_wrong(row))
    if row["errors"]:
        parts.append(f"{row['errors']} grader error{'s' if row['errors'] > 1 else ''}")
    if "val" in row:
        parts.append(f"val {row['val']['greedy']:.1%}")
    return "  ".join(filter(None, [*parts, left]))


def _went_wrong(row: Row) -> str:
    if "rolled_back" in row:
        return f"update taken back: {row['rolled_back']}"
    return "update skipped: the gradient is no number" if row.get("skipped") else ""
