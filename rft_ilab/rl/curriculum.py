"""Which training tasks a GRPO step draws: partly class by class, and where something is to be learned."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import islice, zip_longest

from rft_ilab.types import Task

# A task that was all right or all wrong when last seen may have changed since; it keeps this weight
# against 1 for a task never seen and up to 1 for one half right.
FLOOR = 0.1


def draw_tasks(
    tasks: Sequence[Task],
    classes: Mapping[str, str] | None,
    pass_rate: Mapping[str, float],
    count: int,
    balanced: float,
    rng: random.Random,
) -> list[Task]:
    """Draw ``count`` distinct tasks (or all there are). ``pass_rate`` is what each task last scored.

    A share ``balanced`` comes from the classes in turn, the rest from all tasks; within either, tasks
    with mixed groups last time are preferred.
    """
    keyed = sorted(tasks, key=lambda task: _race(task, pass_rate, rng))
    chosen: dict[str, Task] = {}
    if classes:
        piles: dict[str, list[Task]] = {}
        for task in keyed:
            piles.setdefault(classes[task.id], []).append(task)
        order = sorted(piles)
        rng.shuffle(order)
        rounds = zip_longest(*(piles[kind] for kind in order))
        in_turn = (task for row in rounds for task in row if task is not None)
        chosen = {task.id: task for task in islice(in_turn, round(balanced * count))}
    for task in keyed:
        if len(chosen) >= count:
            break
        chosen.setdefault(task.id, task)
    return list(chosen.values())


def _race(task: Task, pass_rate: Mapping[str, float], rng: random.Random) -> float:
    """Exponential race: sorting by it draws without replacement, in proportion to the weights."""
    rate = pass_rate.get(task.id)
    weight = 1.0 if rate is None else max(FLOOR, 4 * rate * (1 - rate))
    return rng.expovariate(1.0) / weight
