"""How hard tasks are for a policy, and so what RL can learn from them: pure arithmetic on counts of right answers.

A group whose rollouts are all right or all wrong has no advantage and teaches nothing (DAPO, arXiv 2503.14476, drops
such groups while training; balanced difficulty filtering, arXiv 2504.03380, before it). What counts is therefore the
chance that a group of G rollouts is *mixed*. From few samples of one task little is known of that task: two wrong
answers say neither that it is hopeless nor how many of its like are not. So all tasks of a skill together give a
beta prior of pass rates (moments; the correlation within tasks is the analysis-of-variance estimate of Ridout,
Demetrio and Firth, Biometrics 55, 1999), and a task's own answers move it from there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Band = Literal["too_easy", "too_hard", "signal"]

# A prompt whose groups are mixed more seldom than this costs more rollouts than it teaches.
FEWEST_MIXED = 0.15
_LEAST, _MOST, _UNKNOWN = 0.01, 0.95, 1 / 3


@dataclass(frozen=True, slots=True)
class Passes:
    """Of one task: ``right`` of ``graded`` answers. Errors are in neither."""

    right: int
    graded: int

    @classmethod
    def of(cls, passes: Sequence[bool | None]) -> Passes:
        """
        >>> Passes.of([True, None, False])
        Passes(right=1, graded=2)
        """
        graded = [passed for passed in passes if passed is not None]
        return cls(sum(graded), len(graded))

    @property
    def rate(self) -> float | None:
        return self.right / self.graded if self.graded else None


@dataclass(frozen=True, slots=True)
class Prior:
    """A beta distribution of pass rates: ``a`` right and ``b`` wrong answers seen in advance."""

    a: float
    b: float

    def chance_mixed(self, seen: Passes, group_size: int) -> float:
        """Chance that of ``group_size`` further answers some are right and some wrong (beta-binomial).

        >>> round(Prior(1, 1).chance_mixed(Passes(0, 0), 2), 3)  # a uniform rate p: mean of 2p(1-p)
        0.333
        """
        a, b = self.a + seen.right, self.b + seen.graded - seen.right
        all_right = math.exp(_log_beta(a + group_size, b) - _log_beta(a, b))
        all_wrong = math.exp(_log_beta(a, b + group_size) - _log_beta(a, b))
        return max(0.0, 1.0 - all_right - all_wrong)

    def band(self, seen: Passes, group_size: int) -> Band | None:
        """The band of a task; None if none of its answers was graded."""
        if not seen.graded:
            return None
        if self.chance_mixed(seen, group_size) >= FEWEST_MIXED:
            return "signal"
        return "too_easy" if (self.a + seen.right) * 2 > self.a + self.b + seen.graded else "too_hard"


def fit_prior(tasks: Sequence[Passes]) -> Prior:
    """The beta prior of a skill's pass rates, out of all its tasks; uniform if nothing was graded."""
    tasks = [task for task in tasks if task.graded]
    right, total = sum(task.right for task in tasks), sum(task.graded for task in tasks)
    mean = (right + 0.5) / (total + 1)
    correlation = min(_MOST, max(_LEAST, _correlation(tasks, right, total)))
    weight = (1 - correlation) / correlation
    return Prior(mean * weight, (1 - mean) * weight)


def expected_mixed(tasks: Sequence[Passes], group_size: int) -> float:
    """Expected share of mixed groups if a group of each task were drawn.

    Without bias where every task has at least ``group_size`` graded answers: the share of mixed groups among all
    that can be drawn from them (hypergeometric). Else with the prior's help.

    >>> expected_mixed([Passes(1, 2), Passes(0, 2), Passes(2, 2), Passes(1, 2)], 2)
    0.5
    """
    tasks = [task for task in tasks if task.graded]
    if not tasks:
        return 0.0
    if all(task.graded >= group_size for task in tasks):
        mixed = [1 - _share_alike(task.right, task, group_size) for task in tasks]
    else:
        prior = fit_prior(tasks)
        mixed = [prior.chance_mixed(task, group_size) for task in tasks]
    return sum(mixed) / len(tasks)


def _share_alike(right: int, task: Passes, group_size: int) -> float:
    alike = math.comb(right, group_size) + math.comb(task.graded - right, group_size)
    return alike / math.comb(task.graded, group_size)


def _correlation(tasks: Sequence[Passes], right: int, total: int) -> float:
    """How much more two answers to one task agree than two answers to any."""
    spare = total - len(tasks)
    if spare == 0 or len(tasks) < 2:
        return _UNKNOWN
    mean = right / total
    between = sum(t.graded * (t.right / t.graded - mean) ** 2 for t in tasks) / (len(tasks) - 1)
    within = sum(t.right * (1 - t.right / t.graded) for t in tasks) / spare
    size = (total - sum(t.graded**2 for t in tasks) / total) / (len(tasks) - 1)
    denominator = between + (size - 1) * within
    return (between - within) / denominator if denominator > 0 else _MOST


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
