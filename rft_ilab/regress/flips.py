"""Tasks whose greedy answer changed sides between the two models, with all that is needed to understand one."""

from __future__ import annotations

import shlex
from typing import Literal

from rft_ilab.regress.pairing import Side, greedy_score
from rft_ilab.regress.verdict import Flip, FlipCount, TaskResult

MAX_FLIPS = 200  # per skill, broken first
ID_LENGTH = 12  # hexadecimal digits of a task id in a command: two of a million tasks share them with p < 0.002


def flips_of(skill: str, before: Side, after: Side, run: str) -> tuple[list[Flip], FlipCount]:
    """Greedy answers whose score fell (first) or rose, the largest moves first; ungraded ones are no flips.

    At most MAX_FLIPS of them, and how many there are in all. ``run`` is how a command names the run; empty: the latest.
    """
    earlier = {result.task_id: result for result in before}
    moved: list[tuple[float, TaskResult]] = []
    for now in after:
        gain = greedy_score(now) - greedy_score(earlier[now.task_id])
        if gain < 0.0 or gain > 0.0:  # also NaN
            moved.append((gain, now))
    moved.sort(key=lambda pair: (pair[0] > 0.0, -abs(pair[0])))
    broken = sum(gain < 0.0 for gain, _ in moved)
    listed = moved[:MAX_FLIPS]
    flips = [_flip(skill, earlier[now.task_id], now, "broken" if gain < 0.0 else "fixed", run) for gain, now in listed]
    return flips, {"skill": skill, "broken": broken, "fixed": len(moved) - broken, "listed": len(flips)}


def _flip(skill: str, then: TaskResult, now: TaskResult, direction: Literal["fixed", "broken"], run: str) -> Flip:
    return {
        "skill": skill,
        "task_id": now.task_id,
        "group": now.group,
        "class": now.cls,
        "direction": direction,
        "prompt": now.prompt,
        "reference": now.reference,
        "before": then.greedy.text,
        "after": now.greedy.text,
        "before_answer": then.greedy.answer,
        "after_answer": now.greedy.answer,
        "before_score": then.greedy.score,
        "after_score": now.greedy.score,
        "before_reason": then.greedy.reason,
        "after_reason": now.greedy.reason,
        "command": explain_command(now.task_id, run),
    }


def explain_command(task_id: str, run: str) -> str:
    """The shell command that shows one task of a run; without a task, that lists the flips.

    >>> explain_command("3f2a1b9c0d4e5f60", "my run"), explain_command("", "")
    ("ilab rft explain 3f2a1b9c0d4e --run 'my run'", 'ilab rft explain')
    """
    task = [task_id[:ID_LENGTH]] if task_id else []
    return shlex.join(["ilab", "rft", "explain", *task, *(["--run", run] if run else [])])
