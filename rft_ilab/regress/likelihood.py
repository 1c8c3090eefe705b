"""A score test for a mean in [-1, 1], exact where Tango's is and honest where nothing moved. Pure functions.

Tango's test for paired proportions (Statistics in Medicine 17:891, 1998) asks: of all distributions of right and wrong
answers with the difference ``null``, which makes what was seen most likely, and how far from ``null`` is the observed
difference in standard errors of *that* distribution? It may give weight to outcomes that were never seen, and that is
why it does not call a suite certain in which nothing moved. Here the same question is asked of all distributions of
cluster totals, on the totals seen and on the two extremes, a cluster that moves as a whole. That is constrained
empirical likelihood (Owen, *Empirical Likelihood*, 2001, chapter 2), and the statistic is its Lagrange multiplier:
with n tasks, a gap between estimate and null, and multiplier L, z squared is n gap L. For right and wrong answers
without clusters that is Tango's z, to the last digit (``tests/unit/test_statistics.py``).

Added: a correction of up to one task, or cluster. Half of it is Yates's, for steps; the other half is the first term of
Edgeworth's expansion, for skewness, at z squared = 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

STEPS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Equal clusters are one entry: ``counts_U`` of them have ``sizes_U`` tasks, whose moves sum to ``sums_U``."""

    sums_U: Array
    sizes_U: Array
    counts_U: Array
    n: float  # tasks; no whole number where totals are expectations
    clusters: float
    typical: float  # size of the cluster in which an average task sits: the extremes are as large
    squares: float  # sum of the squared moves of the tasks

    @classmethod
    def of(cls, moves_N: Array, cluster_N: npt.NDArray[np.int64]) -> Totals:
        """``cluster_N`` numbers the clusters from 0, none left out."""
        sizes_G = np.bincount(cluster_N).astype(float)
        sums_G = np.bincount(cluster_N, weights=moves_N)
        pairs_U, counts_U = np.unique(sums_G + 1j * sizes_G, return_counts=True)
        n = len(moves_N)
        return cls(
            sums_U=pairs_U.real,
            sizes_U=pairs_U.imag,
            counts_U=counts_U.astype(float),
            n=n,
            clusters=len(sizes_G),
            typical=float((sizes_G**2).sum()) / n,
            squares=float(moves_N @ moves_N),
        )

    def statistic(self, null: float, corrected: bool = True) -> float:
        """z of H0: the mean move is ``null``; positive if the estimate lies above it."""
        gap = float(self.counts_U @ self.sums_U) / self.n - null
        if abs(gap) < 1e-15:
            return 0.0
        sign = math.copysign(1.0, gap)
        residuals_U = sign * (self.sums_U - null * self.sizes_U)
        extreme = self.typical * (1.0 + sign * null)  # size of the residual of a cluster that moved against the gap
        multiplier = _multiplier(residuals_U, self.counts_U, extreme)
        if math.isinf(multiplier):
            return sign * math.inf
        z = math.sqrt(self.n * abs(gap) * multiplier)
        if corrected:
            z *= max(1.0 - self._correction(residuals_U, multiplier, extreme) / abs(gap), 0.0)
        return sign * z

    def effective(self, null: float) -> float:
        """How many equal clusters would estimate the variance under ``null`` as surely: Satterthwaite's rule.

        The variance is estimated by a sum over clusters, each of which contributes in proportion to its own variance
        g = m (1 + (m - 1) r), with m tasks and correlation r: (sum g)^2 / sum g^2 (Carter, Schnepel and Steigerwald
        2017; Bell and McCaffrey 2002). As Imbens and Kolesar (2016) do, r is estimated, from the residuals under
        ``null``. That is the number of clusters where all are equally large, and of the order of the number of large
        ones where these move as one.
        """
        residuals_U = self.sums_U - null * self.sizes_U
        alone = self.squares - 2.0 * null * float(self.counts_U @ self.sums_U) + self.n * null**2
        pairs_U = self.sizes_U * (self.sizes_U - 1.0)
        pairs = float(self.counts_U @ pairs_U)
        if pairs <= 0.0:
            return self.clusters
        together = float(self.counts_U @ residuals_U**2) - alone
        share = 1.0 if alone <= 1e-12 else min(max(together / pairs / (alone / self.n), 0.0), 1.0)
        variances_U = self.sizes_U + share * pairs_U
        return float(self.counts_U @ variances_U) ** 2 / float(self.counts_U @ variances_U**2)

    def _correction(self, residuals_U: Array, multiplier: float, extreme: float) -> float:
        """Between 0 and one typical cluster, as a share of the tasks; half of one without skewness."""
        weights_U = self.counts_U / (self.clusters * (1.0 + multiplier * residuals_U))
        unseen = max(1.0 - float(weights_U.sum()), 0.0)
        second = float(weights_U @ residuals_U**2) + unseen * extreme**2
        third = float(weights_U @ residuals_U**3) - unseen * extreme**3
        skew = third / (second * self.typical) if second > 0.0 else 0.0
        return min(max(0.5 + 0.5 * skew, 0.0), 1.0) * self.typical / self.n

    def interval(self, limit: float | Callable[[float], float], corrected: bool = True) -> tuple[float, float]:
        """The nulls at which z lies between ``-limit`` and ``limit`` (which may depend on the null)."""
        bound = limit if callable(limit) else lambda null: limit
        middle = float(self.counts_U @ self.sums_U) / self.n
        low = _crossing(lambda null: self.statistic(null, corrected) - bound(null), inside=middle, outside=-1.0)
        high = _crossing(lambda null: -self.statistic(null, corrected) - bound(null), inside=middle, outside=1.0)
        return min(low, middle), max(high, middle)


def _multiplier(residuals_U: Array, counts_U: Array, extreme: float) -> float:
    """The root L of sum c r / (1 + L r), but at most 1 / ``extreme``: from there on unseen extremes take the rest."""
    least = float(residuals_U.min())
    top = 1.0 / max(extreme, -least, 1e-300)
    if top > 1e299:
        return math.inf
    if -least < extreme * (1.0 - 1e-12) and float(counts_U @ (residuals_U / (1.0 + top * residuals_U))) >= 0.0:
        return top
    low, high = 0.0, top
    here = min(float(counts_U @ residuals_U) / float(counts_U @ residuals_U**2), top / 2.0)
    for _ in range(STEPS):  # Newton's method, kept between bounds
        shares_U = residuals_U / (1.0 + here * residuals_U)
        value, slope = float(counts_U @ shares_U), float(counts_U @ shares_U**2)
        low, high = (here, high) if value > 0.0 else (low, here)
        there = here + value / slope
        if not low < there < high:
            there = (low + high) / 2.0
        if abs(there - here) <= 1e-13 * here:
            break
        here = there
    return here


def _crossing(excess: Callable[[float], float], inside: float, outside: float) -> float:
    """Where ``excess``, negative at ``inside``, reaches zero on the way to ``outside`` (itself, if it never does).

    Illinois's variant of the false position, on values that are cut off so that an infinite one does no harm.
    """
    at_inside, at_outside = max(excess(inside), -9.0), min(excess(outside), 9.0)
    if at_outside <= 0.0:
        return outside
    kept = 0
    for _ in range(2 * STEPS):
        middle = (inside * at_outside - outside * at_inside) / (at_outside - at_inside)
        if not min(inside, outside) < middle < max(inside, outside):
            middle = (inside + outside) / 2.0
        value = min(max(excess(middle), -9.0), 9.0)
        if value >= 0.0:
            outside, at_outside = middle, value
            at_inside = at_inside / 2.0 if kept == 1 else at_inside
            kept = 1
        else:
            inside, at_inside = middle, value
            at_outside = at_outside / 2.0 if kept == -1 else at_outside
            kept = -1
        if abs(outside - inside) < 1e-13 or value == 0.0:
            break
    return outside
