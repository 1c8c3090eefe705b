"""Bets that hold at any time: hand-worked capital, Ville's inequality by simulation, drawing that goes on later."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rft_ilab.regress import betting
from rft_ilab.regress.anytime import Course, by_bets, difference
from rft_ilab.regress.betting import MOST, PRIOR, SLOPE, Book, Terms, capital, stakes
from rft_ilab.regress.statistics import paired_difference

LEVEL = 0.025


def terms(groups: int, size: int = 1, goal: float = LEVEL, drawn: int | None = None) -> Terms:
    return Terms(drawn=groups if drawn is None else drawn, groups=groups, tasks=groups * size, largest=size, goal=goal)


def book(moves: Sequence[float], size: int = 1) -> Book:
    n = len(moves)
    return Book(sums_G=np.array(moves, dtype=float), sizes_G=np.full(n, float(size)), terms=(terms(n, size),))


# ---- by hand ----


def test_the_table_is_the_chance_to_cross_a_line() -> None:
    from scipy.stats import norm  # type: ignore[import-untyped]

    chances, steepness = stakes(betting.DEADLINES - 1)
    # A Brownian motion up to time 1 crosses 1.2 + t/2: by its maximum, P = Phi(-1.7) + e^-1.2 Phi(-.7).
    distance = 1.2
    chance = norm.cdf(-distance - SLOPE) + math.exp(-2 * distance * SLOPE) * norm.cdf(SLOPE - distance)
    nearer = norm.cdf(-distance + 1e-6 - SLOPE) + math.exp(-2 * (distance - 1e-6) * SLOPE) * norm.cdf(
        SLOPE - distance + 1e-6
    )
    found = np.interp(math.log(chance), chances, steepness)
    assert found == pytest.approx((nearer - chance) / 1e-6 / chance, rel=1e-3)
    assert np.all(np.diff(chances) > 0) and chances[-1] == pytest.approx(0.0, abs=1e-12)


def test_first_bet_by_hand() -> None:
    # 100 single tasks, "a loss of at least 10 points". Believed variance of a move off -.1: .1 + .01; all 100 are left.
    chances, steepness = stakes(betting.DEADLINES - 1)
    stake = float(np.interp(math.log(LEVEL), chances, steepness)) / math.sqrt(0.11 * 100)
    assert 0.6 < stake < MOST / 0.9
    for move in (-1.0, 0.0, 0.5, 1.0):
        logs = capital(np.array([move]), np.ones(1), np.array([-0.1]), [terms(100, drawn=1)])
        assert logs[:, 0] == pytest.approx([0.0, math.log1p(stake * (move + 0.1))])


def test_second_bet_by_hand() -> None:
    # After a loss: the variance is (20 * .11 + .81) / 21, 99 groups are left, and the goal is farther.
    (first,) = capital(np.array([-1.0]), np.ones(1), np.array([-0.1]), [terms(100, drawn=1)])[1:, 0]
    chances, steepness = stakes(round((betting.DEADLINES - 1) * 0.99))
    variance = (PRIOR * 0.11 + 0.81) / (PRIOR + 1)
    stake = float(np.interp(first + math.log(LEVEL), chances, steepness)) / math.sqrt(variance * 99)
    logs = capital(np.array([-1.0, 0.0]), np.ones(2), np.array([-0.1]), [terms(100, drawn=2)])
    assert logs[2, 0] == pytest.approx(first + math.log1p(min(stake, MOST / 0.9) * 0.1))


def test_a_bet_never_loses_all_and_never_looks_at_the_size_of_its_group() -> None:
    of = Terms(drawn=1, groups=10, tasks=40, largest=10, goal=LEVEL)
    lost = capital(np.array([-10.0]), np.array([10.0]), np.array([-0.1]), [of])[1, 0]
    assert lost == pytest.approx(math.log1p(-MOST))  # the stake is at its limit: 10 groups are too few
    gains = [capital(np.zeros(1), np.array([m]), np.array([-0.1]), [of])[1, 0] for m in (1.0, 10.0)]
    assert np.expm1(gains[1]) == pytest.approx(10 * np.expm1(gains[0]))
    with pytest.raises(ValueError, match="larger"):
        capital(np.zeros(1), np.array([11.0]), np.array([-0.1]), [of])
    with pytest.raises(ValueError, match="another number"):
        capital(np.zeros(2), np.ones(2), np.array([-0.1]), [of])


def test_nothing_changed_is_shown_by_multiplying() -> None:
    # At the largest stake each unchanged task is worth 1 + .9 * .1 / .9; 40 needs 39 of them, less boldly a few more.
    needed = next(n for n in range(1, 200) if book([0.0] * n + [0.0] * (80 - n)).p(-0.1) <= LEVEL or n == 199)
    logs = capital(np.zeros(80), np.ones(80), np.array([-0.1]), [terms(80)])[:, 0]
    first = int((logs >= math.log(1 / LEVEL)).argmax())
    assert needed == 1 and 39 <= first <= 48
    assert logs[1:] == pytest.approx(np.cumsum(np.diff(logs))) and np.all(np.diff(logs) <= math.log1p(0.1) + 1e-12)


# ---- what holds for every stake ----


@given(
    st.lists(st.tuples(st.integers(1, 6), st.floats(-1, 1)), min_size=1, max_size=12),
    st.floats(-0.9, 0.9),
    st.integers(0, 30),
)
@settings(max_examples=60, deadline=None)
def test_no_bet_gains_on_average_under_the_null(seen: list[tuple[int, float]], null: float, more: int) -> None:
    # The next group moves by +1 or -1 a task with mean `null`, whatever came before: the capital stays, on average.
    sizes = np.array([float(m) for m, _ in seen])
    sums = np.array([m * move for m, move in seen])
    of = [
        Terms(drawn=len(seen) + 1, groups=len(seen) + 1 + more, tasks=7 * (len(seen) + 1 + more), largest=6, goal=0.01)
    ]
    after = []
    for sign in (1.0, -1.0):
        logs = capital(np.append(sums, sign * 4), np.append(sizes, 4.0), np.array([null]), of)
        after.append((math.exp(logs[-1, 0]), logs[-2, 0]))
    assert after[0][1] == after[1][1]
    up = (1.0 + null) / 2.0
    assert up * after[0][0] + (1.0 - up) * after[1][0] == pytest.approx(math.exp(after[0][1]), rel=1e-9)


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.0, 0.0, 1.0]), min_size=8, max_size=60), st.data())
@settings(max_examples=25, deadline=None)
def test_interval_and_p_agree_and_only_narrow(moves: list[float], data: st.DataObject) -> None:
    held, wide = book(moves), book(moves[:-4])
    low, high = held.interval(0.05)
    assert -1.0 <= low <= high <= 1.0
    assert low == -1.0 or held.p(low) <= 0.025 + 1e-9
    assert high == 1.0 or held.p(high, -1) <= 0.025 + 1e-9
    cut = Book(sums_G=held.sums_G[:-4], sizes_G=held.sizes_G[:-4], terms=(terms(len(moves), drawn=len(moves) - 4),))
    then = cut.interval(0.05)
    assert then[0] <= low + 1e-9 and high <= then[1] + 1e-9
    assert wide.p(0.0) <= 1.0


def test_up_and_down_are_the_same_game() -> None:
    moves = [0.0, 1.0, 0.0, -1.0, 1.0, 1.0] * 10
    up, down = book(moves), book([-move for move in moves])
    assert up.p(0.0) == pytest.approx(down.p(0.0, -1))
    assert up.interval(0.05) == pytest.approx(tuple(-end for end in reversed(down.interval(0.05))))


# ---- Ville's inequality ----


def paths(
    rng: np.random.Generator, runs: int, groups: int, size: int, null: float, churn: float
) -> npt.NDArray[np.float64]:
    """(groups, runs): sums of groups that move as one with chance 0.5; the mean move is ``null``."""
    down, up = churn / 2 + max(-null, 0.0), churn / 2 + max(null, 0.0)
    shape = groups, runs, size
    fate = np.where(rng.random((groups, runs, 1)) < 0.5, rng.random((groups, runs, 1)), rng.random(shape))
    return np.asarray(((fate > 1 - up).astype(float) - (fate < down)).sum(axis=2))


def at_most(level: float, runs: int) -> float:
    return level + 3.0 * math.sqrt(level * (1.0 - level) / runs)


@pytest.mark.parametrize(("groups", "size"), [(150, 1), (60, 6), (600, 1)])
@pytest.mark.parametrize(("null", "churn"), [(-0.1, 0.02), (-0.1, 0.3), (0.0, 0.1), (0.0, 0.9)])
def test_a_true_null_is_seldom_rejected_at_any_group(groups: int, size: int, null: float, churn: float) -> None:
    runs = 2000
    sums = paths(np.random.default_rng(groups), runs, groups, size, null, churn)
    logs = capital(sums, np.full(groups, float(size)), np.full(runs, null), [terms(groups, size)])
    assert (logs.max(axis=0) >= -math.log(LEVEL)).mean() <= at_most(LEVEL, runs)
    # Stronger: the expected capital is 1 wherever one stops, here at the first time that it looks good.
    good = logs >= math.log(4.0)
    stopped = np.where(good.any(axis=0), good.argmax(axis=0), groups)
    assert (logs.max(axis=0) >= math.log(4.0)).mean() <= at_most(0.25, runs)
    assert np.exp(logs[stopped, np.arange(runs)]).mean() <= 1.0 + 0.12


def test_more_tasks_may_be_collected_because_of_what_was_seen() -> None:
    # 60 tasks; whoever is not decided collects 60 more, and then 120 more: three horizons, one promise.
    runs, null, rng = 3000, -0.1, np.random.default_rng(2)
    sums = paths(rng, runs, 240, 1, null, 0.1)
    course = [terms(60), terms(120, drawn=60), terms(240, drawn=120)]
    logs = capital(sums, np.ones(240), np.full(runs, null), course)
    shown = logs >= -math.log(LEVEL)
    assert shown.any(axis=0).mean() <= at_most(LEVEL, runs)
    # And it is of use: where nothing is lost, each round decides more.
    same = capital(paths(rng, runs, 240, 1, 0.0, 0.1), np.ones(240), np.full(runs, null), course)
    rounds = [(same[: n + 1] >= -math.log(LEVEL)).any(axis=0).mean() for n in (60, 120, 240)]
    assert rounds[0] < 0.5 and rounds[1] > rounds[0] + 0.15 and rounds[2] > rounds[1] + 0.15
    # What was staked before more was collected stays as it was.
    assert np.array_equal(capital(sums[:60], np.ones(60), np.full(runs, null), course[:1]), logs[:61])


def test_looking_at_naive_p_values_would_break_the_promise() -> None:
    runs = 300
    moves = paths(np.random.default_rng(3), runs, 150, 1, -0.1, 0.3)
    wrong = 0
    for run in range(runs):
        after = (1.0 + moves[:, run]) / 2.0
        wrong += any(
            paired_difference([0.5] * n, after[:n], range(n), 0.05, interval=False).p_superior(-0.05) <= LEVEL
            for n in range(20, 151, 10)
        )
    assert wrong / runs > at_most(LEVEL, runs)


# ---- as the gate uses them ----


def test_differences_by_bets_and_what_is_not_graded() -> None:
    groups = [f"g{i // 2}" for i in range(80)]
    before, after = [1.0] * 80, [1.0] * 78 + [0.0, 1.0]
    course = Course(terms=(terms(60, 2, drawn=40),), available=120, last=False)
    d = difference(before, after, groups, 0.05, stage=course)
    assert d.low < d.delta == -1 / 80 < d.high
    assert (d.p_superior(-0.1) <= LEVEL) == (d.low > -0.1)
    unknown = [float("nan")] * 4 + after[4:]
    graded = [False] * 4 + [True] * 76
    less = difference(before, unknown, groups, 0.05, graded, course)
    assert (less.n, less.ungraded, less.clusters) == (76, 4, 38)
    assert less.p_superior(-0.1) > d.p_superior(-0.1)
    quick = difference(
        before, after, groups, 0.05, stage=Course(terms=course.terms, available=120, last=False, interim=True)
    )
    assert (quick.low, quick.high) == (-1.0, 1.0) and quick.p_superior(-0.1) == d.p_superior(-0.1)


def test_bets_are_chosen_by_the_sizes_of_groups() -> None:
    assert by_bets([1] * 60, 0.1, 0.025) and by_bets([6] * 50, 0.1, 0.025)
    assert not by_bets([1] * 30, 0.1, 0.025)  # too few, even if nothing ever changes
    lopsided = [2] * 114 + [1] * 19 + [9] * 3 + [18, 8]
    assert not by_bets(lopsided, 0.1, 0.025) and not by_bets([], 0.1, 0.025)
