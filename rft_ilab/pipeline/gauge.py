"""Measuring for the gate: the suites of a run, and what a policy does on them, through the cache."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rft_ilab.pipeline.cost import sampling_positions
from rft_ilab.pipeline.request import Workspace
from rft_ilab.pipeline.screen import Screen
from rft_ilab.regress.verdict import Answer, TaskResult
from rft_ilab.rollouts import Environment, Graded, collect, grade_groups, missing_groups, sample_groups
from rft_ilab.skills.tasks import build_prompts
from rft_ilab.suites import answering
from rft_ilab.types import Policy, Sampling, Suite, Task

VAL_TASKS = 24


@dataclass(frozen=True, slots=True)
class Measurement:
    """A suite and the tasks it names, ready to be asked of any policy."""

    environment: Environment
    suite: Suite
    tasks: Sequence[Task]

    @property
    def calls(self) -> int:
        return len(self.tasks)

    @property
    def positions(self) -> float:
        """What one policy has to compute for it, about."""
        return self.positions_of(1 + self.suite.samples)

    def positions_of(self, answers: int) -> float:
        """The same for so many answers a task."""
        return sampling_positions(self.tasks, answers, getattr(self.environment, "answer_tokens", None))


@dataclass(frozen=True, slots=True)
class Missing:
    """Answers that are not in the cache, and about how many token positions they cost."""

    answers: int
    positions: float


@contextmanager
def few_collections() -> Iterator[None]:
    """Let Python look for cycles less often: of hundreds of thousands of answers and grades none is in one.

    Looking for some took a fifth of the time of a gate of which everything is cached.
    """
    before = gc.get_threshold()
    gc.set_threshold(100_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


class Gauge:
    """Builds suites and measures policies on them, through the cache."""

    def __init__(self, space: Workspace, screen: Screen) -> None:
        self.space, self.screen = space, screen
        self.settings = space.settings.gate
        if cluster := space.cluster:
            screen.say(f"on the Ray cluster at {cluster.address}: nodes {cluster.nodes}, CPUs {cluster.cpus}")

    def suite(self, environment: Environment, demonstrations: int) -> Measurement:
        """The test split of one skill; sorted, so that a reordered file is the same suite."""
        tasks = sorted(environment.split("test"), key=lambda task: task.id)
        target = environment in self.space.targets
        suite = Suite(
            name=environment.skill.name,
            task_ids=tuple(task.id for task in tasks),
            samples=self.settings.samples if target else self.settings.watched_samples,
            sampling=Sampling(
                temperature=self.settings.temperature,
                max_tokens=environment.settings.max_tokens,
                seed=self.settings.seed,
            ),
            demonstrations=demonstrations,
            # A target of another run is among the first that must not suffer.
            tier="target" if target else "critical" if environment.skill.tier == "target" else environment.skill.tier,
            margin=self.space.margin(environment),
        )
        return Measurement(environment, suite, tasks)

    def better_prompt(self, baseline: Policy, environment: Environment) -> int:
        """Number of demonstrations (0 or the skill's) at which the baseline passes more of the graded val tasks."""
        tasks = environment.validation(VAL_TASKS)
        rates: dict[int, float] = {}
        for demonstrations in sorted({0, environment.settings.demonstrations}):
            groups = self._greedy(baseline, environment, tasks, demonstrations)
            graded = [group[0].grade.passed for group in groups if group[0].grade.passed is not None]
            rates[demonstrations] = sum(graded) / max(1, len(graded))
        return max(rates, key=lambda d: (rates[d], d))

    def _greedy(self, policy: Policy, e: Environment, tasks: Sequence[Task], demonstrations: int) -> list[list[Graded]]:
        return collect(
            policy,
            e.grader,
            e.skill,
            tasks,
            1,
            greedy_sampling(e),
            demonstrations=demonstrations,
            cache=self.space.cache,
        )

    def draws(self, policy: Policy, m: Measurement, n: int, sampling: Sampling) -> list[list[float | None]]:
        """Scores of ``n`` answers of one policy to each task of a suite; None where the grader failed."""
        e = m.environment
        groups = collect(
            answering(policy, e),
            e.grader,
            e.skill,
            m.tasks,
            n,
            sampling,
            demonstrations=m.suite.demonstrations,
            cache=self.space.cache,
        )
        return [[_score(graded) for graded in group] for group in groups]

    def missing(self, policy: Policy, measurements: Sequence[Measurement]) -> list[Missing]:
        """What :meth:`measure` would have to ask ``policy``."""
        found = []
        for m in measurements:
            e = m.environment
            prompts = build_prompts(e.skill, m.tasks, m.suite.demonstrations)
            for n, sampling in ((1, greedy_sampling(e)), (m.suite.samples, m.suite.sampling)):
                absent = missing_groups(answering(policy, e), prompts, n, sampling, self.space.cache) if n else []
                if absent:
                    tasks = [m.tasks[i] for i in absent]
                    positions = sampling_positions(tasks, n, getattr(e, "answer_tokens", None))
                    found.append(Missing(answers=len(tasks) * n, positions=positions))
        return found

    def measure(self, policy: Policy, m: Measurement, advance: Any) -> list[TaskResult]:
        """Greedy and sampled results of one policy on one suite, one entry a task."""
        e, cache, n = m.environment, self.space.cache, m.suite.samples
        policy = answering(policy, e)
        prompts = build_prompts(e.skill, m.tasks, m.suite.demonstrations)
        first = sample_groups(policy, prompts, 1, greedy_sampling(e), cache)
        advance(len(m.tasks))
        drawn = sample_groups(policy, prompts, n, m.suite.sampling, cache) if n else [[] for _ in m.tasks]
        groups = grade_groups(e.grader, m.tasks, [a + b for a, b in zip(first, drawn, strict=True)], cache)
        advance(len(m.tasks))
        answers = [graded.grade for group in groups for graded in group]
        if errors := [grade.error for grade in answers if grade.error is not None]:
            missed = f"{len(errors)} of {len(answers)} answers not graded"
            self.screen.say(f"{m.suite.name}: {missed}; the first: {errors[0]}")
        return [
            TaskResult(
                task_id=task.id,
                group=task.group,
                cls=(e.classes or {}).get(task.id),
                reference=task.reference,
                prompt=task.messages[-1].content,
                greedy=answer_of(group[0]),
                sampled=tuple(_score(graded) for graded in group[1:]),
            )
            for task, group in zip(m.tasks, groups, strict=True)
        ]


def greedy_sampling(e: Environment) -> Sampling:
    return Sampling(temperature=0.0, max_tokens=e.settings.max_tokens)


def _score(graded: Graded) -> float | None:
    return None if graded.grade.passed is None else float(graded.grade.passed)


def answer_of(graded: Graded) -> Answer:
    grade = graded.grade
    return Answer(
        score=_score(graded), text=graded.rollout.completion, reason=grade.error or grade.reason, answer=grade.answer
    )


def label(m: Measurement) -> str:
    return f"{m.suite.demonstrations} demonstrations" if m.suite.demonstrations else "zero-shot"
