"""A model against itself: how often the rules claim a difference where there is none, and is that too often?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rft_ilab.regress.statistics import wilson


def claimed(verdict: Mapping[str, Any]) -> list[str]:
    """The skills of which a verdict claims a difference that a model cannot have from itself.

    That all targets are better (only together do they make a PASS), or that a watched skill which decides has failed.
    A target's FAIL is none: "gained less than was asked" is true of a model against itself.
    """
    targets = verdict["targets"]
    better = [row["skill"] for row in targets] if all(row["outcome"] == "PASS" for row in targets) else []
    decisive = [row for row in verdict["watched"] if row["tier"] != "advisory"]
    return better + [row["skill"] for row in decisive if row["outcome"] == "FAIL"]


def summary(claims: Sequence[Sequence[str]], alpha: float) -> dict[str, Any]:
    """The flip rate over repetitions (``claims``: per repetition, what was claimed), ready for JSON.

    ``interval`` is Wilson's at 95 %. ``p``: chance of so many flips or more if each had chance ``alpha`` (exact
    binomial); ``exceeds`` if that is below 2.5 %.
    """
    repeats, flips = len(claims), sum(bool(claim) for claim in claims)
    p = at_least(flips, repeats, alpha)
    return {
        "repeats": repeats,
        "flips": flips,
        "rate": flips / repeats,
        "interval": list(wilson(flips, repeats)),
        "alpha": alpha,
        "p": p,
        "exceeds": p <= 0.025,
        "claims": [list(claim) for claim in claims],
    }


def at_least(count: int, n: int, chance: float) -> float:
    """P(X >= count) of a binomial.

    >>> round(at_least(3, 20, 0.05), 4), round(at_least(4, 20, 0.05), 4)
    (0.0755, 0.0159)
    """
    return math.fsum(math.comb(n, k) * chance**k * (1.0 - chance) ** (n - k) for k in range(count, n + 1))
