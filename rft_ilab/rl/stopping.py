"""When GRPO ends before its last step: solved, or collapsing. The checkpoint is chosen on validation either way."""

from __future__ import annotations

from dataclasses import dataclass

# Steps in a row in which at most one group carries signal, and at most this share of them.
IDLE_STEPS, IDLE_SHARE = 3, 0.125
# A policy that is hardly ever unsure is solved if it is mostly right and collapsed if it is not.
SOLVED_REWARD = 0.9
# Two standard errors of the difference of 160 validation answers at 80 %, and so often in a row.
WORSE_BY, WORSE_TIMES = 0.09, 2
BONUS_STEP, MOST_BONUS = 0.002, 0.05


@dataclass(slots=True)
class StopRule:
    """Counts what leads to an early end. JSON-serialisable, since a resumed run must go on with it."""

    idle: int = 0
    best: float = 0.0
    worse: int = 0

    def after_step(self, signal_groups: int, groups: int, reward: float | None) -> str:
        """Why to stop after a step, or an empty string. Without ``reward`` (all grades are errors) it says nothing."""
        if reward is None:
            return ""
        # One of many is idle; one of one or two (a run with few prompts a step) is all there can be.
        self.idle = self.idle + 1 if signal_groups <= min(1, IDLE_SHARE * groups) else 0
        if self.idle < IDLE_STEPS:
            return ""
        return "solved" if reward >= SOLVED_REWARD else "collapsed: groups agree, and not on what is right"

    def after_validation(self, score: float) -> str:
        """Why to stop after a validation ``score`` in [0, 1], or an empty string."""
        self.worse = self.worse + 1 if score < self.best - WORSE_BY else 0
        self.best = max(self.best, score)
        if self.worse < WORSE_TIMES:
            return ""
        return f"worse than {self.best:.1%} on validation {self.worse} times in a row"


@dataclass(slots=True)
class EntropyGuard:
    """Adds an entropy bonus while entropy (nats a token) is below ``target``, and takes it away above (0: never).

    The weight moves by ``BONUS_STEP`` a step, as in Skywork-OR1 (arXiv 2505.22312): a fixed bonus is either too weak to
    hold a collapse or too strong to let the policy become sure of what is right.
    """

    weight: float = 0.0

    def after(self, entropy: float, target: float) -> None:
        moved = self.weight + (BONUS_STEP if entropy < target else -BONUS_STEP)
        self.weight = min(MOST_BONUS, max(0.0, moved)) if target > 0 else 0.0
