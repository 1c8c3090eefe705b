"""Paired outcomes of two made-up models whose true difference is known, to try the gate's rules on. Pure, seeded.

A world is a way in which two models differ. Its tasks come in clusters; whether a task moves is a threshold on a
Gaussian variable that correlates ``icc`` within its cluster (a probit random-effects model), so that the shares of
tasks that move, and with them the true difference, are exact whatever the correlation. Scores that are no matter of
right and wrong are beta-binomial: each task has a chance of a beta distribution, a loss scales it down, and the score
is the mean of ``samples`` draws, or the chance itself.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from rft_ilab.config import GateSettings
from rft_ilab.regress.statistics import Difference, paired_difference
from rft_ilab.regress.target import decide_target
from rft_ilab.regress.watched import decide_watched
from rft_ilab.types import Outcome

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

UNEQUAL_SIZES, UNEQUAL_SHARES = (1, 2, 4, 20), (0.4, 0.2, 0.2, 0.2)
UNEQUAL_MEAN = sum(size * share for size, share in zip(UNEQUAL_SIZES, UNEQUAL_SHARES, strict=True))  # 5.6
CONCENTRATION = 1.5  # of the beta distribution of a task's chance: many tasks are nearly always right or wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """``delta``: true mean difference. ``churn``: share of tasks that move up, and as many down, besides.

    ``size``: tasks a cluster; 0: of 1, 2, 4 or 20, and 5.6 on average. ``loss_icc``: correlation within a cluster of
    who bears ``delta`` (None: ``icc``, which is that of the churn): 1 loses whole clusters, as when one template is
    forgotten. ``informative``: clusters of 20 alone bear it. ``severity``: share of its chance that a task
    loses if it is hit (of its distance to 1, if ``delta`` is a gain); right or wrong answers know no shares.
    """

    name: str = ""
    tasks: int = 150
    delta: float = 0.0
    kind: Literal["binary", "graded", "sampled"] = "binary"
    baseline: float = 0.7
    churn: float = 0.05
    size: int = 1
    icc: float = 0.0
    loss_icc: float | None = None
    informative: bool = False
    severity: float = 1.0
    samples: int = 4

    def draw(self, rng: np.random.Generator) -> tuple[Array, Array, Counts]:
        """Outcomes in [0, 1] of both models on each task, and its cluster; of unequal ones, about ``tasks`` tasks.

        Raises ValueError if more tasks would have to move than there are to move.
        """
        clusters = max(round(self.tasks / (self.size or UNEQUAL_MEAN)), 1)
        if self.size:
            groups_N = np.arange(self.tasks) // self.size
        else:
            groups_N = np.repeat(np.arange(clusters), rng.choice(UNEQUAL_SIZES, clusters, p=UNEQUAL_SHARES))
        share = self._hit_share()
        hit_N = _fates(rng, groups_N, self.icc if self.loss_icc is None else self.loss_icc)
        if self.informative:
            large_N = np.bincount(groups_N)[groups_N] == UNEQUAL_SIZES[-1]
            of_tasks = UNEQUAL_SIZES[-1] * UNEQUAL_SHARES[-1] / UNEQUAL_MEAN
            hit_N = np.where(large_N, hit_N * of_tasks, 1.0)
        stir_N = _fates(rng, groups_N, self.icc)
        moved = self._binary if self.kind == "binary" else self._chances
        before_N, after_N = moved(rng, hit_N < share, stir_N)
        if self.kind == "sampled":
            before_N, after_N = (rng.binomial(self.samples, p) / self.samples for p in (before_N, after_N))
        return before_N, after_N, groups_N

    def difference(self, rng: np.random.Generator, alpha: float) -> Difference:
        """One repetition as the gate sees it, without the interval (its p-values say whether it covers)."""
        before_N, after_N, groups_N = self.draw(rng)
        return paired_difference(before_N, after_N, groups_N.tolist(), alpha, interval=False)

    def _hit_share(self) -> float:
        if self.kind == "binary":
            return abs(self.delta)
        return abs(self.delta) / (self.severity * (self.baseline if self.delta < 0.0 else 1.0 - self.baseline))

    def _binary(self, rng: np.random.Generator, hit_N: Flags, stir_N: Array) -> tuple[Array, Array]:
        worse, better = (max(sign * self.delta, 0.0) + self.churn for sign in (-1.0, 1.0))
        if worse > self.baseline + 1e-12 or better > 1.0 - self.baseline + 1e-12:
            raise ValueError(f"{self.name}: more tasks would move than a baseline of {self.baseline} has")
        rate = self.churn / (1.0 - abs(self.delta))
        up_N = np.where(hit_N, self.delta > 0.0, stir_N < rate)
        down_N = np.where(hit_N, self.delta < 0.0, stir_N > 1.0 - rate)
        right = (self.baseline - worse) / max(1.0 - worse - better, 1e-12)  # of those that do not move
        still_N = rng.random(len(hit_N)) < right
        return (down_N | (still_N & ~up_N)).astype(float), (up_N | (still_N & ~down_N)).astype(float)

    def _chances(self, rng: np.random.Generator, hit_N: Flags, stir_N: Array) -> tuple[Array, Array]:
        shape = CONCENTRATION * self.baseline, CONCENTRATION * (1.0 - self.baseline)
        before_N = rng.beta(*shape, len(hit_N))
        later_N = np.where(stir_N < 2.0 * self.churn, rng.beta(*shape, len(hit_N)), before_N)
        edge = 1.0 if self.delta > 0.0 else 0.0
        return before_N, np.where(hit_N, later_N + self.severity * (edge - later_N), later_N)


def _fates(rng: np.random.Generator, groups_N: Counts, icc: float) -> Array:
    """Uniform on [0, 1]; within a cluster one and the same at ``icc`` 1, unrelated at 0."""
    from scipy.special import ndtr  # type: ignore[import-untyped]

    shared_N = rng.standard_normal(int(groups_N[-1]) + 1)[groups_N]
    own_N = rng.standard_normal(len(groups_N))
    return np.asarray(ndtr(math.sqrt(icc) * shared_N + math.sqrt(1.0 - icc) * own_N))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Shares of ``runs`` repetitions. ``passed`` is no error but what it is all for: PASS where nothing changed.

    ``false_pass``: a suite that lost its margin, PASS. ``false_fail``: a suite in which nothing changed, FAIL. The same
    of a target: ``target_false_pass``: it gained nothing; ``target_false_fail``: it gained what was asked.
    ``uncovered``: the interval misses the truth, at the worst of the three true differences.
    """

    world: World
    runs: int
    false_pass: float
    false_fail: float
    target_false_pass: float
    target_false_fail: float
    uncovered: float
    passed: float


def rates(world: World, settings: GateSettings, runs: int, seed: int = 0) -> Rates:
    """One suite alone, ``runs`` times each: at a loss of the margin, at no change, and at the gain asked."""
    level = settings.alpha / 2.0
    truths = (-settings.margin, 0.0, settings.min_gain)
    found: dict[float, list[tuple[Outcome, Outcome, bool]]] = {}
    for truth in truths:
        there = replace(world, delta=truth)
        rng = np.random.default_rng([seed, truths.index(truth), world.tasks, zlib.crc32(world.name.encode())])
        found[truth] = []
        for _ in range(runs):
            d = there.difference(rng, settings.alpha)
            missed = d.p_superior(truth) < level or d.p_inferior(truth) < level
            watched = watched_outcomes([d], settings)[0]
            target, _ = decide_target({"base": d}, {}, None, "", settings)
            found[truth].append((watched, target, missed))

    def share(truth: float, column: int, outcome: Outcome) -> float:
        return sum(row[column] == outcome for row in found[truth]) / runs

    return Rates(
        world=world,
        runs=runs,
        false_pass=share(-settings.margin, 0, "PASS"),
        false_fail=share(0.0, 0, "FAIL"),
        target_false_pass=share(0.0, 1, "PASS"),
        target_false_fail=share(settings.min_gain, 1, "FAIL"),
        uncovered=max(sum(row[2] for row in rows) / runs for rows in found.values()),
        passed=share(0.0, 0, "PASS"),
    )


def watched_outcomes(differences: Sequence[Difference], settings: GateSettings) -> list[Outcome]:
    """The rule for watched suites, all of them deciding, with one margin."""
    n = len(differences)
    decisions = decide_watched(differences, [settings.margin] * n, [True] * n, settings.alpha, [None] * n)
    return [decision.outcome for decision in decisions]


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyRates:
    """``any_false_pass``: some suite that lost its margin is PASS. ``any_fail``: some suite is FAIL."""

    any_false_pass: float
    any_fail: float
    all_pass: float


def family_rates(worlds: Sequence[World], settings: GateSettings, runs: int, seed: int = 0) -> FamilyRates:
    """Watched suites judged together; each world says how much its suite lost (``delta``)."""
    rng = np.random.default_rng([seed, len(worlds)])
    lost = [world.delta <= -settings.margin for world in worlds]
    false_pass = fail = passed = 0
    for _ in range(runs):
        outcomes = watched_outcomes([world.difference(rng, settings.alpha) for world in worlds], settings)
        false_pass += any(gone and outcome == "PASS" for gone, outcome in zip(lost, outcomes, strict=True))
        fail += "FAIL" in outcomes
        passed += all(outcome == "PASS" for outcome in outcomes)
    return FamilyRates(any_false_pass=false_pass / runs, any_fail=fail / runs, all_pass=passed / runs)


def standard_worlds(sizes: Sequence[int] = (20, 60, 150, 500, 2000)) -> Iterator[World]:
    """What the tables of ``docs/statistics.md`` are made on: everyday worlds first, then nasty ones."""
    for n in sizes:
        yield World(name="right or wrong", tasks=n)
        yield World(name="right or wrong, much churn", tasks=n, churn=0.15, baseline=0.6)
        yield World(name="rarely right (15 %)", tasks=n, baseline=0.15)
        yield World(name="mostly right (95 %)", tasks=n, baseline=0.94, churn=0.01)
        yield World(name="pairs, ICC 0.7", tasks=n, size=2, icc=0.7)
        yield World(name="groups of 6, ICC 0.3", tasks=n, size=6, icc=0.3)
        yield World(name="groups of 6, ICC 0", tasks=n, size=6)
        yield World(name="groups of 1 to 20, ICC 0.7", tasks=n, size=0, icc=0.7)
        yield World(name="graded, every task loses a little", tasks=n, kind="graded", severity=0.2)
        yield World(name="1 sample", tasks=n, kind="sampled", samples=1)
        yield World(name="4 samples", tasks=n, kind="sampled")
        yield World(name="16 samples, groups of 6, ICC 0.3", tasks=n, kind="sampled", samples=16, size=6, icc=0.3)
        yield World(name="nothing moves but what is lost", tasks=n, churn=0.0)
        yield World(name="the same, groups of 20 move as one", tasks=n, churn=0.0, size=20, icc=1.0)
        yield World(name="churn, and whole groups of 6 lost", tasks=n, churn=0.1, size=6, loss_icc=1.0)
        yield World(name="the same, groups of 1 to 20", tasks=n, churn=0.1, size=0, loss_icc=1.0)
        yield World(name="only groups of 20 lose", tasks=n, size=0, loss_icc=1.0, informative=True)
        yield World(name="16 samples, few tasks lose all", tasks=n, kind="sampled", samples=16, baseline=0.9, churn=0.0)
        yield World(
            name="4 samples, whole groups of 1 to 20 lost", tasks=n, kind="sampled", size=0, loss_icc=1.0, churn=0.0
        )
