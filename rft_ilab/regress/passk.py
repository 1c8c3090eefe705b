"""pass@k (one of k answers is right) and pass^k (all of k are), from n random answers a task. Pure.

Unbiased estimators: 1 - C(n-c, k) / C(n, k) for pass@k (Chen et al., arXiv 2107.03374) and C(c, k) / C(n, k) for pass^k
(Yao et al., tau-bench, arXiv 2406.12045), with c of n answers right.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from rft_ilab.regress.anytime import Stage, difference
from rft_ilab.regress.pairing import Side, metric
from rft_ilab.regress.verdict import Metric, PassAtK, TaskResult


def pass_at_k(right: int, n: int, k: int) -> float:
    """Chance that at least one of ``k`` answers is right, by ``right`` of ``n``. Raises ValueError unless 1 <= k <= n.

    >>> pass_at_k(1, 4, 2)
    0.5
    """
    _check(right, n, k)
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


def pass_hat_k(right: int, n: int, k: int) -> float:
    """Chance that all of ``k`` answers are right (pass^k), by ``right`` of ``n``. Raises ValueError unless 1 <= k <= n.

    >>> pass_hat_k(3, 4, 2)
    0.5
    """
    _check(right, n, k)
    return math.comb(right, k) / math.comb(n, k)


def passes(before: Side, after: Side, alpha: float, look: Stage | None = None) -> list[PassAtK]:
    """Both for k = 1, 2, 4 ..., compared task by task with clustered intervals.

    Tasks with an ungraded draw on either side are left out, as in the sampled comparison. Empty where nothing was
    drawn, nothing is graded, or a score is neither right nor wrong.
    """
    graded = [_graded(then) and _graded(now) for then, now in zip(before, after, strict=True)]
    kept = [(then, now) for then, now, keep in zip(before, after, graded, strict=True) if keep]
    if not kept or any(score not in (0.0, 1.0) for pair in kept for result in pair for score in result.sampled):
        return []
    counts = [[(sum(map(bool, r.sampled)), len(r.sampled)) for r in side] for side in (before, after)]
    groups = [result.group for result in after]
    n = min(len(result.sampled) for side in (before, after) for result in side)

    def compared(estimator: Callable[[int, int, int], float], k: int) -> Metric:
        then, now = (
            [estimator(right, drawn, k) if keep else 0.0 for (right, drawn), keep in zip(side, graded, strict=True)]
            for side in counts
        )
        return metric(difference(then, now, groups, alpha, graded, look))

    ks = [2**power for power in range(n.bit_length())]
    return [PassAtK(k=k, pass_at=compared(pass_at_k, k), pass_hat=compared(pass_hat_k, k)) for k in ks]


def _graded(result: TaskResult) -> bool:
    return bool(result.sampled) and None not in result.sampled


def _check(right: int, n: int, k: int) -> None:
    if not (0 <= right <= n and 1 <= k <= n):
        raise ValueError(f"{k} of {n} answers, {right} of them right: k and right must lie within n")
