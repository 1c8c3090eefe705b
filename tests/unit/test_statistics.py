"""Paired comparison: published numbers, hand-worked numbers, properties, and coverage by simulation."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rft_ilab.regress.classes import class_means, macro_mean, majority
from rft_ilab.regress.statistics import Difference, clusters_needed, holm, paired_difference, quantile, wilson

Z = 1.959963984540054


def table(better: int, worse: int, n: int, alpha: float = 0.05) -> Difference:
    """A 2x2 table: ``better`` wrong -> right, ``worse`` right -> wrong, the rest right on both sides."""
    before = [0] * better + [1] * worse + [1] * (n - better - worse)
    after = [1] * better + [0] * worse + [1] * (n - better - worse)
    return paired_difference(before, after, range(n), alpha)


# ---- published and hand-worked numbers ----


def tango(better: int, worse: int, n: int, null: float) -> float:
    """Tango's score statistic, equations 24 to 26 of the paper."""
    linear = -better - worse + (2 * n - better + worse) * null
    root = math.sqrt(linear**2 + 8 * n * worse * null * (1 - null))
    share = max((root - linear) / (4 * n), -null, 0.0)
    return (better - worse - n * null) / math.sqrt(n * (2 * share + null * (1 - null)))


def test_example_of_tangos_paper() -> None:
    # Tango 1998, section 6.1 (soft contact lenses): 43 / 0 / 1 / 0, margin 0.1, 90 % interval.
    totals = table(better=0, worse=1, n=44).totals
    assert totals.statistic(-0.1, corrected=False) == pytest.approx(1.709, abs=5e-4)
    assert totals.interval(quantile(0.95), corrected=False)[0] == pytest.approx(-0.096, abs=5e-4)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 80), st.floats(-0.95, 0.95))
def test_of_right_and_wrong_it_is_tangos_statistic(better: int, worse: int, same: int, null: float) -> None:
    n = better + worse + same
    if abs((better - worse) / n - null) > 1e-6:
        mine = table(better, worse, n).totals.statistic(null, corrected=False)
        assert mine == pytest.approx(tango(better, worse, n, null), rel=1e-6)


def test_empirical_likelihood_by_hand() -> None:
    # Moves 0 and 1/2, null 1/4 above... both residuals are -+1/4: they balance, so L = 0 where the null is the mean.
    # At null 0 they are 0 and 1/2; nothing seen lies below, so L = 1 (the extreme is 1) and z^2 = 2 * 1/4 * 1.
    totals = paired_difference([0.0, 0.0], [0.0, 0.5], range(2), 0.05).totals
    assert totals.statistic(0.25) == 0.0
    assert totals.statistic(0.0, corrected=False) == pytest.approx(math.sqrt(0.5))
    # Weights 1/2 and 1/3 on what was seen, 1/6 on the extreme -1: variance 1/12 + 1/6, third moment 1/24 - 1/6, so the
    # skewness is -1/2 and the correction a quarter of a task.
    assert totals.statistic(0.0) == pytest.approx(math.sqrt(0.5) * (1 - 0.25 / 2 / 0.25))


@pytest.mark.parametrize(
    ("better", "worse", "n", "alpha", "low", "high"),
    [
        (1, 7, 21, 0.05, -0.517, -0.026),  # Fagerland, Lydersen and Laake 2014: airway reactivity
        (28, 25, 618, 0.10, -0.0148, 0.0247),  # R: PropCIs::scoreci.mp(25, 28, 618, 0.90)
    ],
)
def test_published_score_intervals(better: int, worse: int, n: int, alpha: float, low: float, high: float) -> None:
    difference = table(better, worse, n, alpha)
    plain = difference.totals.interval(quantile(1 - alpha / 2), corrected=False)
    assert plain == (pytest.approx(low, abs=6e-4), pytest.approx(high, abs=6e-4))
    # The correction is worth up to one task on each side, and never narrows the interval.
    assert low - 1.5 / n < difference.low < low + 1e-3 and high - 1e-3 < difference.high < high + 1.5 / n
    assert (difference.better, difference.worse, difference.n) == (better, worse, n)


def test_at_no_difference_the_score_test_is_mcnemars() -> None:
    assert table(12, 2, 50).totals.statistic(0.0, corrected=False) == pytest.approx((12 - 2) / math.sqrt(12 + 2))
    # Corrected by half a task: 12 - 2 less 1/2.
    assert table(12, 2, 50).statistic(0.0) == pytest.approx((12 - 2 - 0.5) / math.sqrt(12 + 2))


@pytest.mark.parametrize("n", [10, 100, 1000])
def test_no_discordant_pair_still_leaves_doubt(n: int) -> None:
    # With b = c = 0 the score equation solves in closed form: z^2 / (n + z^2).
    difference = table(0, 0, n)
    low, high = difference.totals.interval(Z, corrected=False)
    assert high == pytest.approx(Z**2 / (n + Z**2)) and low == pytest.approx(-high)
    # If x of all tasks could be lost and none was, (1 - x)^n = 2.5 %: at least as wide as that exact bound.
    exact = 1 - 0.025 ** (1 / n)
    assert -difference.low == pytest.approx(difference.high) and exact <= difference.high <= 1.15 * exact


def test_no_change_in_clusters_counts_as_few_tasks() -> None:
    # 50 templates x 6 variants, nothing moved: worth 50 tasks, and t with 49 degrees of freedom.
    difference = paired_difference([1] * 300, [1] * 300, [i // 6 for i in range(300)], 0.05)
    t = quantile(0.975, 49)
    assert difference.totals.interval(t, corrected=False)[1] == pytest.approx(t**2 / (50 + t**2))
    assert difference.design_effect == 6


def test_effective_number_of_groups_by_hand() -> None:
    # Groups of 1, 1 and 4. As one (a loss of all four): variances 1, 1, 16, so 18^2 / (1 + 1 + 256).
    groups, before = ["a", "b", "c", "c", "c", "c"], [1.0] * 6
    as_one = paired_difference(before, [1.0, 1.0, 0.0, 0.0, 0.0, 0.0], groups, 0.05)
    assert as_one.totals.effective(0.0) == pytest.approx(18**2 / 258)
    assert as_one.degrees(0.0) == 1.0
    # Apart: one up and one down in the group of 4 cancel, so variances 1, 1, 4.
    apart = paired_difference([1.0, 1.0, 1.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 1.0, 1.0, 1.0], groups, 0.05)
    assert apart.totals.effective(0.0) == pytest.approx(6**2 / 18)
    # Against -1 the residuals are 1, 1 and 0 2 1 1: squares 8, of groups 1 + 1 + 16, so r = (18 - 8) / 12 / (8 / 6).
    r = 10 / 12 / (8 / 6)
    assert apart.totals.effective(-1.0) == pytest.approx((2 + 4 + 12 * r) ** 2 / (2 + (4 + 12 * r) ** 2))
    # Equal groups count as many as they are, whatever they do.
    equal = paired_difference([1] * 12, [1, 1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1], [i // 3 for i in range(12)], 0.05)
    assert equal.degrees(-0.1) == pytest.approx(3.0)


def test_copies_of_a_task_add_no_evidence() -> None:
    once, rng = table(6, 11, 60), np.random.default_rng(3)
    before = np.array([0] * 6 + [1] * 54)
    after = np.array([1] * 6 + [0] * 11 + [1] * 43)
    order = rng.permutation(240)
    groups = np.repeat(np.arange(60), 4)
    copied = paired_difference(np.repeat(before, 4)[order], np.repeat(after, 4)[order], list(groups[order]), 0.05)
    assert copied.design_effect == pytest.approx(4, rel=0.02)
    assert copied.delta == pytest.approx(once.delta)
    assert once.high - once.low <= copied.high - copied.low <= 1.1 * (once.high - once.low)


def test_graded_scores_agree_with_the_paired_t_test() -> None:
    from scipy import stats  # type: ignore[import-untyped]

    rng = np.random.default_rng(0)
    before, after = rng.integers(0, 5, 400) / 4, rng.integers(0, 5, 400) / 4
    difference = paired_difference(before, after, range(400), 0.05)
    expected = stats.ttest_rel(after, before).confidence_interval(0.95)
    assert (difference.low, difference.high) == (
        pytest.approx(expected.low, abs=0.002),
        pytest.approx(expected.high, abs=0.002),
    )
    assert difference.high - difference.low > expected.high - expected.low


def test_cluster_robust_variance_by_hand() -> None:
    # Moves (.5 .5)(0 0)(.5 0)(0 .5): mean .25; residual sums .5 -.5 0 0; CR1 = 4/3 * .5 / 8^2.
    before, after = [0.0] * 8, [0.5, 0.5, 0, 0, 0.5, 0, 0, 0.5]
    difference = paired_difference(before, after, ["a", "a", "b", "b", "c", "c", "d", "d"], 0.20)
    assert difference.variance == pytest.approx(4 / 3 * 0.5 / 64)
    # Design effect (4/3)(7/8) * .5 / (8 * .0625)
    assert difference.design_effect == pytest.approx(4 / 3 * 7 / 8)


def test_graded_scores_without_variance_keep_a_width() -> None:
    difference = paired_difference([0.25] * 40, [0.5] * 40, range(40), 0.05)
    assert difference.low < 0.25 - 0.05 and difference.high > 0.25 + 0.05
    assert difference.p_superior() < 0.025


def test_too_few_clusters_exclude_nothing() -> None:
    assert clusters_needed(0.05) == 6
    difference = paired_difference([0] * 50, [1] * 50, [i % 5 for i in range(50)], 0.05)
    assert (difference.low, difference.high, difference.clusters) == (-1.0, 1.0, 5)
    assert difference.p_superior() > 0.025
    assert paired_difference([0] * 6, [1] * 6, range(6), 0.05).low > 0


def test_ungraded_tasks_are_left_out_and_counted() -> None:
    nan = float("nan")
    difference = paired_difference([1, 0, nan] * 10, [1, 1, 0] * 10, range(30), 0.05, [True, True, False] * 10)
    assert (difference.n, difference.ungraded, difference.before, difference.after) == (20, 10, 0.5, 1.0)


@pytest.mark.parametrize(
    ("before", "after", "graded", "match"),
    [
        ([1, float("nan")], [1, 1], None, "outside"),
        ([1, 1.5], [1, 1], None, "outside"),
        ([1], [1, 1], None, "equally long"),
        ([1, 1], [1, 1], [False, False], "no task"),
    ],
)
def test_bad_input_is_refused(
    before: Sequence[float], after: Sequence[float], graded: list[bool] | None, match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        paired_difference(before, after, ["a", "b"], 0.05, graded)


def test_wilson() -> None:
    # Newcombe 1998, Statistics in Medicine 17:857, method 3.
    assert wilson(81, 263) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))
    assert wilson(15, 148) == (pytest.approx(0.0624, abs=5e-5), pytest.approx(0.1605, abs=5e-5))
    assert wilson(0, 20) == (0.0, pytest.approx(0.1611, abs=5e-5))
    with pytest.raises(ValueError):
        wilson(3, 2)


def test_holm() -> None:
    # Holm 1979 / R: p.adjust(c(.01, .02, .03, .005), "holm")
    assert holm([0.01, 0.02, 0.03, 0.005]) == pytest.approx([0.03, 0.04, 0.04, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_class_means_and_majority() -> None:
    classes = ["a", "a", "a", "b"]
    assert class_means([1, 1, 0, 0], classes) == {"a": (3, pytest.approx(2 / 3)), "b": (1, 0.0)}
    assert macro_mean([1, 1, 0, 0], classes) == pytest.approx(1 / 3)
    assert macro_mean([1, 1, 0, 0], classes, min_class_n=2) == pytest.approx(2 / 3)
    assert macro_mean([1, 1, 0, 0], classes, min_class_n=9) is None
    assert majority(classes) == ("a", 0.75)
    assert majority(["z", "y"]) == ("y", 0.5)


def test_tasks_needed_would_have_decided() -> None:
    observed = table(10, 10, 100)  # 20 % discordance, no difference; margin 10 points
    needed = observed.tasks_needed(0.10, 0.05)
    assert needed is not None and needed == pytest.approx((Z + 0.8416) ** 2 * 0.2 / 0.01, rel=0.02)
    assert table(needed // 10, needed // 10, needed).low > -0.10
    assert observed.tasks_needed(0.0, 0.05) is None


def test_importing_the_gate_loads_neither_scipy_stats_nor_torch() -> None:
    code = "import sys, rft_ilab.regress.gate; print([m for m in ('scipy.stats', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# ---- properties ----

outcomes = st.sampled_from([0.0, 1.0])
graded_scores = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])


@st.composite
def suites(draw: st.DrawFn) -> tuple[list[float], list[float], list[int]]:
    score = draw(st.sampled_from([outcomes, graded_scores]))
    rows = draw(st.lists(st.tuples(score, score, st.integers(0, 12)), min_size=1, max_size=60))
    return [r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows]


@settings(deadline=None)  # other work may run beside it
@given(suites(), st.sampled_from([0.01, 0.05, 0.2]))
def test_interval_contains_the_estimate_and_has_width(
    suite: tuple[list[float], list[float], list[int]], alpha: float
) -> None:
    before, after, groups = suite
    d = paired_difference(before, after, groups, alpha)
    assert -1.0 <= d.low <= d.delta <= d.high <= 1.0
    assert d.high - d.low > 1e-6
    assert d.design_effect >= 1.0 and d.variance >= 0.0


@settings(deadline=None)
@given(suites())
def test_swapping_the_models_mirrors_everything(suite: tuple[list[float], list[float], list[int]]) -> None:
    before, after, groups = suite
    d, swapped = (paired_difference(*pair, groups, 0.05) for pair in ((before, after), (after, before)))
    assert swapped.delta == pytest.approx(-d.delta, abs=1e-12)
    assert swapped.low == pytest.approx(-d.high, abs=1e-9)
    assert swapped.high == pytest.approx(-d.low, abs=1e-9)
    assert swapped.p_inferior(0.1) == pytest.approx(d.p_superior(-0.1), abs=1e-9)


@settings(deadline=None)
@given(suites(), st.floats(-0.99, 0.99))
def test_p_values_agree_with_the_interval(suite: tuple[list[float], list[float], list[int]], null: float) -> None:
    d = paired_difference(*suite, 0.05)
    if abs(null - d.low) > 1e-9:
        assert (d.p_superior(null) < 0.025) == (d.low > null)
    if abs(null - d.high) > 1e-9:
        assert (d.p_inferior(null) < 0.025) == (d.high < null)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= q <= 1.0 for p, q in zip(p_values, adjusted, strict=True))
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    assert [adjusted[i] for i in order] == sorted(adjusted)


# ---- simulation ----


def binary_suite(
    rng: np.random.Generator, n: int, size: int, up: float, down: float, correlation: float
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Right/wrong outcomes; with probability sqrt(correlation) a task shares the fate of its cluster."""
    groups = np.arange(n) // size
    shared = rng.random(groups[-1] + 1)[groups]
    fate = np.where(rng.random(n) < math.sqrt(correlation), shared, rng.random(n))
    moves = np.where(fate < up, 1, np.where(fate < up + down, -1, 0))
    before = np.where(moves == 0, rng.random(n) < 0.5, moves == -1).astype(float)
    return before, before + moves, groups.tolist()


def graded_suite(
    rng: np.random.Generator, n: int, size: int, drop: float, samples: int = 4
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Means of ``samples`` draws; half of the clusters lose 2 * drop, the others nothing."""
    groups = np.arange(n) // size
    chance = 0.3 + 0.5 * rng.random(groups[-1] + 1)[groups]
    lost = 2 * drop * (rng.random(groups[-1] + 1) < 0.5)[groups]
    return rng.binomial(samples, chance) / samples, rng.binomial(samples, chance - lost) / samples, groups.tolist()


RUNS = 500
NOISE = 2 * math.sqrt(0.05 * 0.95 / RUNS)  # two standard errors of a simulated 95 %


@pytest.mark.parametrize("n", [20, 100, 300])
@pytest.mark.parametrize(("size", "correlation"), [(1, 0.0), (6, 0.0), (6, 0.3), (6, 1.0)])
@pytest.mark.parametrize(("up", "down"), [(0.05, 0.05), (0.02, 0.12)])
def test_coverage_of_right_and_wrong(n: int, size: int, correlation: float, up: float, down: float) -> None:
    rng = np.random.default_rng(7)
    draws = [paired_difference(*binary_suite(rng, n, size, up, down, correlation), 0.05) for _ in range(RUNS)]
    covered = sum(d.low <= up - down <= d.high for d in draws) / RUNS
    assert covered >= 0.95 - 0.015 - NOISE
    assert sum(d.low > up - down for d in draws) / RUNS <= 0.025 + 0.015 + NOISE / math.sqrt(2)


@pytest.mark.parametrize("n", [20, 100, 300])
@pytest.mark.parametrize("size", [1, 6])
@pytest.mark.parametrize("drop", [0.0, 0.1])
def test_coverage_of_sampled_means(n: int, size: int, drop: float) -> None:
    rng = np.random.default_rng(8)
    draws = [paired_difference(*graded_suite(rng, n, size, drop), 0.05) for _ in range(RUNS)]
    assert sum(d.low <= -drop <= d.high for d in draws) / RUNS >= 0.95 - 0.015 - NOISE
