"""GRPO's arithmetic against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft_ilab.rl.objective import group_advantages, has_signal, learning_rate


def test_advantages_of_one_right_in_four() -> None:
    # mean 1/4, variance (9 + 1 + 1 + 1) / 16 / 4 = 3/16, std = sqrt(3) / 4
    assert group_advantages([1.0, 0.0, 0.0, 0.0]) == pytest.approx(
        [math.sqrt(3), -1 / math.sqrt(3), -1 / math.sqrt(3), -1 / math.sqrt(3)]
    )


def test_partial_credit() -> None:
    # mean 0.5, deviations -0.5, 0, 0.5; std = sqrt(1/6)
    assert group_advantages([0.0, 0.5, 1.0]) == pytest.approx([-math.sqrt(1.5), 0.0, math.sqrt(1.5)])


def test_an_error_is_masked_and_moves_nobody_elses_advantage() -> None:
    assert group_advantages([1.0, None, 0.0, None]) == [1.0, None, -1.0, None]


@pytest.mark.parametrize("rewards", [[0.0, 0.0, 0.0], [1.0, 1.0], [0.3, 0.3], [0.7, None], [None, None], []])
def test_no_spread_no_signal(rewards: list[float | None]) -> None:
    assert not has_signal(group_advantages(rewards))


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=16))
def test_advantages_sum_to_zero_over_the_valid(rewards: list[float | None]) -> None:
    advantages = group_advantages(rewards)
    assert [a is None for a in advantages] == [r is None for r in rewards]
    assert sum(a for a in advantages if a is not None) == pytest.approx(0, abs=1e-6)


def test_learning_rate_without_warmup_and_with_one_step() -> None:
    assert learning_rate(0, 1, 2.0, 0) == 2.0
    assert learning_rate(9, 10, 1.0, 0) == pytest.approx(0.1)
