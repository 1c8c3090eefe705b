"""Deciding at any time: a test by betting, valid after every group of tasks, whatever made one stop there.

A bettor starts with 1 and stakes a share of it on each group before its results are known. Under the null (the mean
move over tasks is ``null`` at most) no such bet gains on average, so the capital is a nonnegative supermartingale and
ever reaches 1 / level with chance ``level`` at most (Ville 1939; Waudby-Smith and Ramdas, JRSS-B 86:1, 2024). That is
exact for any number of groups and any scores in [0, 1], with no schedule: one may look as often as one likes, change
the batches, and collect more tasks later. The evidence is the largest capital so far; p is its inverse, and the nulls
that are not rejected are a confidence sequence.

A bet is on a group's sum less what the null expects of its tasks. The stake does not look at the size of the group to
come, only at the largest there is: large groups may have lost more than small ones, and the mean is over tasks.

How much is staked decides nothing but how soon one is done. It is known here how many groups there are, so the stakes
are those that let the capital follow, in the limit of many groups, the chance that a Brownian motion crosses a line
before the suite ends: as one hedges a barrier option, or as Browne (Advances in Applied Probability 31:551, 1999) bets
to reach a goal by a deadline. A flat line (``SLOPE`` 0) decides most by the end and seldom early, a steep one is
Kelly's bet, which knows no end. The variance is learnt from the groups before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

SLOPE = 0.5  # of the line, where the whole suite has variance 1
MOST = 0.9  # of the capital that a bet may lose
PRIOR = 20.0  # groups that the variance is believed for before any was seen
DISCORDANCE, ICC = 0.1, 0.5  # what is believed: as in rft_ilab.regress.power
DEADLINES, CHANCES = 33, 160  # entries of the table of stakes
LEAST_CHANCE = 1e-7
COARSE, FINE = 201, 65  # nulls of a confidence sequence that are tried


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is known of a suite before a stretch of its groups is answered. The bets on them use it, and nothing else.

    ``drawn``: groups in the stretch; ``groups``, ``tasks``: of the whole suite, what was drawn before included;
    ``largest``: tasks of its largest group; ``goal``: level at which something is to be shown.
    """

    drawn: int
    groups: int
    tasks: int
    largest: int
    goal: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """Sums of moves and numbers of tasks of the groups in the order drawn, and the terms of their stretches."""

    sums_G: Array
    sizes_G: Array
    terms: tuple[Terms, ...]

    def evidence(self, nulls_V: Array, sign: int = 1) -> Array:
        """Largest capital so far, as a logarithm, against a mean of ``nulls_V`` at most (``sign`` -1: at least)."""
        return np.maximum(capital(sign * self.sums_G, self.sizes_G, sign * nulls_V, self.terms).max(axis=0), 0.0)

    def p(self, null: float, sign: int = 1) -> float:
        """One-sided p that holds at any time."""
        return math.exp(-float(self.evidence(np.array([null]), sign)[0]))

    def interval(self, alpha: float) -> tuple[float, float]:
        """The confidence sequence at two-sided level 1 - ``alpha``: ever wrong with that chance at most."""
        return self._bound(alpha / 2.0, 1), -self._bound(alpha / 2.0, -1)

    def _bound(self, level: float, sign: int) -> float:
        """The largest null such that it and all below it that were tried are rejected; -1 if none is."""
        low, high = -1.0, 1.0
        for tried in (COARSE, FINE):
            nulls_V = np.linspace(low, high, tried)
            open_V = self.evidence(sign * nulls_V, sign) < -math.log(level)
            first = int(open_V.argmax()) if open_V.any() else tried - 1
            if first == 0:
                return low
            low, high = float(nulls_V[first - 1]), float(nulls_V[first])
        return low


def capital(sums_G: Array, sizes_G: Array, nulls_V: Array, terms: Sequence[Terms]) -> Array:
    """(groups + 1, nulls): logarithm of the capital of a bettor against a mean of at most each null, from 0 on.

    ``sums_G`` may have a column a null, for as many suites that were drawn alike.
    Raises ValueError if a group is larger than its terms say, or the terms are of another number of groups.
    """
    if sum(stretch.drawn for stretch in terms) != len(sums_G):
        raise ValueError("the terms are of another number of groups")
    logs = np.zeros((len(sums_G) + 1, len(nulls_V)))
    log_V, squares_V, seen = logs[0], np.zeros(len(nulls_V)), 0
    for stretch in terms:
        if sizes_G[seen : seen + stretch.drawn].max(initial=0.0) > stretch.largest:
            raise ValueError("a group is larger than the largest")
        size = stretch.tasks / stretch.groups
        prior_V = size * DISCORDANCE * (1.0 + (size - 1.0) * ICC) + (nulls_V * size) ** 2
        most_V = MOST / (stretch.largest * np.maximum(1.0 + nulls_V, 1e-9))
        for g in range(seen, seen + stretch.drawn):
            left = max(stretch.groups - g, 1)
            chances, steepness = stakes(round((DEADLINES - 1) * left / stretch.groups))
            steep_V = np.interp(log_V + math.log(stretch.goal), chances, steepness)
            scale_V = np.sqrt((PRIOR * prior_V + squares_V) / (PRIOR + g) * left)
            gains_V = sums_G[g] - nulls_V * sizes_G[g]
            log_V = log_V + np.log1p(np.minimum(steep_V / scale_V, most_V) * gains_V)
            squares_V = squares_V + gains_V**2
            logs[g + 1] = log_V
        seen += stretch.drawn
    return logs


@lru_cache(maxsize=DEADLINES)
def stakes(deadline: int) -> tuple[Array, Array]:
    """Log of the chance to cross the line, and how it grows with the Brownian motion, for each distance to the line.

    ``deadline``: share of the suite that is left, in steps of 1 / (DEADLINES - 1). With a distance a and a slope b the
    chance is P(-a - b) + e^(-2ab) P(b - a), P being the normal distribution (the reflection principle with drift).
    """
    from scipy.special import log_ndtr, ndtr  # type: ignore[import-untyped]

    b = SLOPE * math.sqrt(deadline / (DEADLINES - 1))
    distances = np.linspace(6.0, 0.0, CHANCES)
    chances = ndtr(-distances - b) + np.exp(-2.0 * distances * b + log_ndtr(b - distances))
    density = np.exp(-0.5 * (distances + b) ** 2) / math.sqrt(2.0 * math.pi)
    slopes = 2.0 * density + 2.0 * b * np.exp(-2.0 * distances * b + log_ndtr(b - distances))
    return np.log(chances), slopes / chances
