"""Which group of tasks (a template, a seed) lost most: where to look first when a skill became worse."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rft_ilab.regress.verdict import WorstGroup


def worst_group(
    before_N: npt.ArrayLike, after_N: npt.ArrayLike, groups_N: Sequence[str], graded_N: Sequence[bool]
) -> WorstGroup | None:
    """The group with the largest summed loss over its graded tasks; None if no group lost anything.

    Of equal sums the one whose mean fell further, then the first in the alphabet. A description, not a test: the worst
    of many groups looks bad by chance alone.
    """
    kept = np.asarray(graded_N, dtype=bool)
    before, after = np.asarray(before_N, dtype=float)[kept], np.asarray(after_N, dtype=float)[kept]
    if not kept.any():
        return None
    names, index = np.unique(np.asarray(groups_N, dtype=object)[kept].astype(str), return_inverse=True)
    counts_G = np.bincount(index)
    before_G, after_G = np.bincount(index, before), np.bincount(index, after)
    loss_G = before_G - after_G
    worst = min(range(len(names)), key=lambda g: (-loss_G[g], -loss_G[g] / counts_G[g], names[g]))
    # Sums of scores like 0.1 leave rounding errors behind.
    if loss_G[worst] <= 1e-9:
        return None
    n = int(counts_G[worst])
    return {
        "group": str(names[worst]),
        "n": n,
        "before": float(before_G[worst]) / n,
        "after": float(after_G[worst]) / n,
    }
