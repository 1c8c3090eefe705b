"""The accuracy of one model with its interval, where tasks that share a group are not independent."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from rft_ilab.regress.statistics import paired_difference, quantile


def accuracy_interval(scores_N: npt.ArrayLike, groups_N: Sequence[Hashable], alpha: float) -> tuple[float, float]:
    """Two-sided interval at level 1 - ``alpha`` of a mean score in [0, 1].

    Right/wrong scores: Wilson's (1927) at the effective sample size, with t's quantile where tasks are clustered
    (Korn and Graubard, Survey Methodology 24:193, 1998). Graded ones: that of the paired comparison with zeros. From
    too few groups to show anything it is [0, 1]. Raises ValueError without scores, or for one outside [0, 1].

    >>> [round(end, 3) for end in accuracy_interval([1.0] * 10, range(10), 0.05)]
    [0.722, 1.0]
    """
    scores = np.asarray(scores_N, dtype=float)
    d = paired_difference(np.zeros_like(scores), scores, groups_N, alpha)
    if (d.low, d.high) == (-1.0, 1.0):
        return 0.0, 1.0
    if not np.all((scores == 0.0) | (scores == 1.0)):
        return max(d.low, 0.0), min(d.high, 1.0)
    limit = quantile(1.0 - alpha / 2.0, d.degrees(d.delta))
    n, share, l2 = d.n / d.design_effect, d.after, limit * limit
    centre, spread = share + l2 / (2 * n), limit * math.sqrt(share * (1 - share) / n + l2 / (4 * n * n))
    return max((centre - spread) / (1 + l2 / n), 0.0), min((centre + spread) / (1 + l2 / n), 1.0)
