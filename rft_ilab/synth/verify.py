"""Verified answers by rejection sampling, with a ledger of every candidate.

The policy answers training tasks with the skill's seed examples as demonstrations; what the grader
accepts becomes supervised data for the prompt without them. Every candidate gets exactly one
disposition. Where a class has too few accepted samples, the authored references of its tasks serve
instead and are counted apart: RL never finds an answer that the policy never samples.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rft_ilab.config import DataSettings
from rft_ilab.rollouts import Environment, Graded, collect
from rft_ilab.skills.tasks import build_prompt
from rft_ilab.store import Cache
from rft_ilab.types import Message, Policy, Sampling, Task

Disposition = Literal["kept", "wrong", "error", "duplicate", "truncated", "surplus", "reference"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One verified answer for supervised training; ``evidence`` says why it is right."""

    task: Task
    prompt: tuple[Message, ...]
    completion: str
    evidence: Literal["sampled", "reference"]

    def as_row(self) -> dict[str, Any]:
        """A line of ``verified.jsonl``, in the shape that ``ilab model train`` reads."""
        turns = [*self.prompt, Message("assistant", self.completion)]
        return {
            "id": self.task.id,
            "messages": [m.as_dict() for m in turns],
            "unmask": False,
            "metadata": {"skill": self.task.skill, "evidence": self.evidence},
        }


@dataclass(frozen=True, slots=True)
class Verified:
    """What was kept, and the ledger of all candidates (rows of ``data/ledger.jsonl``)."""

    examples: tuple[Example, ...]
    ledger: tuple[Mapping[str, Any], ...]

    @property
    def dispositions(self) -> Counter[str]:
        return Counter(row["disposition"] for row in self.ledger)


def verify_answers(
    environment: Environment,
    policy: Policy,
    settings: DataSettings,
    *,
    count: int,
    train_demonstrations: int,
    seed: int,
    cache: Cache,
    advance: Callable[[int], None] = lambda done: None,
) -> Verified:
    """Sample answers to ``count`` training tasks and keep what the grader accepts.

    The skill's demonstrations are shown while sampling; ``train_demonstrations`` are part of the kept
    prompt (0 for a target, which is to answer the bare prompt).
    """
    skill, classes = environment.skill, environment.classes or {}
    demonstrations = environment.settings.demonstrations
    rng = random.Random(f"verify/{seed}/{skill.name}")
    chosen = spread_over_classes(environment.split("train"), classes, count, rng)
    sampling = Sampling(temperature=settings.temperature, max_tokens=environment.settings.max_tokens, seed=seed)
    groups = collect(
        policy,
        environment.grader,
        skill,
        chosen,
        settings.samples,
        sampling,
        demonstrations=demonstrations,
        cache=cache,
        advance=advance,
    )
    ledger: list[dict[str, Any]] = []
    examples: list[Example] = []
    kept_of_class: Counter[str] = Counter()
    for task, group in zip(chosen, groups, strict=True):
        kind = classes.get(task.id, "")
        seen: set[str] = set()
        for graded in group:
            disposition = _dispose(graded, seen, kept_of_class[kind] < settings.keep_per_class)
            if disposition == "kept":
                seen.add(graded.rollout.completion)
                kept_of_class[kind] += 1
                prompt = build_prompt(skill, task, train_demonstrations).messages
                examples.append(
                    Example(task=task, prompt=prompt, completion=graded.rollout.completion, evidence="sampled")
                )
            ledger.append(_row(graded, disposition, demonstrations))
    floor = settings.keep_per_class // 2
    answered = {example.task.id for example in examples}
    for task in chosen:
        kind = classes.get(task.id, "")
        if kept_of_class[kind] < floor and task.id not in answered:
            kept_of_class[kind] += 1
            prompt = build_prompt(skill, task, train_demonstrations).messages
            examples.append(Example(task=task, prompt=prompt, completion=task.reference, evidence="reference"))
            ledger.append(_reference_row(task))
    return Verified(tuple(examples), tuple(ledger))


def spread_over_classes(
    tasks: Sequence[Task], classes: Mapping[str, str], count: int, rng: random.Random
) -> list[Task]:
    """At most ``count`` tasks, drawn round-robin over the classes (one class if there are none).

    Within a class, groups take turns too, so that one wide template does not crowd out the others.
    """
    piles: dict[str, dict[str, list[Task]]] = {}
    for task in tasks:
        piles.setdefault(classes.get(task.id, ""), {}).setdefault(task.group, []).append(task)
    queues: list[list[Task]] = []
    for kind in sorted(piles):
        columns = list(piles[kind].values())
        rng.shuffle(columns)
        for column in columns:
            rng.shuffle(column)
        longest = max(len(column) for column in columns)
        queues.append([column[i] for i in range(longest) for column in columns if i < len(column)])
    out: list[Task] = []
    for i in range(max((len(queue) for queue in queues), default=0)):
        out.extend(queue[i] for queue in queues if i < len(queue))
    return out[:count]


def _dispose(graded: Graded, seen: set[str], room: bool) -> Disposition:
    if graded.grade.error is not None:
        return "error"
    if graded.rollout.stop == "length":
        return "truncated"
    if not graded.grade.passed:
        return "wrong"
    if graded.rollout.completion in seen:
        return "duplicate"
    return "kept" if room else "surplus"


def _row(graded: Graded, disposition: Disposition, demonstrations: int) -> dict[str, Any]:
    grade, rollout = graded.grade, graded.rollout
    return {
        "task_id": graded.task.id,
        "skill": graded.task.skill,
        "index": rollout.index,
        "disposition": disposition,
        "completion": rollout.completion,
        "score": grade.score,
        "reason": grade.error or grade.reason,
        "policy_id": rollout.policy_id,
        "demonstrations": demonstrations,
    }


def _reference_row(task: Task) -> dict[str, Any]:
    return {
        "task_id": task.id,
        "skill": task.skill,
        "index": -1,
        "disposition": "reference",
        "completion": task.reference,
        "score": 1.0,
        "reason": "authored reference: too few samples of its class passed",
        "policy_id": "authored",
        "demonstrations": 0,
    }
