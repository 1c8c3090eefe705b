"""What a person sees while a stage works: one line a milestone, one live progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

# Where there is no terminal to draw on, a line is printed at most this often (share of the work).
PLAIN_EVERY = 0.25


class Screen:
    """Progress on ``console`` (stderr, so that results can be piped); plain lines if it is no terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

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

    def training_step(self, row: dict[str, Any]) -> None:
        """One line an optimiser step: what an engineer watches, in one glance."""
        head = f"  {row['stage']:>4} {row['step']:>3}/{row['steps']}"
        if row["stage"] == "sft":
            if row["step"] % 5 == 0 or row["step"] == row["steps"]:
                parts = [*([f"loss {row['loss']:.3f}"] if "loss" in row else []), f"{row['seconds']:.1f} s"]
                self.say("  ".join([head, *parts, *_went_wrong(row)]))
            elif parts := _went_wrong(row):
                self.say("  ".join([head, *parts]))
            return
        parts = [
            f"reward {row['reward']:.3f}",
            f"signal {row['signal_groups']}/{row['groups']}",
            f"entropy {row['entropy']:.2f}" if "entropy" in row else "no update",
            f"{row['sample_s'] + row['train_s']:.1f} s",
        ]
        parts += _went_wrong(row)
        if row["errors"]:
            parts.append(f"{row['errors']} grader errors")
        if "val" in row:
            parts.append(f"val {row['val']['greedy']:.1%}")
        self.say(f"{head}  {'  '.join(parts)}")


def _went_wrong(row: dict[str, Any]) -> list[str]:
    if "rolled_back" in row:
        return [f"update taken back: {row['rolled_back']}"]
    return ["update skipped: the gradient is no number"] if row.get("skipped") else []
