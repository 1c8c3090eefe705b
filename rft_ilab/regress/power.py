"""How many tasks a verdict takes, and what a given number of them can show. Plans, made before anything is measured.

The expected outcome is put through the gate's own statistic (:mod:`rft_ilab.regress.likelihood`) and tilted until that
meets its threshold; how likely an estimate beyond it is, a saddlepoint approximation says. Planning for paired
proportions with the variance under the null is Connor's idea (Biometrics 43:207, 1987). Tasks of a cluster share one
fate with chance ``icc`` (all of them or none), so that ``icc`` is the intraclass correlation of who moves.

``tests/unit/test_power.py`` compares planned with simulated power. They agree to 3 points but for two cases: where less
than about two tasks are expected to move, power goes in steps; where a few clusters are far larger than the others, a
plan of 80 % is on the safe side (up to 95 %).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from rft_ilab.regress.likelihood import Totals
from rft_ilab.regress.statistics import clusters_needed, quantile

Array = npt.NDArray[np.float64]

MOST_TASKS = 1_000_000
UNSEEN = 0.1  # clusters: an outcome expected more rarely than that is none that a suite will show
STEEPEST = 30.0  # tilt at which an extreme outcome is e^30 times as likely
CHANCES = 400  # points of the distribution of a task's chance


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumption:
    """What is taken for granted.

    ``discordance``: share of tasks whose outcome differs though nothing got better or worse on the whole, half of them
    each way (of graded scores: the variance of a task's difference). ``sizes``: tasks a cluster, one entry a cluster; a
    larger suite has more clusters of the same kind. ``samples``: draws a task, averaged (0: one greedy answer), of
    tasks whose chances have mean ``baseline`` and a beta distribution with ``spread`` for the sum of its parameters.
    """

    discordance: float = 0.1
    icc: float = 0.5
    sizes: Sequence[int] = (1,)
    samples: int = 0
    baseline: float = 0.7
    spread: float = 1.5
    _shares: dict[float, tuple[Array, Array, Array, float]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def expected(self, tasks: float, delta: float) -> Totals:
        """The totals of ``tasks`` tasks on average, if the true difference is ``delta``."""
        if delta not in self._shares:
            self._shares[delta] = self._per_task(delta)
        sums_U, sizes_U, counts_U, square = self._shares[delta]
        return Totals(
            sums_U=sums_U,
            sizes_U=sizes_U,
            counts_U=counts_U * tasks,
            n=tasks,
            clusters=float(counts_U.sum()) * tasks,
            typical=float((counts_U * sizes_U**2).sum()),
            squares=square * tasks,
        )

    def _per_task(self, delta: float) -> tuple[Array, Array, Array, float]:
        """Totals, sizes and counts of the clusters, the counts summing to clusters a task; the square of a move."""
        moves_U, chances_U = self._moves(delta)
        steps = max(self.samples, 1)
        sums, sizes, counts = [], [], []
        of = sum(self.sizes)
        for size, number in Counter(self.sizes).items():
            apart = np.array([1.0])
            for _ in range(size):
                apart = np.convolve(apart, chances_U)
            together = np.zeros_like(apart)
            together[::size] = chances_U
            sums.append((np.arange(len(apart)) - size * steps) / steps)
            sizes.append(np.full(len(apart), float(size)))
            counts.append((self.icc * together + (1.0 - self.icc) * apart) * number / of)
        kept = (count := np.concatenate(counts)) > 1e-15
        square = float(chances_U @ moves_U**2)
        return np.concatenate(sums)[kept], np.concatenate(sizes)[kept], count[kept], square

    def _moves(self, delta: float) -> tuple[Array, Array]:
        """Moves of one task, from -1 to 1 in steps of one draw, and their chances."""
        hit, churn = abs(delta), self.discordance / 2.0
        if not self.samples:
            loss, gain = max(-delta, 0.0), max(delta, 0.0)
            churn = min(churn, (1.0 - hit) / 2.0)
            return np.array([-1.0, 0.0, 1.0]), np.array([churn + loss, 1.0 - 2.0 * churn - hit, churn + gain])
        from scipy.special import betaincinv  # type: ignore[import-untyped]
        from scipy.stats import binom

        k, middles = self.samples, (np.arange(CHANCES) + 0.5) / CHANCES
        chances_P = betaincinv(self.spread * self.baseline, self.spread * (1.0 - self.baseline), middles)
        right_PK = binom.pmf(np.arange(k + 1), k, chances_P[:, None])  # (CHANCES, k + 1)
        anew_K = right_PK.mean(axis=0)
        lost = min(hit / (self.baseline if delta < 0.0 else 1.0 - self.baseline), 1.0)
        edge_K = np.eye(k + 1)[0 if delta < 0.0 else k]
        later_PK = (1.0 - lost) * ((1.0 - 2.0 * churn) * right_PK + 2.0 * churn * anew_K) + lost * edge_K
        joint_KK = right_PK.T @ later_PK / CHANCES
        moves = np.arange(-k, k + 1)
        return moves / k, np.array([np.trace(joint_KK, offset=int(move)) for move in moves])


def power_to_pass(tasks: float, a: Assumption, margin: float, alpha: float, suites: int = 1) -> float:
    """Chance that an unchanged watched suite is shown to be no worse than ``margin``.

    Planned at ``alpha`` / 2 over the number of ``suites`` (Bonferroni): Holm's adjustment asks no more than that.
    """
    level = alpha / (2.0 * suites)
    return _power(tasks, a, 0.0, -margin, level, alpha)


def power_to_gain(tasks: float, a: Assumption, gain: float, alpha: float) -> float:
    """Chance that a target is shown to be better, if it truly gained ``gain``."""
    return _power(tasks, a, gain, 0.0, alpha / 2.0, alpha)


def power_to_fail(tasks: float, a: Assumption, margin: float, loss: float, alpha: float, suites: int = 1) -> float:
    """Chance that a true ``loss`` (positive) is a FAIL: significant, and the estimate at the margin or beyond."""
    significant = _power(tasks, a, -loss, 0.0, alpha / (2.0 * suites), alpha, below=True)
    reached = _chance(a.expected(tasks, -loss), lambda t: -margin - float(t.counts_U @ t.sums_U) / t.n, below=True)
    return min(significant, reached)


def tasks_to_pass(a: Assumption, margin: float, alpha: float, power: float, suites: int = 1) -> int | None:
    """Fewest tasks with which an unchanged suite passes with chance ``power``; None beyond a million."""
    return _fewest(lambda tasks: power_to_pass(tasks, a, margin, alpha, suites), power)


def tasks_to_gain(a: Assumption, gain: float, alpha: float, power: float) -> int | None:
    """Fewest tasks with which a target that gained ``gain`` is shown to be better with chance ``power``."""
    return _fewest(lambda tasks: power_to_gain(tasks, a, gain, alpha), power)


def tasks_to_fail(a: Assumption, margin: float, loss: float, alpha: float, power: float, suites: int = 1) -> int | None:
    """Fewest tasks with which a true ``loss`` is a FAIL with chance ``power``; None if it does not reach the margin."""
    return _fewest(lambda tasks: power_to_fail(tasks, a, margin, loss, alpha, suites), power)


def detectable_loss(
    tasks: int, a: Assumption, margin: float, alpha: float, power: float, suites: int = 1
) -> float | None:
    """Smallest true loss that is a FAIL with chance ``power``; None if not even a loss of all is."""
    return _smallest(lambda loss: power_to_fail(tasks, a, margin, loss, alpha, suites), power, a)


def detectable_gain(tasks: int, a: Assumption, alpha: float, power: float) -> float | None:
    """Smallest true gain that is shown with chance ``power``; None if not even a gain of all is."""
    return _smallest(lambda gain: power_to_gain(tasks, a, gain, alpha), power, a)


def _power(
    tasks: float, a: Assumption, delta: float, null: float, level: float, alpha: float, below: bool = False
) -> float:
    """Chance that the statistic of H0: delta = ``null`` passes its threshold, upwards or (``below``) downwards."""
    totals = a.expected(tasks, delta)
    if totals.clusters < clusters_needed(alpha) or (delta < null) != below:
        return 0.0
    independent = not a.samples and totals.typical == 1.0
    degrees = math.inf if independent else max(totals.effective(null) - 1.0, 1.0)
    sign, limit = (-1.0 if below else 1.0), quantile(1.0 - level, degrees)
    return _chance(totals, lambda tilted: sign * _seen(tilted).statistic(null) - limit, below)


def _seen(totals: Totals) -> Totals:
    """Without the rarest outcomes: likelihood gives much weight to what was seen, however rarely."""
    kept_U = totals.counts_U >= min(UNSEEN, float(totals.counts_U.max()))
    sums_U, sizes_U, counts_U = totals.sums_U[kept_U], totals.sizes_U[kept_U], totals.counts_U[kept_U]
    n, clusters = float(counts_U @ sizes_U), float(counts_U.sum())
    return replace(totals, sums_U=sums_U, sizes_U=sizes_U, counts_U=counts_U, n=n, clusters=clusters)


def _chance(totals: Totals, excess: Callable[[Totals], float], below: bool) -> float:
    """Chance that ``excess`` is positive, which grows with the estimate (``below``: as it falls).

    ``totals`` are expectations. The likeliest outcome among those with another estimate is their exponential tilt;
    where ``excess`` is zero on it lies the boundary. The tail beyond is Barndorff-Nielsen's r* (Daniels, International
    Statistical Review 55:37, 1987).
    """
    mean = float(totals.counts_U @ totals.sums_U) / totals.n
    residuals_U = (totals.sums_U - mean * totals.sizes_U) / totals.typical
    chances_U = totals.counts_U / totals.clusters
    toward = -1.0 if below else 1.0

    def tilted(theta: float) -> tuple[Totals, float]:
        raised_U = chances_U * np.exp(theta * residuals_U)
        counts_U = raised_U * (totals.clusters / raised_U.sum())
        n = float(counts_U @ totals.sizes_U)
        return replace(totals, counts_U=counts_U, n=n), math.log(float(raised_U.sum()))

    steep = STEEPEST / max(float(np.abs(residuals_U).max()), 1e-12)
    low, high = -steep, steep
    if excess(tilted(toward * low)[0]) > 0.0:
        return 1.0
    if excess(tilted(toward * high)[0]) <= 0.0:
        return 0.0
    while high - low > 1e-6 * steep:
        middle = (low + high) / 2.0
        low, high = (low, middle) if excess(tilted(toward * middle)[0]) > 0.0 else (middle, high)
    theta = toward * high
    at, cumulant = tilted(theta)
    weights_U = at.counts_U / at.clusters
    first = float(weights_U @ residuals_U)
    second = float(weights_U @ residuals_U**2) - first**2
    r = math.copysign(math.sqrt(max(2.0 * totals.clusters * (theta * first - cumulant), 0.0)), high)
    if abs(r) < 1e-3 or second <= 0.0:
        return 1.0 - NormalDist().cdf(r)
    u = high * math.sqrt(totals.clusters * second)
    return 1.0 - NormalDist().cdf(r + math.log(u / r) / r)


def _fewest(chance: Callable[[float], float], power: float) -> int | None:
    low, high = 1, 8
    while chance(high) < power:
        low, high = high, 2 * high
        if high > MOST_TASKS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if chance(middle) >= power else (middle, high)
    return high


def _smallest(chance: Callable[[float], float], power: float, a: Assumption) -> float | None:
    most = 1.0 - a.discordance / 2.0
    low, high = 0.0, most
    if chance(high) < power:
        return None
    while high - low > 1e-4:
        middle = (low + high) / 2.0
        low, high = (low, middle) if chance(middle) >= power else (middle, high)
    return high
