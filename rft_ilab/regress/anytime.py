"""What is concluded of a suite that is drawn until it is decided: at a look of a schedule, or at any time by bets.

A schedule (:mod:`rft_ilab.regress.sequential`) leans on the fixed rule's statistic and is fixed beforehand. Bets
(:mod:`rft_ilab.regress.betting`) need no schedule and hold exactly, but cannot win where few large groups could hold
the loss: then the most that may be staked is too little for all the groups there are. :func:`by_bets` chooses between
the two by the sizes of the groups alone, before anything is answered.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

from rft_ilab.regress.betting import MOST, Book, Terms
from rft_ilab.regress.sequential import Look, at_look
from rft_ilab.regress.statistics import Difference, Floats, paired_difference

ROOM = 1.2  # of the capital's logarithm that must be within reach if every task keeps its outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How far a suite was drawn, and what was known whenever more of it was: see :class:`Terms`.

    ``available``, ``constant``: as in :class:`Look`. ``last``: all of the suite is drawn. ``interim``: only outcomes
    are wanted, and no interval is computed.
    """

    terms: tuple[Terms, ...]
    available: int
    last: bool
    constant: str | None = None
    interim: bool = False

    @property
    def kind(self) -> Literal["scheduled", "anytime"]:
        return "anytime"


Stage = Look | Course


@dataclass(frozen=True, slots=True, kw_only=True)
class Wagered(Difference):
    """A difference whose p-values and interval hold at any time."""

    book: Book

    def p_superior(self, null: float = 0.0) -> float:
        return self.book.p(null)

    def p_inferior(self, null: float = 0.0) -> float:
        return self.book.p(null, sign=-1)


def difference(
    before_N: Floats,
    after_N: Floats,
    groups_N: Sequence[Hashable],
    alpha: float,
    graded_N: Sequence[bool] | None = None,
    stage: Stage | None = None,
) -> Difference:
    """:func:`paired_difference` of the tasks drawn so far, in the order drawn (without ``stage``: of a whole suite)."""
    if stage is None:
        return paired_difference(before_N, after_N, groups_N, alpha, graded_N)
    if isinstance(stage, Look):
        return at_look(paired_difference(before_N, after_N, groups_N, stage.level(alpha), graded_N), stage)
    found = paired_difference(before_N, after_N, groups_N, alpha, graded_N, interval=False)
    book = _book(before_N, after_N, groups_N, graded_N, stage.terms)
    values = {f.name: getattr(found, f.name) for f in fields(found)}
    if not stage.interim:
        low, high = book.interval(alpha)
        values |= {"low": min(low, found.delta), "high": max(high, found.delta)}
    return Wagered(**values, book=book)


def _book(
    before_N: Floats,
    after_N: Floats,
    groups_N: Sequence[Hashable],
    graded_N: Sequence[bool] | None,
    terms: tuple[Terms, ...],
) -> Book:
    """A group without a grade stays, as one of no tasks: the order and the terms are those of what was drawn."""
    numbers = {group: index for index, group in enumerate(dict.fromkeys(groups_N))}
    index_N = np.array([numbers[group] for group in groups_N], dtype=np.int64)
    graded = np.ones(len(index_N), dtype=bool) if graded_N is None else np.asarray(graded_N, dtype=bool)
    moves_N = np.where(graded, np.asarray(after_N, dtype=float) - np.asarray(before_N, dtype=float), 0.0)
    return Book(
        sums_G=np.bincount(index_N, weights=moves_N, minlength=len(numbers)).astype(float),
        sizes_G=np.bincount(index_N, weights=graded.astype(float), minlength=len(numbers)).astype(float),
        terms=terms,
    )


def by_bets(sizes: Sequence[int], margin: float, goal: float) -> bool:
    """Can bets show, with some room, that nothing is worse than ``margin`` where no outcome changes at all?

    ``sizes``: tasks of each group of the suite.

    >>> by_bets([1] * 150, 0.1, 0.025), by_bets([1] * 140 + [20], 0.1, 0.025)
    (True, False)
    """
    if not sizes:
        return False
    gain = MOST * margin / (1.0 - margin) * (sum(sizes) / len(sizes)) / max(sizes)
    return len(sizes) * math.log1p(gain) >= -ROOM * math.log(goal)
