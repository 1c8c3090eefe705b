"""Early ends, by hand."""

from __future__ import annotations

import pytest

from rft_ilab.rl.stopping import BONUS_STEP, MOST_BONUS, EntropyGuard, StopRule


def test_three_idle_steps_are_solved_or_collapsed() -> None:
    rule = StopRule()
    assert [rule.after_step(s, 16, 0.95) for s in (1, 0, 2, 1, 1)] == [""] * 5
    assert rule.after_step(0, 16, 0.95) == "solved"
    assert rule.after_step(0, 16, 0.4).startswith("collapsed")


def test_one_group_of_few_is_signal_enough() -> None:
    """With one prompt a step no more can carry signal than one, and two with a refill."""
    rule = StopRule()
    assert [rule.after_step(1, groups, 0.5) for groups in (1, 2, 4, 7)] == [""] * 4 and rule.idle == 0
    assert [rule.after_step(1, 8, 0.5) for _ in range(3)][:2] == ["", ""] and rule.idle == 3
    assert rule.after_step(0, 1, None) == "" and rule.idle == 3
    assert rule.after_step(0, 1, 0.5).startswith("collapsed")


def test_two_bad_validations_in_a_row_end_the_run() -> None:
    rule = StopRule()
    assert [rule.after_validation(s) for s in (0.5, 0.8, 0.7, 0.75, 0.72)] == [""] * 5
    assert [rule.after_validation(s) for s in (0.70, 0.80, 0.69)] == ["", "", ""]
    assert rule.after_validation(0.60) == "worse than 80.0% on validation 2 times in a row"


@pytest.mark.parametrize(
    ("target", "expected"), [(0.0, [0.0, 0.0, 0.0]), (0.3, [BONUS_STEP, 2 * BONUS_STEP, BONUS_STEP])]
)
def test_entropy_bonus_grows_below_the_target_only(target: float, expected: list[float]) -> None:
    guard, found = EntropyGuard(), []
    for entropy in (0.1, 0.2, 0.4):
        guard.after(entropy, target)
        found.append(guard.weight)
    assert found == pytest.approx(expected)


def test_the_bonus_has_bounds() -> None:
    guard = EntropyGuard()
    for _ in range(1000):
        guard.after(0.0, 0.5)
    assert guard.weight == MOST_BONUS
    for _ in range(1000):
        guard.after(1.0, 0.5)
    assert guard.weight == 0.0
