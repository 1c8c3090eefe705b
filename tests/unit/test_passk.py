"""pass@k and pass^k: hand-worked numbers, unbiasedness by enumeration, and what is left out."""

from __future__ import annotations

import itertools
import math

import pytest

from rft_ilab.regress.passk import pass_at_k, pass_hat_k, passes
from rft_ilab.regress.verdict import Answer, TaskResult


def results(*draws: tuple[float | None, ...]) -> list[TaskResult]:
    return [
        TaskResult(
            task_id=str(i), group=str(i), cls=None, reference="", prompt="", greedy=Answer(score=1.0), sampled=drawn
        )
        for i, drawn in enumerate(draws)
    ]


def test_by_hand() -> None:
    # 3 of 5 right; of the 10 pairs 1 holds no right answer and 3 hold two.
    assert pass_at_k(3, 5, 2) == pytest.approx(0.9) and pass_hat_k(3, 5, 2) == pytest.approx(0.3)
    assert (pass_at_k(0, 5, 3), pass_hat_k(5, 5, 5), pass_at_k(5, 5, 1)) == (0.0, 1.0, 1.0)
    for bad in ((3, 5, 0), (3, 5, 6), (6, 5, 1)):
        with pytest.raises(ValueError):
            pass_at_k(*bad)


@pytest.mark.parametrize(("chance", "n", "k"), [(0.3, 4, 2), (0.7, 6, 4), (0.5, 3, 3)])
def test_unbiased(chance: float, n: int, k: int) -> None:
    at = hat = 0.0
    for answers in itertools.product((0, 1), repeat=n):
        weight = math.prod(chance if right else 1 - chance for right in answers)
        at += weight * pass_at_k(sum(answers), n, k)
        hat += weight * pass_hat_k(sum(answers), n, k)
    assert (at, hat) == (pytest.approx(1 - (1 - chance) ** k), pytest.approx(chance**k))


def test_compared_task_by_task() -> None:
    before, after = results(*[(0.0, 0.0)] * 20, *[(1.0, 1.0)] * 20), results(*[(0.0, 1.0)] * 20, *[(1.0, 1.0)] * 20)
    rows = passes(before, after, 0.05)
    assert [row["k"] for row in rows] == [1, 2]
    assert [row["pass_at"]["delta"] for row in rows] == [pytest.approx(0.25), pytest.approx(0.5)]
    assert [row["pass_hat"]["delta"] for row in rows] == [pytest.approx(0.25), 0.0]
    low, high = rows[1]["pass_at"]["ci"]
    assert 0.3 < low < 0.5 < high < 0.7


def test_an_ungraded_draw_leaves_its_task_out_and_is_no_wrong_answer() -> None:
    before, after = results((1.0, None), (1.0, 1.0), (0.0, 0.0)), results((1.0, 1.0), (1.0, 1.0), (0.0, 1.0))
    assert [row["pass_at"]["before"] for row in passes(before, after, 0.05)] == [0.5, 0.5]
    assert passes(results((1.0, None)), results((1.0, 1.0)), 0.05) == []
    assert passes(results(()), results(()), 0.05) == []
    assert passes(results((0.5,)), results((1.0,)), 0.05) == []
