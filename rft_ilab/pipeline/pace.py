"""How long training will still take, from how long its last steps took."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

# One slow step (a laptop that slept) must not count; a slow drift (answers growing longer) must.
WINDOW = 10
FEWEST = 2


class Pace:
    """Seconds to the last step of the stage that runs, its remaining validations included.

    ``val_every``: GRPO steps between validations; there is one more after the last step. What follows (selection,
    export) is not included: nothing about it is known. ``clock`` in seconds.
    """

    def __init__(self, val_every: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.val_every, self.clock = val_every, clock
        self.stage, self.step, self.steps = "", 0, 0
        self.previous: float | None = None
        self.taken_s: list[float] = []
        self.validation_s: list[float] = []

    def add(self, row: Mapping[str, Any]) -> None:
        now = self.clock()
        if row["stage"] != self.stage:
            # Between the stages lies more than a step: validation, the signal check.
            self.stage, self.previous, self.taken_s = row["stage"], None, []
        self.step, self.steps = row["step"], row["steps"]
        own = row.get("seconds", row.get("sample_s", 0.0) + row.get("train_s", 0.0))
        interval = own if self.previous is None else now - self.previous
        if "val" not in row:
            self.taken_s.append(interval)
        else:
            self.taken_s.append(own)
            if self.previous is not None:
                self.validation_s.append(max(0.0, interval - own))
        self.previous = now

    def left(self) -> tuple[float, bool] | None:
        """(seconds, exact), counted down since the last row; None while unknown, and when no step is left.

        ``exact`` False: at least that long, since validations are to come and none has been timed yet.
        """
        if len(self.taken_s) < FEWEST or self.step >= self.steps or self.previous is None:
            return None
        step_s = median(self.taken_s[-WINDOW:])
        validations = self._validations()
        validation_s = median(self.validation_s[-WINDOW:]) if self.validation_s else 0.0
        # A step that takes longer than usual does not bring the end nearer.
        since = min(self.clock() - self.previous, step_s)
        seconds = (self.steps - self.step) * step_s + validations * validation_s - since
        return seconds, not validations or bool(self.validation_s)

    def _validations(self) -> int:
        if self.stage != "grpo":
            return 0
        return (self.steps - 1) // self.val_every - self.step // self.val_every + 1


def clock_time(seconds: float) -> str:
    """
    >>> clock_time(59.6), clock_time(3725)
    ('1:00', '1:02:05')
    """
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def time_left(pace: Pace) -> str:
    """In words, and of what: a warm start is followed by GRPO, whose steps are not timed yet. Empty if unknown."""
    found = pace.left()
    if found is None:
        return ""
    of = " of the warm start" if pace.stage == "sft" else ""
    return f"{'' if found[1] else 'at least '}{clock_time(found[0])} left{of}"
