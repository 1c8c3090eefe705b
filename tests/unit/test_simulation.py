"""The gate's rules on made-up models with a known difference: error rates, coverage, many suites, planned drops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom  # type: ignore[import-untyped]

from rft_ilab.config import GateSettings
from rft_ilab.regress.power import Assumption, tasks_to_fail
from rft_ilab.regress.simulation import World, family_rates, rates, standard_worlds, watched_outcomes

SETTINGS = GateSettings()
ALPHA = SETTINGS.alpha
RUNS = 250

# Those in which a wrong method shows: each has failed with one that was tried (docs/log.md), or has the worst rates.
HARD = (
    World(name="right or wrong", tasks=60),
    World(name="right or wrong", tasks=500),
    World(name="much churn", tasks=20, churn=0.15, baseline=0.6),
    World(name="rarely right", tasks=150, baseline=0.15),
    World(name="1 sample", tasks=150, kind="sampled", samples=1),
    World(name="4 samples", tasks=60, kind="sampled"),
    World(name="16 samples, few tasks lose all", tasks=100, kind="sampled", samples=16, baseline=0.9, churn=0.0),
    World(name="graded, every task loses a little", tasks=300, kind="graded", severity=0.2),
    World(name="nothing moves but what is lost", tasks=150, churn=0.0),
    World(name="groups of 20 move as one", tasks=2000, churn=0.0, size=20, icc=1.0),
    World(name="churn, and whole groups lost", tasks=300, churn=0.1, size=20, loss_icc=1.0),
    World(name="whole groups of 1 to 20 lost", tasks=500, kind="sampled", size=0, loss_icc=1.0, churn=0.0),
    World(name="only groups of 20 lose", tasks=400, size=0, loss_icc=1.0, informative=True),
    World(name="groups of 1 to 20, ICC 0.7", tasks=2000, size=0, icc=0.7),
)


def at_most(level: float, runs: int, looks: int = 1) -> float:
    """A true rate of ``level`` lies above this in one of ten thousand repetitions of the test."""
    return float(binom.isf(1e-4 / looks, runs, level)) / runs


@pytest.mark.parametrize("world", HARD, ids=lambda world: f"{world.name}, {world.tasks}")
def test_error_rates_are_as_promised(world: World) -> None:
    found = rates(world, SETTINGS, RUNS)
    half, whole = (at_most(level, RUNS, len(HARD)) for level in (ALPHA / 2, ALPHA))
    assert found.false_pass <= half and found.target_false_pass <= half
    assert found.false_fail <= whole and found.target_false_fail <= whole
    assert found.uncovered <= whole


def test_a_method_that_ignores_groups_would_not_pass_this() -> None:
    from rft_ilab.regress.statistics import paired_difference

    world = World(tasks=300, size=20, icc=1.0, churn=0.05, delta=-SETTINGS.margin)
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(100):
        before_N, after_N, _ = world.draw(rng)
        d = paired_difference(before_N, after_N, range(len(before_N)), ALPHA, interval=False)
        wrong += watched_outcomes([d], SETTINGS) == ["PASS"]
    assert wrong / 100 > at_most(ALPHA / 2, 100)


@pytest.mark.parametrize("world", [*HARD, *standard_worlds([150])], ids=lambda world: world.name)
@pytest.mark.parametrize("delta", [-0.1, 0.05])
def test_worlds_have_the_difference_that_they_claim(world: World, delta: float) -> None:
    rng = np.random.default_rng(5)
    big = replace(world, tasks=1000, delta=delta)
    means = []
    for _ in range(60):
        before_N, after_N, _ = big.draw(rng)
        assert before_N.min() >= 0.0 and after_N.max() <= 1.0
        means.append((after_N - before_N).mean())
    # Of unequal clusters the mean is a ratio estimate, whose bias is of the order 1 / clusters.
    assert np.mean(means) == pytest.approx(delta, abs=4.5 * np.std(means) / np.sqrt(60) + 1e-3)


def test_a_world_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="baseline"):
        World(baseline=0.05, delta=-0.1).draw(np.random.default_rng(0))


@pytest.mark.parametrize("count", [10, 40])
def test_many_unchanged_suites_seldom_fail(count: int) -> None:
    runs = 1200 // count
    worlds = [World(tasks=20, churn=0.15), World(tasks=60, churn=0.15, size=6, icc=0.7), World(tasks=60)]
    found = family_rates([worlds[i % 3] for i in range(count)], SETTINGS, runs)
    assert found.any_fail <= at_most(ALPHA, runs)


def test_of_many_suites_that_lost_their_margin_hardly_one_passes() -> None:
    found = family_rates([World(tasks=150, delta=-SETTINGS.margin)] * 10, SETTINGS, 120)
    assert found.any_false_pass <= at_most(ALPHA / 2, 120)


def test_a_drop_of_five_points_in_one_of_ten_skills_is_caught_with_the_planned_power() -> None:
    settings, runs = replace(SETTINGS, margin=0.03), 150
    tasks = tasks_to_fail(Assumption(discordance=0.06), settings.margin, 0.05, ALPHA, 0.8, suites=10)
    assert tasks is not None and 300 < tasks < 1000
    worlds = [World(tasks=tasks, churn=0.03, delta=-0.05)] + [World(tasks=tasks, churn=0.03)] * 9
    rng = np.random.default_rng(1)
    caught = blamed = 0
    for _ in range(runs):
        outcomes = watched_outcomes([world.difference(rng, ALPHA) for world in worlds], settings)
        caught += outcomes[0] == "FAIL"
        blamed += "FAIL" in outcomes[1:]
    assert binom.ppf(1e-3, runs, 0.77) <= caught <= binom.isf(1e-3, runs, 0.87)
    assert blamed / runs <= at_most(ALPHA, runs)
