"""Difficulty and the chance of signal: against numbers by hand, exact enumeration and simulation."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft_ilab.difficulty import Passes, Prior, expected_mixed, fit_prior
from rft_ilab.rl.signal import surprise

counts = st.integers(0, 8).flatmap(lambda n: st.builds(Passes, st.integers(0, n), st.just(n)))


def test_chance_by_hand() -> None:
    # One right of one, uniform before: Beta(2, 1). Two more: both right 2*3/(3*4) = 1/2, both wrong 1*2/(3*4) = 1/6.
    assert Prior(1, 1).chance_mixed(Passes(1, 1), 2) == pytest.approx(1 / 3)
    # Nothing seen, a prior that knows the rate is a half: 1 - 2 / 2^8.
    assert Prior(1e7, 1e7).chance_mixed(Passes(0, 0), 8) == pytest.approx(1 - 2 / 256, abs=1e-4)


@given(counts, st.floats(0.05, 20), st.floats(0.05, 20), st.integers(2, 16))
def test_a_chance_is_a_chance_and_symmetric(seen: Passes, a: float, b: float, group_size: int) -> None:
    chance = Prior(a, b).chance_mixed(seen, group_size)
    assert 0 <= chance <= 1
    mirrored = Prior(b, a).chance_mixed(Passes(seen.graded - seen.right, seen.graded), group_size)
    assert chance == pytest.approx(mirrored, abs=1e-9)


def test_expected_share_equals_all_groups_that_can_be_drawn() -> None:
    answers = [[1, 0, 0, 0, 1, 0], [0] * 6, [1] * 6, [1, 0, 0, 0, 0, 0]]
    for size in (2, 3, 6):
        every = [0 < sum(g) < size for task in answers for g in itertools.combinations(task, size)]
        by_hand = sum(every) / len(every)
        assert expected_mixed([Passes(sum(t), 6) for t in answers], size) == pytest.approx(by_hand)


def test_few_samples_predict_larger_groups() -> None:
    """Rates from a beta distribution, four samples a task: the share at G = 8 comes out within three points."""
    rng = random.Random(0)
    rates = [rng.betavariate(0.4, 1.6) for _ in range(4000)]
    seen = [Passes(sum(rng.random() < p for _ in range(4)), 4) for p in rates]
    truth = sum(1 - p**8 - (1 - p) ** 8 for p in rates) / len(rates)
    assert expected_mixed(seen, 8) == pytest.approx(truth, abs=0.03)
    plugged_in = sum(1 - (s.right / 4) ** 8 - (1 - s.right / 4) ** 8 for s in seen) / len(seen)
    assert abs(plugged_in - truth) > 0.05  # why the prior is worth its lines
    prior = fit_prior(seen)
    assert prior.a / (prior.a + prior.b) == pytest.approx(0.2, abs=0.02)
    assert 1 / (1 + prior.a + prior.b) == pytest.approx(1 / 3, abs=0.05)


def test_bands() -> None:
    hopeless = [Passes(0, 8)] * 60 + [Passes(8, 8)] * 35 + [Passes(4, 8)] * 5
    prior = fit_prior(hopeless)
    assert [prior.band(p, 8) for p in (Passes(0, 8), Passes(8, 8), Passes(4, 8))] == ["too_hard", "too_easy", "signal"]
    assert prior.band(Passes(0, 0), 8) is None
    # Where most tasks are sometimes right, two wrong answers do not make one hopeless.
    assert fit_prior([Passes(1, 2)] * 20 + [Passes(0, 2)] * 20).band(Passes(0, 2), 8) == "signal"


@given(st.lists(counts, max_size=12))
def test_a_prior_can_always_be_fitted(tasks: list[Passes]) -> None:
    prior = fit_prior(tasks)
    assert prior.a > 0 and prior.b > 0 and math.isfinite(prior.a + prior.b)
    assert 0 <= expected_mixed(tasks, 4) <= 1


def test_a_first_step_as_predicted_is_no_surprise() -> None:
    predicted = [{"tasks": 48, "expected_mixed": 0.5}]
    assert surprise(predicted, 8, 16) == 1.0 and surprise(predicted, 11, 16) > 0.1
    assert surprise(predicted, 0, 16) < 0.01
