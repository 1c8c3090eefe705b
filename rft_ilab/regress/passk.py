"""pass@k (one of k answers is right) and pass^k (all of k are), from n random answers a task. Pure.

Unbiased estimators: 1 - C(n-c, k) / C(n, k) for pass@k (Chen et al., arXiv 2107.03374) and C(c, k) / C(n, k) for pass^k
(Yao et al., tau-bench, arXiv 2406.12045), with c of n answers right.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from rft_ilab.regress.pairing import Score, Side, compare, graded_everywhere, metric
from rft_ilab.regress.sequential import Look
from rft_ilab.regress.verdict import PassAtK, TaskResult


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


def passes(before: Side, after: Side, alpha: float, look: Look | None = None) -> list[PassAtK]:
    """Both for k = 1, 2, 4 ..., compared task by task with clustered intervals.

    Tasks with an ungraded draw on either side are left out, as in the sampled comparison. Empty where nothing was
    drawn, nothing is graded, or a score is neither right nor wrong.
    """
    graded = graded_everywhere([before, after], _drawn)
    scores = [s for side in (before, after) for r, keep in zip(side, graded, strict=True) if keep for s in r.sampled]
    if not scores or any(score not in (0.0, 1.0) for score in scores):
        return []
    n = min(len(result.sampled) for side in (before, after) for result in side)
    rows = []
    for k in (2**power for power in range(n.bit_length())):
        at = compare(before, after, _score(pass_at_k, k), graded, alpha, look)
        hat = compare(before, after, _score(pass_hat_k, k), graded, alpha, look)
        rows.append(PassAtK(k=k, pass_at=metric(at), pass_hat=metric(hat)))
    return rows


def _drawn(result: TaskResult) -> float:
    return 0.0 if result.sampled and all(score is not None for score in result.sampled) else math.nan


def _score(estimator: Callable[[int, int, int], float], k: int) -> Score:
    def score(result: TaskResult) -> float:
        if math.isnan(_drawn(result)):
            return math.nan
        return estimator(sum(value == 1.0 for value in result.sampled), len(result.sampled), k)

    return score


def _check(right: int, n: int, k: int) -> None:
    if not (0 <= right <= n and 1 <= k <= n):
        raise ValueError(f"{k} of {n} answers, {right} of them right: k and right must lie within n")
