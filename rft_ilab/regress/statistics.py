"""Paired, clustered comparison of two models that answered the same tasks. Pure functions, no I/O.

The test and its interval: :mod:`rft_ilab.regress.likelihood`, which is Tango's score test (1998) for clusters and for
scores of any kind. Kept from other papers: Student's t with the effective number of clusters less one (Carter et al.,
Review of Economics and Statistics 99:698, 2017; :meth:`~rft_ilab.regress.likelihood.Totals.effective`); the
cluster-robust variance (Miller, arXiv 2411.00640, with the CR1 correction), for planning alone; Holm (1979); Wilson
(1927).

Added: no interval narrower than [-1, 1] from so few clusters that even unanimity could be chance.

``docs/statistics.md`` explains all of it without formulas; ``tools/simulate_gate.py`` measures the error rates.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from rft_ilab.regress.likelihood import Totals

Floats = npt.ArrayLike


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """after - before, on ``n`` tasks in ``clusters`` groups; ``ungraded`` tasks were left out.

    ``low`` and ``high`` bound ``delta`` at two-sided level ``1 - alpha``. ``better`` and ``worse``
    count the tasks that moved up and down.
    ``variance`` is the cluster-robust variance of ``delta`` at the estimate, and ``design_effect`` >= 1 what clusters
    contribute to it as a factor: both serve planning, the interval has its own.
    """

    n: int
    clusters: int
    ungraded: int
    before: float
    after: float
    delta: float
    low: float
    high: float
    better: int
    worse: int
    variance: float
    design_effect: float
    normal: bool  # right and wrong answers without clusters: the null alone gives the variance
    totals: Totals = field(repr=False, compare=False)

    def degrees(self, null: float) -> float:
        """Of Student's t; infinite for the normal distribution."""
        return math.inf if self.normal else max(self.totals.effective(null) - 1.0, 1.0)

    def statistic(self, null: float) -> float:
        """z (or t) of H0: delta = ``null``; positive if the estimate lies above it."""
        return self.totals.statistic(null)

    def p_superior(self, null: float = 0.0) -> float:
        """One-sided p of H0: delta <= null. Below alpha / 2 exactly when ``low`` > null."""
        return max(_upper_tail(self.statistic(null), self.degrees(null)), _unanimity(self.clusters))

    def p_inferior(self, null: float = 0.0) -> float:
        """One-sided p of H0: delta >= null. Below alpha / 2 exactly when ``high`` < null."""
        return max(_upper_tail(-self.statistic(null), self.degrees(null)), _unanimity(self.clusters))

    def tasks_needed(self, distance: float, alpha: float, power: float = 0.8) -> int | None:
        """About how many tasks would settle a ``distance`` between the estimate and a boundary.

        n = (z_alpha/2 + z_power)^2 * v / distance^2, with v the variance of one paired difference
        (clustering included), at least what whole clusters bring that move by ``distance``. None if ``distance`` is 0.
        """
        if distance <= 0.0:
            return None
        v = max(self.n * self.variance, self.totals.typical * distance * (1.0 - min(distance, 1.0)))
        z = quantile(1.0 - alpha / 2.0) + quantile(power)
        return max(math.ceil(z * z * v / distance**2), self.n + 1)


def paired_difference(
    before_N: Floats,
    after_N: Floats,
    groups_N: Sequence[Hashable],
    alpha: float,
    graded_N: Sequence[bool] | None = None,
    interval: bool = True,
) -> Difference:
    """Compare per-task outcomes in [0, 1] of two models; tasks that share a group are not independent.

    ``graded_N`` is False where either side has no grade: those tasks are left out and counted.
    Without ``interval`` it stays [-1, 1], which saves two thirds of the time where p-values are all one wants.
    Raises ValueError for unequal lengths, for an outcome outside [0, 1] (or NaN) that is marked as graded, and if no
    task is left.
    """
    before, after = np.asarray(before_N, dtype=float), np.asarray(after_N, dtype=float)
    graded = np.ones(before.shape, dtype=bool) if graded_N is None else np.asarray(graded_N, dtype=bool)
    if before.ndim != 1 or not before.shape == after.shape == graded.shape == (len(groups_N),):
        raise ValueError("before, after, groups and graded must be one-dimensional and equally long")
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha {alpha!r} lies outside (0, 1)")
    before, after = before[graded], after[graded]
    groups = [group for group, keep in zip(groups_N, graded, strict=True) if keep]
    n = len(groups)
    if n == 0:
        raise ValueError("no task is graded on both sides")
    both = np.concatenate([before, after])
    if not np.all((both >= 0.0) & (both <= 1.0)):
        raise ValueError("a graded outcome lies outside [0, 1]")

    moves = after - before  # (n,)
    delta = float(moves.mean())
    ids = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    totals = Totals.of(moves, np.array([ids[group] for group in groups]))
    clusters, typical = len(ids), totals.typical
    naive = float(((moves - delta) ** 2).sum())
    between = float(totals.counts_U @ (totals.sums_U - delta * totals.sizes_U) ** 2)
    robust = between * (clusters / (clusters - 1) if clusters > 1 else 1.0)  # CR1
    binary = bool(np.all((both == 0.0) | (both == 1.0)))
    difference = Difference(
        n=n,
        clusters=clusters,
        ungraded=int((~graded).sum()),
        before=float(before.mean()),
        after=float(after.mean()),
        delta=delta,
        low=-1.0,
        high=1.0,
        better=int((moves > 0).sum()),
        worse=int((moves < 0).sum()),
        variance=robust / n**2,
        design_effect=max(robust / naive * (n - 1) / n, 1.0) if naive > 1e-12 else typical,
        normal=binary and clusters == n,  # elsewhere residuals help to estimate the variance, hence t
        totals=totals,
    )
    if not interval or _unanimity(clusters) > alpha / 2.0:
        return difference
    low, high = totals.interval(lambda null: quantile(1.0 - alpha / 2.0, difference.degrees(null)))
    return replace(difference, low=low, high=high)


def _unanimity(clusters: int) -> float:
    """Chance that all clusters move the same way by luck; no claim is stronger than that."""
    return 0.5 ** max(clusters, 1)


def clusters_needed(alpha: float) -> int:
    """Fewest clusters with which any interval at ``alpha`` can be narrower than [-1, 1].

    >>> clusters_needed(0.05)
    6
    """
    return math.ceil(math.log2(2.0 / alpha))


def _upper_tail(statistic: float, degrees: float) -> float:
    if math.isinf(degrees):
        return 0.5 * math.erfc(statistic / math.sqrt(2.0))
    from scipy.special import stdtr  # type: ignore[import-untyped]  # scipy.stats: half a second to import

    return float(stdtr(degrees, -statistic))


def quantile(probability: float, degrees: float = math.inf) -> float:
    """Quantile of Student's t, or of the normal distribution for infinite ``degrees``.

    >>> round(quantile(0.975), 3), round(quantile(0.975, 4), 3)
    (1.96, 2.776)
    """
    if math.isinf(degrees):
        return NormalDist().inv_cdf(probability)
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given: compare each with alpha.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def wilson(right: float, n: int, alpha: float = 0.05) -> tuple[float, float]:
    """Wilson's score interval of a proportion. Raises ValueError unless 0 <= right <= n and n > 0.

    >>> [round(x, 3) for x in wilson(10, 10)]
    [0.722, 1.0]
    """
    if n <= 0 or not 0 <= right <= n:
        raise ValueError(f"{right!r} of {n!r} is no proportion")
    z2 = quantile(1.0 - alpha / 2.0) ** 2
    share = right / n
    centre, spread = share + z2 / (2 * n), math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n)))
    return max((centre - spread) / (1 + z2 / n), 0.0), min((centre + spread) / (1 + z2 / n), 1.0)
