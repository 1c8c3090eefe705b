"""The batch of a GRPO step: groups of graded rollouts, sampled with the weights of this moment.

A step may train on a batch that was sampled a step earlier (``async_steps`` in ``rft.toml``): meanwhile it waits in
:class:`rft_ilab.rl.progress.Progress` as JSON, so that a run that is killed in between goes on with the same rollouts.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rft_ilab.config import TrainSettings
from rft_ilab.rl.curriculum import draw_tasks
from rft_ilab.rl.engine import Engine
from rft_ilab.rl.evaluate import sample_and_grade
from rft_ilab.rl.objective import group_advantages, has_signal
from rft_ilab.rl.progress import Progress
from rft_ilab.rollouts import Environment, Graded
from rft_ilab.types import Sampling

# How often a step may draw more prompts because too many groups had no signal.
REFILLS = 1


@dataclass(frozen=True, slots=True)
class Group:
    """All rollouts of one task in one step, with their advantages."""

    environment: Environment
    rollouts: Sequence[Graded]
    advantages_G: Sequence[float | None]

    @classmethod
    def of(cls, environment: Environment, rollouts: Sequence[Graded], settings: TrainSettings) -> Group:
        rewards_G = [None if r.grade.error else r.grade.reward for r in rollouts]
        if settings.truncated == "masked":
            rewards_G = [None if r.rollout.stop == "length" else x for r, x in zip(rollouts, rewards_G, strict=True)]
        return cls(environment, rollouts, group_advantages(rewards_G))


def as_rows(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """JSON; numbers are read back as they were."""
    return [
        {"skill": g.environment.skill.name, "task": g.rollouts[0].task.id, "graded": [r.as_dict() for r in g.rollouts]}
        for g in groups
    ]


def of_rows(
    rows: Sequence[Mapping[str, Any]], environments: Sequence[Environment], settings: TrainSettings
) -> list[Group]:
    by_name = {e.skill.name: e for e in environments}
    tasks = {(e.skill.name, task.id): task for e in environments for task in e.tasks}
    return [
        Group.of(
            by_name[row["skill"]], [Graded.of(tasks[row["skill"], row["task"]], r) for r in row["graded"]], settings
        )
        for row in rows
    ]


def sample_batch(
    engine: Engine, environments: Sequence[Environment], settings: TrainSettings, progress: Progress, step: int
) -> list[Group]:
    """Groups for GRPO step ``step`` (from 0), refilled where too few have signal; counts grades in ``progress``."""
    groups: list[Group] = []
    for refill in range(1 + REFILLS):
        lacking = settings.prompts - sum(has_signal(g.advantages_G) for g in groups)
        if refill and lacking <= settings.prompts // 2:
            break
        drawn = {g.rollouts[0].task.id for g in groups}
        rng = random.Random(f"grpo/{settings.seed}/{step}/{refill}")
        groups += _sample_groups(engine, environments, settings, progress, step, lacking, rng, drawn)
    return groups


def _sample_groups(
    engine: Engine,
    environments: Sequence[Environment],
    settings: TrainSettings,
    progress: Progress,
    step: int,
    count: int,
    rng: random.Random,
    drawn: Collection[str],
) -> list[Group]:
    """Groups for ``count`` fresh tasks, shared evenly between the environments.

    A task of ``drawn`` is taken again only where there is no other.
    """
    sampling = Sampling(max_tokens=0, seed=rng.randrange(2**31))
    policy = engine.policy(f"training:{step}")
    groups: list[Group] = []
    for i, environment in enumerate(environments):
        share = count // len(environments) + (i < count % len(environments))
        train = environment.split("train")
        fresh = [task for task in train if task.id not in drawn] or train
        tasks = draw_tasks(fresh, environment.classes, progress.pass_rate, share, settings.balanced, rng)
        asked = Sampling(temperature=1.0, max_tokens=environment.settings.max_tokens, seed=sampling.seed)
        for rollouts in sample_and_grade(policy, environment, tasks, settings.group_size, asked, 0):
            _count(rollouts, progress)
            groups.append(Group.of(environment, rollouts, settings))
    return groups


def _count(rollouts: Sequence[Graded], progress: Progress) -> None:
    valid = [r.grade.reward for r in rollouts if not r.grade.error]
    if valid:
        progress.pass_rate[rollouts[0].task.id] = sum(valid) / len(valid)
    progress.graded += len(rollouts)
    progress.errors += len(rollouts) - len(valid)
    progress.first_error = progress.first_error or next((r.grade.error for r in rollouts if r.grade.error), "")
