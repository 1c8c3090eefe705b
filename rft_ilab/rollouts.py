"""Tasks x policy -> graded groups. Generations and grades are cached by content, so a rerun pays only
for what changed, and a killed run goes on where it stood.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rft_ilab.config import SkillSettings
from rft_ilab.skills.tasks import build_prompt, class_of
from rft_ilab.store import Cache
from rft_ilab.types import Grade, Grader, Policy, Prompt, Rollout, Sampling, Skill, Split, Task, digest

# Prompts handed to the policy between two writes to the cache.
SAVE_EVERY = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A skill ready for use: its tasks, its grader, its settings. ``classes`` maps task ids, if any."""

    skill: Skill
    tasks: tuple[Task, ...]
    grader: Grader
    settings: SkillSettings
    classes: Mapping[str, str] | None

    @classmethod
    def of(cls, skill: Skill, tasks: Sequence[Task], grader: Grader, settings: SkillSettings) -> Environment:
        return cls(skill=skill, tasks=tuple(tasks), grader=grader, settings=settings, classes=class_of(tasks))

    def split(self, split: Split) -> list[Task]:
        return [task for task in self.tasks if task.split == split]

    def validation(self, count: int) -> list[Task]:
        """The first ``count`` validation tasks in an order that only their content decides."""
        return sorted(self.split("val"), key=lambda task: task.id)[:count]


@dataclass(frozen=True, slots=True)
class Graded:
    """A rollout with its grade."""

    task: Task
    rollout: Rollout
    grade: Grade


def collect(
    policy: Policy,
    grader: Grader,
    skill: Skill,
    tasks: Sequence[Task],
    n: int,
    sampling: Sampling,
    *,
    demonstrations: int,
    cache: Cache,
    advance: Callable[[int], None] = lambda done: None,
) -> list[list[Graded]]:
    """Sample ``n`` rollouts of each task and grade them; one group (length n) a task, in order.

    ``advance`` is called with the number of tasks just finished.
    """
    prompts = [build_prompt(skill, task, demonstrations) for task in tasks]
    return grade_groups(grader, tasks, sample_groups(policy, prompts, n, sampling, cache, advance), cache)


def sample_groups(
    policy: Policy,
    prompts: Sequence[Prompt],
    n: int,
    sampling: Sampling,
    cache: Cache,
    advance: Callable[[int], None] = lambda done: None,
) -> list[list[Rollout]]:
    """``n`` rollouts of each prompt; one group a prompt, in order. Task ids of prompts must differ.

    Rollouts from the cache carry neither token ids nor log-probabilities: evaluation needs none, and RL samples afresh.
    """
    keys = [_rollout_key(policy, prompt, n, sampling) for prompt in prompts]
    groups: dict[str, list[Rollout]] = {}
    missing: list[int] = []
    for i, key in enumerate(keys):
        found = cache.get(key)
        if found is None:
            missing.append(i)
        else:
            groups[prompts[i].task_id] = [
                Rollout(task_id=prompts[i].task_id, index=k, policy_id=policy.id, completion=text, stop=stop)
                for k, (text, stop) in enumerate(found)
            ]
    advance(len(prompts) - len(missing))
    for start in range(0, len(missing), SAVE_EVERY):
        part = missing[start : start + SAVE_EVERY]
        fresh: dict[str, list[Rollout]] = {}
        for rollout in policy.sample([prompts[i] for i in part], n, sampling):
            fresh.setdefault(rollout.task_id, []).append(rollout)
        cache.put((keys[i], [[r.completion, r.stop] for r in fresh[prompts[i].task_id]]) for i in part)
        groups |= fresh
        advance(len(part))
    return [groups[prompt.task_id] for prompt in prompts]


def missing_groups(policy: Policy, prompts: Sequence[Prompt], n: int, sampling: Sampling, cache: Cache) -> list[int]:
    """Indices of the prompts that :func:`sample_groups` would hand to the policy."""
    return [i for i, prompt in enumerate(prompts) if cache.get(_rollout_key(policy, prompt, n, sampling)) is None]


def grade_groups(
    grader: Grader, tasks: Sequence[Task], groups: Sequence[Sequence[Rollout]], cache: Cache | None
) -> list[list[Graded]]:
    """Grade groups of rollouts. Only grades without error are cached: an error may be the machine's."""
    pairs = [(task, rollout) for task, group in zip(tasks, groups, strict=True) for rollout in group]
    grades: list[Grade | None] = [None] * len(pairs)
    keys = [_grade_key(grader, task, rollout) for task, rollout in pairs] if cache else []
    for i, key in enumerate(keys):
        found = cache.get(key) if cache else None
        if found is not None:
            task, rollout = pairs[i]
            grades[i] = Grade(
                task_id=task.id,
                index=rollout.index,
                policy_id=rollout.policy_id,
                score=found["score"],
                passed=found["passed"],
                answer=found["answer"],
                reason=found["reason"],
                grader_digest=grader.digest,
            )
    todo = [i for i, grade in enumerate(grades) if grade is None]
    for i, grade in zip(todo, grader.grade([pairs[i] for i in todo]) if todo else [], strict=True):
        grades[i] = grade
    if cache:
        cache.put((keys[i], _cached(g)) for i in todo if (g := grades[i]) is not None and g.error is None)
    graded = [Graded(t, r, g) for (t, r), g in zip(pairs, grades, strict=True) if g is not None]
    out: list[list[Graded]] = []
    start = 0
    for group in groups:
        out.append(graded[start : start + len(group)])
        start += len(group)
    return out


def _cached(grade: Grade) -> dict[str, object]:
    return {"score": grade.score, "passed": grade.passed, "answer": grade.answer, "reason": grade.reason}


def _rollout_key(policy: Policy, prompt: Prompt, n: int, s: Sampling) -> str:
    messages = [m.as_dict() for m in prompt.messages]
    return digest(["rollouts", policy.id, messages, prompt.task_id, n, s.temperature, s.max_tokens, s.seed])


def _grade_key(grader: Grader, task: Task, rollout: Rollout) -> str:
    return digest(["grade", grader.digest, task.id, dict(task.item), rollout.completion, rollout.stop])
