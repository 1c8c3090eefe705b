"""Paired, clustered comparison of two models that answered the same tasks. Pure functions, no I/O.

Kept from the papers: Tango's score test and interval for paired proportions (Statistics in Medicine
17:891, 1998, equations 24-26); paired, cluster-robust standard errors for model evaluations (Miller,
arXiv 2411.00640) with the CR1 correction and Student's t; the effective sample size with a t quantile
for clustered proportions (Korn and Graubard, Survey Methodology 24:193, 1998); degrees of freedom from the
effective number of clusters (Carter et al., Review of Economics and Statistics 99:698, 2017), which is the
plain number where clusters are equally large; Holm (1979); Wilson (1927).

Added, because a gate is attacked where nothing moved:
- half an imaginary, fully correlated cluster enters the design effect (``_design_effect``), so that
  a suite of 50 templates x 6 variants without a single change counts as 50 tasks, not as 300;
- a variance floor for graded scores (``Difference.statistic``), so that no interval has zero width;
- no interval narrower than [-1, 1] from so few clusters that even unanimity could be chance.

``docs/statistics.md`` explains all of it without formulas.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

Method = Literal["score", "t"]
Floats = npt.ArrayLike

PHANTOM_CLUSTERS = 0.5  # weight of the imaginary cluster in the design effect
BISECTIONS = 60  # halves an interval of length 2 to less than 1e-17


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """after - before, on ``n`` tasks in ``clusters`` groups; ``ungraded`` tasks were left out.

    ``low`` and ``high`` bound ``delta`` at two-sided level ``1 - alpha``. ``better`` and ``worse``
    count the tasks that moved up and down.
    ``variance`` is the cluster-robust variance of ``delta``; ``design_effect`` >= 1 divides ``n``
    into the number of independent tasks that the suite is worth.
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
    degrees: float  # of Student's t; infinite for the normal distribution
    method: Method

    def statistic(self, null: float) -> float:
        """The score (or t) statistic of H0: delta = ``null``; positive if the estimate lies above it."""
        effective = self.n / self.design_effect
        if self.method == "score":
            return _tango(self.better / self.n, self.worse / self.n, effective, null)
        gap = self.delta - null
        # If the truth were `null`, at least |gap| of the tasks would have been able to move by one.
        floor = min(abs(gap), 1.0) * (1.0 - min(abs(gap), 1.0)) / effective
        return _ratio(gap, max(self.variance, floor))

    def p_superior(self, null: float = 0.0) -> float:
        """One-sided p of H0: delta <= null. Below alpha / 2 exactly when ``low`` > null."""
        return max(_upper_tail(self.statistic(null), self.degrees), _unanimity(self.clusters))

    def p_inferior(self, null: float = 0.0) -> float:
        """One-sided p of H0: delta >= null. Below alpha / 2 exactly when ``high`` < null."""
        return max(_upper_tail(-self.statistic(null), self.degrees), _unanimity(self.clusters))

    def tasks_needed(self, distance: float, alpha: float, power: float = 0.8) -> int | None:
        """About how many tasks would settle a ``distance`` between the estimate and a boundary.

        n = (z_alpha/2 + z_power)^2 * v / distance^2, with v the variance of one paired difference
        (clustering included), at least what a move of ``distance`` brings. None if ``distance`` is 0.
        """
        if distance <= 0.0:
            return None
        own = self.n * self.variance
        if self.method == "score":
            own = self.design_effect * ((self.better + self.worse) / self.n - self.delta**2)
        v = max(own, self.design_effect * distance * (1.0 - min(distance, 1.0)))
        z = quantile(1.0 - alpha / 2.0) + quantile(power)
        return max(math.ceil(z * z * v / distance**2), self.n + 1)


def paired_difference(
    before_N: Floats,
    after_N: Floats,
    groups_N: Sequence[Hashable],
    alpha: float,
    graded_N: Sequence[bool] | None = None,
) -> Difference:
    """Compare per-task outcomes in [0, 1] of two models; tasks that share a group are not independent.

    Right/wrong outcomes (all 0 or 1) get Tango's score interval at the effective sample size, graded
    ones the cluster-robust t interval. ``graded_N`` is False where either side has no grade: those
    tasks are left out and counted. Raises ValueError for unequal lengths, for an outcome outside
    [0, 1] (or NaN) that is marked as graded, and if no task is left.
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
    cluster_n = np.array([ids[group] for group in groups])
    sizes_G = np.bincount(cluster_n)
    sums_G = np.bincount(cluster_n, weights=moves - delta)
    clusters, within, between = len(ids), float(((moves - delta) ** 2).sum()), float((sums_G**2).sum())
    typical = float((sizes_G**2).sum()) / n  # size of the cluster that an average task sits in
    correction = clusters / (clusters - 1) if clusters > 1 else 1.0  # CR1
    binary = bool(np.all((both == 0.0) | (both == 1.0)))
    free = Difference(
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
        variance=correction * between / n**2,
        design_effect=_design_effect(within, between, n, clusters, typical),
        # Where each task is its own cluster, Tango's variance comes from the null, not from residuals: no t.
        degrees=math.inf if binary and clusters == n else max(n / typical - 1.0, 1.0),
        method="score" if binary else "t",
    )
    if _unanimity(clusters) > alpha / 2.0:
        return free
    limit = quantile(1.0 - alpha / 2.0, free.degrees)
    return replace(
        free,
        low=_bisect(lambda null: free.statistic(null) < limit, inside=delta, outside=-1.0),
        high=_bisect(lambda null: free.statistic(null) > -limit, inside=delta, outside=1.0),
    )


def _design_effect(within: float, between: float, n: int, clusters: int, typical: float) -> float:
    """Cluster-robust over naive variance, at least 1, as if half a cluster more had flipped as one.

    Without the imaginary half, no change at all would say "independent" about tasks of which
    nothing is known; with many observed changes it does not matter. Singletons give exactly 1.
    """
    if clusters < 2:
        return typical
    correction = (clusters / (clusters - 1)) * ((n - 1) / n)
    ratio = (between + PHANTOM_CLUSTERS * typical**2) / (within + PHANTOM_CLUSTERS * typical)
    return max(1.0, correction * ratio)


def _tango(better: float, worse: float, n: float, null: float) -> float:
    """Tango's score statistic; ``better`` and ``worse`` are shares of ``n`` pairs (n may be fractional)."""
    linear = -better - worse + (2.0 - better + worse) * null
    constant = -worse * null * (1.0 - null)
    root = math.sqrt(max(linear * linear - 8.0 * constant, 0.0))
    share = max((root - linear) / 4.0, 0.0, -null)  # of `worse`, most likely if the null is true
    return _ratio(better - worse - null, (2.0 * share + null * (1.0 - null)) / n)


def _ratio(gap: float, variance: float) -> float:
    if abs(gap) < 1e-15:
        return 0.0
    return gap / math.sqrt(variance) if variance > 1e-300 else math.copysign(math.inf, gap)


def _bisect(holds: Callable[[float], bool], inside: float, outside: float) -> float:
    """Farthest point from ``inside`` (where ``holds``) towards ``outside`` at which it still holds."""
    if holds(outside):
        return outside
    for _ in range(BISECTIONS):
        middle = (inside + outside) / 2.0
        inside, outside = (middle, outside) if holds(middle) else (inside, middle)
    return outside


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
