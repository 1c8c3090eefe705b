"""Is there anything for RL to learn from? Asked before any training is paid for.

RL needs a policy that is *sometimes* right. A group whose rollouts are all right or all wrong has no
gradient, so what counts is the expected share of mixed groups at the group size that will be used.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rft_ilab.difficulty import Passes, expected_mixed
from rft_ilab.errors import SignalError


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """pass@k on training tasks. Shares in [0, 1] of ``tasks``; errors are in none of them.

    ``expected_mixed`` is the share of groups of ``group_size`` rollouts that will carry signal, as predicted here;
    ``mean_reward`` that of the same rollouts, partial credit included.
    """

    skill: str
    after: str
    tasks: int
    samples: int
    errors: int
    pass_at_1: float
    pass_at_k: float
    all_wrong: float
    all_right: float
    mixed: float
    expected_mixed: float
    group_size: int
    per_class: Mapping[str, float] | None
    mean_reward: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure_signal(
    skill: str,
    passes: Sequence[tuple[str, Sequence[bool | None]]],
    *,
    classes: Mapping[str, str] | None,
    samples: int,
    group_size: int,
    after: str,
) -> Signal:
    """``passes`` holds, for each task id, whether each of its rollouts passed (None: error)."""
    graded = [(task_id, [p for p in group if p is not None]) for task_id, group in passes]
    graded = [(task_id, group) for task_id, group in graded if group]
    n = max(1, len(graded))
    rates = [sum(group) / len(group) for _, group in graded]
    by_class: dict[str, list[float]] = defaultdict(list)
    for (task_id, _), rate in zip(graded, rates, strict=True):
        by_class[(classes or {}).get(task_id, "")].append(rate)
    wrong, right = sum(r == 0 for r in rates), sum(r == 1 for r in rates)
    return Signal(
        skill=skill,
        after=after,
        tasks=len(graded),
        samples=samples,
        errors=sum(p is None for _, group in passes for p in group),
        pass_at_1=sum(rates) / n,
        pass_at_k=sum(r > 0 for r in rates) / n,
        all_wrong=wrong / n,
        all_right=right / n,
        mixed=(len(graded) - wrong - right) / n,
        expected_mixed=expected_mixed([Passes.of(group) for _, group in graded], group_size),
        group_size=group_size,
        per_class={k: sum(v) / len(v) for k, v in sorted(by_class.items())} if classes else None,
    )


def refuse_without_signal(signal: Signal, floor: float) -> None:
    """Raises SignalError, with advice, when training could not learn; a solved skill is no error."""
    if signal.tasks == 0:
        raise SignalError(
            f"{signal.skill}: every rollout ended in a grader error", fix="run: ilab taxonomy lint, then fix the grader"
        )
    if signal.pass_at_k == 0:
        raise SignalError(
            f"{signal.skill}: none of {signal.tasks} x {signal.samples} samples is right, so RL has nothing to reward",
            fix="show more demonstrations (rft.toml), simplify the answer format, use easier tasks or a larger model",
        )
    if signal.after != "base" and signal.all_right < 0.9 and signal.expected_mixed < floor:
        raise SignalError(
            f"{signal.skill}: only {signal.expected_mixed:.1%} of groups would carry signal (floor {floor:.0%})",
            fix="add tasks of medium difficulty, a larger group_size, or grade partial credit",
        )


def surprise(expected: Sequence[Mapping[str, Any]], mixed: int, groups: int) -> float:
    """How likely a step's share of mixed groups is to lie this far from what was predicted, if that was right.

    ``expected`` are rows of ``signal.json``. Fisher's exact test: the prediction comes from few tasks, too.
    """
    from scipy.stats import fisher_exact

    tasks = sum(int(row["tasks"]) for row in expected)
    before = sum(round(float(row["expected_mixed"]) * int(row["tasks"])) for row in expected)
    return float(fisher_exact([[mixed, groups - mixed], [before, tasks - before]]).pvalue)
