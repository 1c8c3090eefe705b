"""The gate as a stage: measure baseline and candidate on the test splits, judge, write the verdict.

Every watched skill is measured with the prompt (with or without demonstrations) at which the baseline
does better on the validation split: a skill that the baseline cannot show would be vacuously unharmed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from rft_ilab.pipeline.cost import minutes, sampling_positions
from rft_ilab.pipeline.request import Request, Workspace, local_policy, measure_speed, run_model
from rft_ilab.pipeline.screen import Screen
from rft_ilab.regress.gate import judge
from rft_ilab.regress.verdict import Answer, TargetInput, TaskResult, WatchedInput
from rft_ilab.rollouts import Environment, Graded, collect
from rft_ilab.store import write_json
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


def regress(request: Request, candidate: Path | None = None, *, console: Console) -> dict[str, Any]:
    """Judge ``candidate`` (default: the run's model) against the baseline; writes ``gate/verdict.json``.

    Generations and grades come from the cache where nothing changed. Raises RunError or PolicyError
    when there is no model to judge.
    """
    space, screen = Workspace(request), Screen(console)
    run = space.open_run()
    directory = candidate if candidate is not None else run_model(run)
    baseline_directory = request.model or Path(run.manifest.get("model") or space.model_directory)
    with run.stage("regate" if run.done("gate") else "gate") as facts:
        baseline = local_policy(baseline_directory)
        gauge = Gauge(space, screen)
        targets = {
            e.skill.name: [gauge.suite(e, demonstrations) for demonstrations in sorted({0, e.settings.demonstrations})]
            for e in space.targets
        }
        watched = {e.skill.name: gauge.suite(e, gauge.better_prompt(baseline, e)) for e in space.watched}
        everything = [m for suites in targets.values() for m in suites] + list(watched.values())
        asked = [suites[0] for suites in targets.values()] + list(watched.values())
        rollouts = sum(m.calls * (1 + m.suite.samples) for m in everything + asked)
        speed = measure_speed(baseline)
        positions = sum(sampling_positions(m.tasks, 1 + m.suite.samples) for m in everything + asked)
        screen.say(
            f"gate: {rollouts} test rollouts of baseline and candidate, "
            + (f"{minutes(positions, speed)} " if speed else "")
            + "(what is cached is free)"
        )
        with screen.bar("baseline", sum(m.calls for m in everything) * 2) as advance:
            before = {m.suite.digest: gauge.measure(baseline, m, advance) for m in everything}
        baseline_id = baseline.id
        del baseline
        policy = local_policy(directory)
        with screen.bar("candidate", sum(m.calls for m in asked) * 2) as advance:
            after = {m.suite.digest: gauge.measure(policy, m, advance) for m in asked}
        verdict = judge(
            [
                TargetInput(
                    skill=name,
                    before={_label(m): before[m.suite.digest] for m in suites},
                    after=after[suites[0].suite.digest],
                )
                for name, suites in targets.items()
            ],
            [
                WatchedInput(
                    skill=name,
                    tier=m.suite.tier,
                    margin=m.suite.margin,
                    prompt_label=_label(m),
                    before=before[m.suite.digest],
                    after=after[m.suite.digest],
                )
                for name, m in watched.items()
            ],
            space.settings.gate,
            {"id": baseline_id, "name": str(baseline_directory)},
            {"id": policy.id, "name": str(directory)},
        )
        facts |= {"outcome": verdict["outcome"], "rollouts": rollouts}
        write_json(run.path("gate", "verdict.json"), verdict)
        # The verdict of another candidate does not erase what was said of this one.
        write_json(run.path("gate", "verdicts", f"{policy.id.split(':')[1][:12]}.json"), verdict)
    return verdict


class Gauge:
    """Builds suites and measures policies on them, through the cache."""

    def __init__(self, space: Workspace, screen: Screen) -> None:
        self.space, self.screen = space, screen
        self.settings = space.settings.gate

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
            tier="target" if target else environment.skill.tier,
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
        sampling = Sampling(temperature=0.0, max_tokens=e.settings.max_tokens)
        return collect(
            policy, e.grader, e.skill, tasks, 1, sampling, demonstrations=demonstrations, cache=self.space.cache
        )

    def measure(self, policy: Policy, m: Measurement, advance: Any) -> list[TaskResult]:
        """Greedy and sampled results of one policy on one suite, one entry a task."""
        e, cache = m.environment, self.space.cache
        greedy = self._greedy(policy, e, m.tasks, m.suite.demonstrations)
        advance(len(m.tasks))
        sampled: list[list[Graded]] = [[] for _ in m.tasks]
        if m.suite.samples:
            sampled = collect(
                policy,
                e.grader,
                e.skill,
                m.tasks,
                m.suite.samples,
                m.suite.sampling,
                demonstrations=m.suite.demonstrations,
                cache=cache,
            )
        advance(len(m.tasks))
        answers = [graded.grade for group in (*greedy, *sampled) for graded in group]
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
                greedy=_answer(first),
                sampled=tuple(_score(graded) for graded in draws),
            )
            for task, (first,), draws in zip(m.tasks, greedy, sampled, strict=True)
        ]


def _score(graded: Graded) -> float | None:
    return None if graded.grade.passed is None else float(graded.grade.passed)


def _answer(graded: Graded) -> Answer:
    return Answer(
        score=_score(graded), text=graded.rollout.completion, reason=graded.grade.error or graded.grade.reason
    )


def _label(m: Measurement) -> str:
    return f"{m.suite.demonstrations} demonstrations" if m.suite.demonstrations else "zero-shot"
