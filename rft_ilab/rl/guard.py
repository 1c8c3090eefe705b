"""What stands between a bad gradient and the weights: skip it, or take the last update back; lower the rate; stop.

Three things can be wrong with an update. Its gradient is no finite number: the update is skipped. It explodes (gradient
norm, loss or importance gap far beyond what they were): the weights it was computed with are bad, so the update before
it is taken back as well. The weights it leaves are no finite numbers: it is taken back. Each time the rate is halved,
for good, and when it keeps happening training stops and says where to look.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

from rft_ilab.errors import TrainingError
from rft_ilab.rl.engine import Engine, PassStats

RATE_FACTOR = 0.5
# So many bad updates in a row, or so many taken back among the last few, and something is broken.
MOST_IN_A_ROW = 3
MOST_TAKEN_BACK, AMONG_LAST = 3, 10
# An update explodes when a figure is beyond FACTOR x its median over the last updates, and beyond its floor. In nine
# runs of the shipped skill none exceeded 5.2 x; first gradient norms are near 7, gaps near 0.01 nats, and a loss of 10
# nats a token is a uniform guess over the vocabulary.
FACTOR = 20.0
FLOORS = {"gradient norm": 20.0, "loss": 10.0, "importance gap": 1.0}
WINDOW = 16
# With fewer updates to compare with, nothing counts as exploding.
FEWEST = 5

TrainingState = dict[str, torch.Tensor]


def training_state(engine: Engine) -> TrainingState:
    """A copy of the trainable weights (``weight.i``) and the optimiser's moments (``i.exp_avg`` ...)."""
    state: TrainingState = {}
    for i, parameter in enumerate(engine.parameters):
        state[f"weight.{i}"] = parameter.detach().clone()
        for key, value in engine.optimizer.state.get(parameter, {}).items():
            state[f"{i}.{key}"] = value.clone() if isinstance(value, torch.Tensor) else torch.tensor(float(value))
    return state


@torch.no_grad()
def restore_state(engine: Engine, state: Mapping[str, torch.Tensor]) -> None:
    """Put a :func:`training_state` back, bit for bit."""
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in state.items():
        index, key = name.split(".", 1)
        if index != "weight":
            # The optimiser keeps its count of steps on the CPU, wherever the weights are.
            device = engine.parameters[int(index)].device if value.ndim else value.device
            moments.setdefault(int(index), {})[key] = value.clone().to(device)
    for i, parameter in enumerate(engine.parameters):
        parameter.copy_(state[f"weight.{i}"])
        engine.optimizer.state.pop(parameter, None)
        if i in moments:
            engine.optimizer.state[parameter] = moments[i]
    engine.weights_changed()


@dataclass(slots=True)
class UpdateGuard:
    """What it remembers is JSON but for ``before``, the training state before the last update: checkpoints keep both.

    ``factor`` lowers the learning rate; ``recent`` holds what exploding is measured by; ``taken_back`` counts updates
    from the first; ``evidence`` says what went wrong last, newest at the end.
    """

    factor: float = 1.0
    updates: int = 0
    in_a_row: int = 0
    recent: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in FLOORS})
    taken_back: list[int] = field(default_factory=list)
    evidence: list[str] = field(default_factory=list)
    before: TrainingState | None = field(default=None, repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__ if name != "before"}

    def update(self, engine: Engine, stats: PassStats, rate: float, *, step: str, log: Path) -> dict[str, Any]:
        """One optimiser step with the gradient just accumulated, unless it would do harm; returns fields of its row.

        Raises TrainingError, naming ``step`` and what is in ``log``, when bad updates come too often.
        """
        now = training_state(engine)
        norm = engine.step(rate)
        self.updates += 1
        found = {"gradient norm": norm, "loss": abs(stats.loss), "importance gap": stats.importance_gap}
        row: dict[str, Any] = {"grad_norm": round(norm, 4)} if math.isfinite(norm) else {}
        if not math.isfinite(norm):  # the engine has changed nothing
            what = f"a gradient of {norm}"
            row["skipped"] = True
        elif not all(bool(p.isfinite().all()) for p in engine.parameters):
            restore_state(engine, now)
            what = f"weights that are no finite numbers, gradient norm {norm:.4g}"
            row["rolled_back"] = what
            self.taken_back.append(self.updates)
        elif what := self._explodes(found):
            # The update before it, too, unless that was taken back already.
            restore_state(engine, self.before or now)
            self.before = None
            row["rolled_back"] = what
            self.taken_back.append(self.updates)
        else:
            self.before, self.in_a_row = now, 0
            for name, value in found.items():
                self.recent[name] = [*self.recent[name], value][-WINDOW:]
            return row
        self.in_a_row += 1
        self.factor *= RATE_FACTOR
        self.evidence = [*self.evidence, f"{step}: {what}"][-MOST_TAKEN_BACK:]
        self._stop_if_hopeless(step, log)
        return row

    def _explodes(self, found: Mapping[str, float]) -> str:
        """What is far beyond what it was, in words; empty if nothing is."""
        for name, value in found.items():
            usual = self.recent[name]
            if not math.isfinite(value):
                return f"{name} {value}"
            if len(usual) >= FEWEST and value > max(FLOORS[name], FACTOR * median(usual)):
                return f"{name} {value:.4g} after a median of {median(usual):.4g}"
        return ""

    def _stop_if_hopeless(self, step: str, log: Path) -> None:
        self.taken_back = [n for n in self.taken_back if n > self.updates - AMONG_LAST]
        if self.in_a_row >= MOST_IN_A_ROW:
            often = f"{self.in_a_row} updates in a row"
        elif len(self.taken_back) >= MOST_TAKEN_BACK:
            often = f"{len(self.taken_back)} of the last {AMONG_LAST} updates"
        else:
            return
        raise TrainingError(
            f"{step}: {often} had to be skipped or taken back ({'; '.join(self.evidence)}); the weights are as before",
            where=log,
            fix="look at these steps in steps.jsonl and rollouts.jsonl there; then lower learning_rate or "
            "sft_learning_rate in rft.toml and start a new run",
        )
