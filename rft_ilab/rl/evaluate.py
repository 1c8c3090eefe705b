"""Validation accuracy of a policy on a few tasks: what checkpoints are selected by."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from rft_ilab.errors import GraderError
from rft_ilab.rl import parallel
from rft_ilab.rollouts import Environment, Graded, collect, grade_groups
from rft_ilab.skills.tasks import build_prompt
from rft_ilab.store import Cache
from rft_ilab.types import Policy, Rollout, Sampling, Task


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Shares in [0, 1]; ``macro`` is the mean over classes (equal to ``mean`` without classes)."""

    mean: float
    macro: float
    ungraded: int

    @property
    def score(self) -> float:
        """What selection maximises: frequent and rare classes both count."""
        return (self.mean + self.macro) / 2


def sample_and_grade(
    policy: Policy, environment: Environment, tasks: Sequence[Task], n: int, sampling: Sampling, demonstrations: int
) -> list[list[Graded]]:
    """Fresh rollouts (with log-probabilities), graded, without any cache: one group of ``n`` a task.

    Where several processes train, each does its share and gets all.
    """
    mine = parallel.share(tasks)
    prompts = [build_prompt(environment.skill, task, demonstrations) for task in mine]
    groups: dict[str, list[Rollout]] = {task.id: [] for task in mine}
    for rollout in policy.sample(prompts, n, sampling):
        groups[rollout.task_id].append(rollout)
    return parallel.exchange(grade_groups(environment.grader, mine, [groups[t.id] for t in mine], None), tasks)


def refuse_errors(environment: Environment, groups: Sequence[Sequence[Graded]], most: float) -> None:
    """Raises GraderError when more than a share ``most`` of the grades are errors, or all.

    A mean over those that happened to be graded would prefer a model whose bad answers crash the grader.
    """
    grades = [graded.grade for group in groups for graded in group]
    errors = [grade.error for grade in grades if grade.error is not None]
    if len(errors) > most * len(grades) or (errors and len(errors) == len(grades)):
        raise GraderError(
            f"{environment.skill.name}: {len(errors)} of {len(grades)} grades are errors (limit {most:.0%}); "
            f"the first: {errors[0]}",
            fix="run: ilab taxonomy lint, then fix the grader",
        )


def greedy_answers(
    policy: Policy,
    environment: Environment,
    tasks: Sequence[Task],
    demonstrations: int,
    cache: Cache | None = None,
    *,
    max_error_share: float,
) -> list[Graded]:
    """The greedy answer to each of ``tasks``, graded. Raises GraderError if too many grades are errors.

    Give a ``cache`` only where ``policy.id`` names its weights (the untouched base, not a model in training).
    """
    sampling = Sampling(temperature=0.0, max_tokens=environment.settings.max_tokens)
    if cache is None:
        groups = sample_and_grade(policy, environment, tasks, 1, sampling, demonstrations)
    else:
        # Each process its share, cached or not: were they to differ in a near tie, they would decide differently later.
        mine = collect(
            policy,
            environment.grader,
            environment.skill,
            parallel.share(tasks),
            1,
            sampling,
            demonstrations=demonstrations,
            cache=cache,
        )
        groups = parallel.exchange(mine, tasks)
    refuse_errors(environment, groups, max_error_share)
    return [graded for (graded,) in groups]


def accuracy_of(environment: Environment, answers: Sequence[Graded]) -> Accuracy:
    """Accuracy of one answer a task; ungraded ones are counted apart."""
    by_class: dict[str, list[bool]] = defaultdict(list)
    for graded in answers:
        if graded.grade.passed is not None:
            by_class[(environment.classes or {}).get(graded.task.id, "")].append(graded.grade.passed)
    passed = [p for group in by_class.values() for p in group]
    mean = sum(passed) / len(passed) if passed else 0.0
    macro = sum(sum(g) / len(g) for g in by_class.values()) / len(by_class) if by_class else 0.0
    return Accuracy(mean, macro, len(answers) - len(passed))
