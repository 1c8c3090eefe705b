"""Answers of the model, a skill at a time: one batch before the first test of the skill, through the cache.

Processes that test the same skill at the same time (pytest-xdist) wait for the first of them and then read what it
has written: no answer is sampled twice, and a model is loaded where something is missing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rft_ilab.pipeline.cost import minutes, sampling_positions, sampling_tokens, tokens
from rft_ilab.pipeline.request import local_policy, measure_speed
from rft_ilab.policy.endpoint import EndpointPolicy
from rft_ilab.policy.local.lazy import LazyPolicy
from rft_ilab.pytest_plugin.wishes import Wishes
from rft_ilab.rollouts import Environment, Graded, grade_groups, missing_groups, sample_groups
from rft_ilab.skills.tasks import build_prompt
from rft_ilab.store import Cache
from rft_ilab.types import Policy, Prompt, Rollout, Sampling, Task, digest

# Each skill locks one byte of a file, so that no file a skill is left behind; the byte need not be there.
LOCKS = 2**31


@dataclass(frozen=True, slots=True)
class Answered:
    """The graded answers to one task. ``problem`` is set when one of them could not be graded."""

    task: Task
    graded: tuple[Graded, ...]
    problem: str | None

    @property
    def right(self) -> int:
        return sum(bool(graded.grade.passed) for graded in self.graded)

    def passed(self, rate: float) -> bool | None:
        """Whether the share ``rate`` of the answers is right; None: error."""
        return None if self.problem is not None else self.right >= rate * len(self.graded) - 1e-9

    @property
    def shown(self) -> Graded:
        """The answer that people look at: the first one that is wrong, else the first."""
        return next((graded for graded in self.graded if graded.grade.passed is False), self.graded[0])


class Answers:
    """Asks the model of one pytest session. ``cache`` is the file that keeps the answers."""

    def __init__(self, wishes: Wishes, cache: Path) -> None:
        self.wishes, self._path = wishes, cache

    @cached_property
    def cache(self) -> Cache:
        return Cache(self._path)

    @cached_property
    def policy(self) -> Policy:
        """Raises PolicyError when no model is there."""
        wishes = self.wishes
        if wishes.url:
            return EndpointPolicy(wishes.url, wishes.endpoint_model, cache=self.cache)
        if wishes.directory is None:
            from rft_ilab.policy.local.embedded import embedded_model

            return local_policy(embedded_model())
        return local_policy(wishes.directory)

    def ask(
        self, environment: Environment, tasks: Sequence[Task], sampling: Sampling, advance: Callable[[int], None]
    ) -> dict[str, Answered]:
        """Graded answers by task id. Raises whatever policy, grader and cache raise.

        A task whose own reference the grader refuses shows nothing about the model: its wrong answers are errors.
        """
        with self._alone(environment):
            groups = sample_groups(
                self.policy, self._prompts(environment, tasks), self.wishes.answers, sampling, self.cache, advance
            )
            graded = grade_groups(environment.grader, tasks, groups, self.cache)
            doubtful = [task for task, group in zip(tasks, graded, strict=True) if _wrong(group)]
            own = [
                [Rollout(task_id=t.id, index=0, policy_id="reference", completion=t.reference, stop="eos")]
                for t in doubtful
            ]
            references = grade_groups(environment.grader, doubtful, own, self.cache)
        refused = {group[0].task.id: group[0] for group in references if not group[0].grade.passed}
        return {
            task.id: Answered(task, tuple(group), _problem(group, refused.get(task.id)))
            for task, group in zip(tasks, graded, strict=True)
        }

    def cost(self, wanted: Sequence[tuple[Environment, Sequence[Task], Sampling]]) -> str:
        """One line: what is asked and how long it takes, or how many tokens a server reads and writes."""
        n, asked, missing, positions, reads, writes = self.wishes.answers, 0, 0, 0.0, 0.0, 0.0
        for environment, tasks, sampling in wanted:
            prompts = self._prompts(environment, tasks)
            rest = [tasks[i] for i in missing_groups(self.policy, prompts, n, sampling, self.cache)]
            asked, missing = asked + n * len(tasks), missing + n * len(rest)
            positions += sampling_positions(rest, n)
            settings = dataclasses.replace(environment.settings, demonstrations=self.wishes.demonstrations)
            read, written = sampling_tokens(dataclasses.replace(environment, settings=settings), rest, n)
            reads, writes = reads + read, writes + written
        line = f"rft: {asked} answers"
        if not missing:
            return f"{line}, all cached"
        line += f", {asked - missing} of them cached; the others: "
        if isinstance(self.policy, LazyPolicy):
            return line + minutes(positions, measure_speed(self.policy) or 1.0)
        return line + f"{tokens(reads)} to read, at most {writes:,.0f} to write"

    def _prompts(self, environment: Environment, tasks: Sequence[Task]) -> list[Prompt]:
        return [build_prompt(environment.skill, task, self.wishes.demonstrations) for task in tasks]

    @contextlib.contextmanager
    def _alone(self, environment: Environment) -> Iterator[None]:
        """Only one process at a time asks this policy for this skill."""
        place = int(digest([self.policy.id, environment.skill.name])[:8], 16) % LOCKS
        with self.cache.path.with_name(f"{self.cache.path.name}.asking").open("ab") as file:
            fcntl.lockf(file, fcntl.LOCK_EX, 1, place)
            yield


def _wrong(group: Sequence[Graded]) -> bool:
    return any(graded.grade.passed is False for graded in group)


def _problem(group: Sequence[Graded], refused: Graded | None) -> str | None:
    for graded in group:
        if graded.grade.error is not None:
            return f"not graded: {graded.grade.error}"
    if refused is not None:
        why = refused.grade.error or refused.grade.reason
        return f"the grader does not accept the task's own reference: {why}"
    return None
