"""Which training tasks a GRPO step draws: partly class by class, and where something is to be learned."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from rft_ilab.types import Task

# Weights of a task that was all right, or all wrong, when last seen (it may have changed since), against 1
# for a task never seen and up to 1 for one half right. All wrong counts more: its reference guides.
ALL_RIGHT, ALL_WRONG = 0.1, 0.5
# A class that never fails keeps this weight against 1 for one that always fails.
SOLVED_CLASS = 0.15


def draw_tasks(
    tasks: Sequence[Task],
    classes: Mapping[str, str] | None,
    pass_rate: Mapping[str, float],
    count: int,
    balanced: float,
    rng: random.Random,
) -> list[Task]:
    """Draw ``count`` distinct tasks (or all there are). ``pass_rate`` is what each task last scored.

    A share ``balanced`` is divided between the classes by how often they failed lately, the rest comes
    from all tasks; within either, tasks with mixed groups last time are preferred.
    """
    keyed = sorted(tasks, key=lambda task: _race(task, pass_rate, rng))
    chosen: dict[str, Task] = {}
    if classes:
        piles: dict[str, list[Task]] = {}
        for task in keyed:
            piles.setdefault(classes[task.id], []).append(task)
        weights = {kind: _class_weight(pile, pass_rate) for kind, pile in piles.items()}
        for kind, places in _divide(round(balanced * count), weights, rng).items():
            chosen |= {task.id: task for task in piles[kind][:places]}
    for task in keyed:
        if len(chosen) >= count:
            break
        chosen.setdefault(task.id, task)
    return list(chosen.values())


def _class_weight(pile: Sequence[Task], pass_rate: Mapping[str, float]) -> float:
    seen = [pass_rate[task.id] for task in pile if task.id in pass_rate]
    return SOLVED_CLASS + (1 - sum(seen) / len(seen) if seen else 1.0)


def _divide(places: int, weights: Mapping[str, float], rng: random.Random) -> dict[str, int]:
    """Whole places in proportion to weights: largest remainders first, ties at random."""
    total = sum(weights.values())
    exact = {kind: places * weight / total for kind, weight in sorted(weights.items())}
    whole = {kind: int(share) for kind, share in exact.items()}
    rest = sorted(exact, key=lambda kind: (whole[kind] - exact[kind], rng.random()))
    for kind in rest[: places - sum(whole.values())]:
        whole[kind] += 1
    return whole


def _race(task: Task, pass_rate: Mapping[str, float], rng: random.Random) -> float:
    """Exponential race: sorting by it draws without replacement, in proportion to the weights."""
    rate = pass_rate.get(task.id)
    weight = 1.0 if rate is None else ALL_WRONG if rate == 0 else max(ALL_RIGHT, 4 * rate * (1 - rate))
    return rng.expovariate(1.0) / weight
