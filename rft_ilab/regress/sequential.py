"""Deciding early: looks at a growing part of a suite that stay honest whichever of them ends the test.

A test that is repeated after every batch at its usual level claims a difference sooner or later. Here the level of each
look is such that the chance to claim wrongly at *any* of them is at most alpha, so stopping may depend on the results:
repeated confidence intervals and p-values (Jennison and Turnbull, JRSS-B 51:305, 1989) with the boundaries of
Wang and Tsiatis (Biometrics 43:193, 1987), z >= c * t^(SHAPE - 1/2) after the share t of the tasks, and c from the
joint distribution of the looks (Armitage, McPherson and Rowe, JRSS-A 132:235, 1969). The statistic of a look is that of
:mod:`rft_ilab.regress.statistics`, its clusters included; with one look it is the fixed rule.

What must hold: the order of tasks and the looks are fixed before any result is seen (:func:`batches`), by content
alone. Groups are drawn whole, so that each look has seen independent groups, and the estimand at every look is the
fixed rule's: the mean difference over tasks. ``tools/simulate_sequential.py`` shows the error rates, beside those of
bets (:mod:`rft_ilab.regress.betting`), which need no schedule.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from statistics import NormalDist
from typing import Literal

import numpy as np

from rft_ilab.regress.statistics import Difference
from rft_ilab.types import digest

SHAPE = 0.25  # 0: O'Brien and Fleming, hardly ever early; 0.5: Pocock, the same level at every look
MAX_LOOKS = 40  # larger suites get larger batches
NODES = 96  # of Gauss-Legendre between two boundaries; 1e-9 with 40 looks
TAIL = 8.5  # standard deviations below which nothing is left
BISECTIONS = 40

NORMAL = NormalDist()


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at a suite of ``available`` tasks: number ``index`` (from 0) of those after ``shares_K`` of the tasks.

    ``shares_K`` rises to 1: the last look sees the whole suite. ``constant``: its most frequent class, if it has
    classes (the most frequent one of a batch would be a harder rival, chosen by chance).
    """

    shares_K: tuple[float, ...]
    index: int
    available: int
    constant: str | None = None

    @property
    def last(self) -> bool:
        return self.index == len(self.shares_K) - 1

    @property
    def kind(self) -> Literal["scheduled", "anytime"]:
        return "scheduled"

    @property
    def share(self) -> float:
        return self.shares_K[self.index]

    def level(self, alpha: float) -> float:
        """Two-sided level of this look's interval, where all looks together have ``alpha``."""
        return 2.0 * levels(self.shares_K, alpha / 2.0)[self.index]

    def p(self, alone: float) -> float:
        """One-sided p that allows for all looks, of a p that holds for this look ``alone``."""
        if not 0.0 < alone < 1.0:
            return alone
        return max(alone, _ever(self.shares_K, -NORMAL.inv_cdf(alone) * self.share ** (0.5 - SHAPE), SHAPE))


@dataclass(frozen=True, slots=True, kw_only=True)
class Interim(Difference):
    """A difference on the part of a suite that was drawn so far; p-values and interval allow for all looks."""

    look: Look

    def p_superior(self, null: float = 0.0) -> float:
        return self.look.p(Difference.p_superior(self, null))

    def p_inferior(self, null: float = 0.0) -> float:
        return self.look.p(Difference.p_inferior(self, null))


def at_look(difference: Difference, look: Look) -> Interim:
    """``difference``, whose interval has the level :meth:`Look.level`, as seen at that look."""
    return Interim(**{f.name: getattr(difference, f.name) for f in fields(difference)}, look=look)


def batches(
    groups_N: Sequence[str],
    size: int,
    key: Sequence[str | int],
    first: Sequence[str] = (),
    most: int = MAX_LOOKS,
) -> list[list[int]]:
    """Task indices in the order of drawing, in batches of about ``size`` tasks: whole groups, shuffled by content.

    ``key`` (skill, seed) and the groups' names alone decide the order of groups; tasks of a group keep theirs.
    A rest of less than half a batch joins the last one; more than ``most`` batches are made larger. The groups
    ``first``, drawn before, are the first batch as they are.
    """
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups_N):
        members.setdefault(group, []).append(index)
    size = max(size, math.ceil(len(groups_N) / most))
    drawn = [[index for group in first for index in members.pop(group)]]
    left, closed = len(groups_N) - len(drawn[0]), bool(first)
    for group in sorted(members, key=lambda name: digest([*key, name])):
        if closed or (len(drawn[-1]) >= size and 2 * left >= size):
            drawn.append([])
            closed = False
        drawn[-1] += members[group]
        left -= len(members[group])
    return drawn


def schedule(sizes_K: Sequence[int]) -> tuple[float, ...]:
    """Share of the tasks seen after each batch.

    >>> schedule([30, 30, 40])
    (0.3, 0.6, 1.0)
    """
    seen = np.cumsum(sizes_K)
    if seen[-1] == 0:
        return (1.0,)
    return tuple(float(count / seen[-1]) for count in seen)


@lru_cache(maxsize=1024)
def levels(shares_K: tuple[float, ...], level: float, shape: float = SHAPE) -> tuple[float, ...]:
    """One-sided level of each look, so that a true null is ever rejected with chance ``level``."""
    if len(shares_K) == 1:
        return (level,)
    low, high = 0.0, 9.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if _ever(shares_K, middle, shape) > level else (low, middle)
    return tuple(NORMAL.cdf(-high * share ** (shape - 0.5)) for share in shares_K)


def _ever(shares_K: tuple[float, ...], c: float, shape: float) -> float:
    """Chance that z is c * t^(shape - 1/2) or more at any look."""
    return sum(crossing(shares_K, [c * share**shape for share in shares_K]))


def crossing(shares_K: Sequence[float], bounds_K: Sequence[float], drift: float = 0.0) -> list[float]:
    """Per look, the chance that a Brownian motion with ``drift``, seen at times ``shares_K``, is first above its bound.

    The density of the paths still below is carried from look to look on Gauss-Legendre nodes.
    """
    from scipy.special import ndtr  # type: ignore[import-untyped]

    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    places, mass, time = np.zeros(1), np.ones(1), 0.0
    first = []
    for share, bound in zip(shares_K, bounds_K, strict=True):
        step, shifted = math.sqrt(share - time), places + drift * (share - time)
        first.append(float(mass @ ndtr((shifted - bound) / step)))
        bottom = min(drift * share - TAIL * math.sqrt(share), bound)
        half = (bound - bottom) / 2.0
        places = bottom + half * (nodes + 1.0)
        density = np.exp(-0.5 * ((places[:, None] - shifted) / step) ** 2) @ mass / (step * math.sqrt(2.0 * math.pi))
        mass, time = density * weights * half, share
    return first
