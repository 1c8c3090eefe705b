"""Tasks x policy -> graded groups. Generations and grades are cached by content, so a rerun pays only
for what changed, and a killed run goes on where it stood.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from json.encoder import encode_basestring
from typing import Any

from rft_ilab.config import SkillSettings
from rft_ilab.skills.tasks import build_prompts, class_of
from rft_ilab.store import Cache
from rft_ilab.types import Grade, Grader, Policy, Prompt, Rollout, Sampling, Skill, Split, Task

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

    def as_dict(self) -> dict[str, Any]:
        """All but the task, as JSON; numbers are read back as they were."""
        return {"rollout": asdict(self.rollout), "grade": asdict(self.grade)}

    @classmethod
    def of(cls, task: Task, row: Mapping[str, Any]) -> Graded:
        rollout: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row["rollout"].items()}
        return cls(task=task, rollout=Rollout(**rollout), grade=Grade(**row["grade"]))


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
    prompts = build_prompts(skill, tasks, demonstrations)
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
    keys = rollout_keys(policy, prompts, n, sampling)
    found = cache.get_many(keys)
    groups: dict[str, list[Rollout]] = {}
    missing: list[int] = []
    for i, key in enumerate(keys):
        answers = found.pop(key, None)
        if answers is None:
            missing.append(i)
        else:
            groups[prompts[i].task_id] = [
                Rollout(task_id=prompts[i].task_id, index=k, policy_id=policy.id, completion=text, stop=stop)
                for k, (text, stop) in enumerate(answers)
            ]
    advance(len(prompts) - len(missing))
    window = getattr(policy, "window", SAVE_EVERY)  # more where a cluster samples
    for start in range(0, len(missing), window):
        part = missing[start : start + window]
        fresh: dict[str, list[Rollout]] = {}
        for rollout in policy.sample([prompts[i] for i in part], n, sampling):
            fresh.setdefault(rollout.task_id, []).append(rollout)
        cache.put((keys[i], [[r.completion, r.stop] for r in fresh[prompts[i].task_id]]) for i in part)
        groups |= fresh
        advance(len(part))
    return [groups[prompt.task_id] for prompt in prompts]


def missing_groups(policy: Policy, prompts: Sequence[Prompt], n: int, sampling: Sampling, cache: Cache) -> list[int]:
    """Indices of the prompts that :func:`sample_groups` would hand to the policy."""
    keys = rollout_keys(policy, prompts, n, sampling)
    there = cache.known(keys)
    return [i for i, key in enumerate(keys) if key not in there]


def grade_groups(
    grader: Grader, tasks: Sequence[Task], groups: Sequence[Sequence[Rollout]], cache: Cache | None
) -> list[list[Graded]]:
    """Grade groups of rollouts. Only grades without error are cached: an error may be the machine's."""
    pairs = [(task, rollout) for task, group in zip(tasks, groups, strict=True) for rollout in group]
    if cache is None:
        grades = iter(grader.grade(pairs) if pairs else [])
        return [[Graded(t, r, next(grades)) for r in group] for t, group in zip(tasks, groups, strict=True)]
    keys = grade_keys(grader.digest, tasks, groups)
    found = cache.get_many(keys)
    todo = [i for i, key in enumerate(keys) if key not in found]
    fresh = dict(zip(todo, grader.grade([pairs[i] for i in todo]) if todo else [], strict=True))
    cache.put((keys[i], _cached(grade)) for i, grade in fresh.items() if grade.error is None)
    graded = (
        Graded(task, rollout, fresh[i] if i in fresh else _grade(found[keys[i]], rollout, grader.digest))
        for i, (task, rollout) in enumerate(pairs)
    )
    return [list(itertools.islice(graded, len(group))) for group in groups]


def cached_grades(
    grader_digest: str, tasks: Sequence[Task], groups: Sequence[Sequence[Rollout]], cache: Cache
) -> list[list[Grade | None]]:
    """What a grader, of which the digest is all that is left, once said of each rollout; None if that is not known."""
    keys = grade_keys(grader_digest, tasks, groups)
    found = cache.get_many(keys)
    rollouts = (rollout for group in groups for rollout in group)
    grades = (_grade(found[k], r, grader_digest) if k in found else None for k, r in zip(keys, rollouts, strict=True))
    return [list(itertools.islice(grades, len(group))) for group in groups]


def _grade(found: Mapping[str, Any], rollout: Rollout, grader_digest: str) -> Grade:
    return Grade(
        task_id=rollout.task_id,
        index=rollout.index,
        policy_id=rollout.policy_id,
        score=found["score"],
        passed=found["passed"],
        answer=found["answer"],
        reason=found["reason"],
        grader_digest=grader_digest,
    )


def _cached(grade: Grade) -> dict[str, object]:
    return {"score": grade.score, "passed": grade.passed, "answer": grade.answer, "reason": grade.reason}


def rollout_keys(policy: Policy, prompts: Sequence[Prompt], n: int, s: Sampling) -> list[str]:
    """Where the cache has the answers to each prompt: digests of ["rollouts", policy, messages, task, n, sampling ...].

    Written out by hand, since a gate asks for tens of thousands whose demonstrations are the same.
    """
    head = _json(["rollouts", policy.id])[:-1]
    tail = _json([n, s.temperature, s.max_tokens, s.seed])[1:]
    shared: dict[tuple[tuple[str, str], ...], str] = {}
    keys = []
    for prompt in prompts:
        *before, last = map(_ROLE_AND_CONTENT, prompt.messages)
        start = shared.get(turns := tuple(before))
        if start is None:
            start = shared[turns] = "".join(f"{_message(*turn)}," for turn in turns)
        keys.append(_sha256(f"{head},[{start}{_message(*last)}],{encode_basestring(prompt.task_id)},{tail}"))
    return keys


def grade_keys(grader_digest: str, tasks: Sequence[Task], groups: Sequence[Sequence[Rollout]]) -> list[str]:
    """Where the cache has the grade of each rollout: digests of ["grade", grader, task, item, completion, stop]."""
    keys = []
    for task, group in zip(tasks, groups, strict=True):
        head = _json(["grade", grader_digest, task.id, dict(task.item)])[:-1] if group else ""
        keys += [_sha256(f'{head},{encode_basestring(r.completion)},"{r.stop}"]') for r in group]
    return keys


# The text that digest() hashes.
_json = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode


_ROLE_AND_CONTENT = operator.attrgetter("role", "content")


def _message(role: str, content: str) -> str:
    return f'{{"content":{encode_basestring(content)},"role":{encode_basestring(role)}}}'


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
