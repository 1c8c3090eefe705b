"""Verified answers by rejection sampling, with a line in the ledger for every task and every answer.

The policy answers training tasks with the skill's seed examples as demonstrations; what the grader accepts becomes
supervised data for the prompt without them: of one task's right answers the shortest, and others that differ from it.
Where a class has too few accepted samples, the authored references of its tasks serve instead and are counted apart:
RL never finds an answer that the policy never samples.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from rft_ilab.config import DataSettings
from rft_ilab.difficulty import Band, Passes, Prior, fit_prior
from rft_ilab.rollouts import Environment, Graded, collect
from rft_ilab.skills.tasks import build_prompt
from rft_ilab.store import Cache
from rft_ilab.synth.contamination import HeldOut
from rft_ilab.synth.duplicates import alike
from rft_ilab.synth.ledger import Disposition, Entry, Source, answer_id, counts, said, sampling_row
from rft_ilab.synth.screening import EVIDENCE, Screened, entry, question
from rft_ilab.types import Message, Policy, Sampling, Task

NONE_SEEN = Passes(0, 0)
SAME = 0.8  # of two right answers to one task that are this similar, one is enough


@dataclass(frozen=True, slots=True, kw_only=True)
class Sourced:
    """A task to be answered, and where it comes from. ``screened`` unless it was authored."""

    task: Task
    source: Source = "authored"
    screened: Screened | None = None
    band: Band | None = None
    passes: Passes = NONE_SEEN
    chance_mixed: float | None = None

    @property
    def evidence(self) -> str:
        return EVIDENCE.get(self.source, "authored")


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One verified answer for supervised training; ``evidence`` says why it is right."""

    task: Task
    prompt: tuple[Message, ...]
    completion: str
    evidence: Literal["sampled", "reference"]
    source: Source = "authored"

    def as_row(self) -> dict[str, Any]:
        """A line of ``verified.jsonl``, in the shape that ``ilab model train`` reads."""
        turns = [*self.prompt, Message("assistant", self.completion)]
        return {
            "id": self.task.id,
            "messages": [m.as_dict() for m in turns],
            "unmask": False,
            "metadata": {"skill": self.task.skill, "evidence": self.evidence, "source": self.source},
        }


@dataclass(frozen=True, slots=True)
class Verified:
    """What was kept, the line of every candidate, and all answered tasks with their bands."""

    examples: tuple[Example, ...]
    ledger: tuple[Entry, ...]
    tasks: tuple[Sourced, ...]

    @property
    def dispositions(self) -> Counter[str]:
        """Of answers."""
        return counts(self.ledger, "answer")


def authored(environment: Environment, count: int, found: HeldOut, seed: int) -> tuple[list[Sourced], list[Entry]]:
    """At most ``count`` training tasks, spread over classes and groups; and the lines of contaminated ones."""
    clean, lines = [], []
    for task in environment.split("train"):
        if (near := found.find(question(task), own=task.skill)) is None:
            clean.append(task)
            continue
        fate = replace(_task_entry(environment, Sourced(task=task)), disposition="contaminated", reason=near.reason)
        lines.append(replace(fate, duplicate_of=near.key, overlap=near.overlap))
    rng = random.Random(f"verify/{seed}/{environment.skill.name}")
    chosen = spread_over_classes(clean, environment.classes or {}, count, rng)
    return [Sourced(task=task) for task in chosen], lines


def verify_answers(
    environment: Environment,
    policy: Policy,
    settings: DataSettings,
    tasks: Sequence[Sourced],
    *,
    train_demonstrations: int,
    seed: int,
    cache: Cache,
    student: Policy | None = None,
    group_size: int = 8,
    advance: Callable[[int], None] = lambda done: None,
) -> Verified:
    """Sample answers to ``tasks`` and keep what the grader accepts.

    The skill's demonstrations are shown while sampling; ``train_demonstrations`` are part of the kept
    prompt (0 for a target, which is to answer the bare prompt). ``student``: who is to be trained, if that is not
    ``policy``; it answers ``settings.band_samples`` times, and its answers decide the bands, for groups of
    ``group_size`` rollouts.
    """
    skill, demonstrations = environment.skill, environment.settings.demonstrations
    sampling = answer_sampling(environment, settings, seed)

    def ask(who: Policy, n: int) -> list[list[Graded]]:
        plain = [one.task for one in tasks]
        return collect(
            who, environment.grader, skill, plain, n, sampling,
            demonstrations=demonstrations, cache=cache, advance=advance,
        )  # fmt: skip

    groups = ask(policy, settings.samples)
    tried = groups if student is None else ask(student, settings.band_samples) if settings.band_samples else None
    ledger: list[Entry] = []
    examples: list[Example] = []
    kept_of_class: Counter[str] = Counter()
    for one, group in zip(tasks, groups, strict=True):
        kind = _class_of(environment, one.task)
        fates = _dispose(group, settings.keep_per_class - kept_of_class[kind])
        kept_of_class[kind] += fates.count("kept")
        prompt = build_prompt(skill, one.task, train_demonstrations).messages
        for graded, fate in zip(group, fates, strict=True):
            ledger.append(_answer_entry(environment, one, graded, fate, sampling))
            if fate == "kept":
                text = graded.rollout.completion
                examples.append(
                    Example(task=one.task, prompt=prompt, completion=text, evidence="sampled", source=one.source)
                )
    floor = settings.keep_per_class // 2
    answered = {example.task.id for example in examples}
    for one in tasks:
        kind = _class_of(environment, one.task)
        # Only what a person or a program vouches for: what a teacher's answers agree on is no reference to lean on.
        if kept_of_class[kind] < floor and one.task.id not in answered and one.task.origin != "synthetic":
            kept_of_class[kind] += 1
            prompt = build_prompt(skill, one.task, train_demonstrations).messages
            text = one.task.reference
            examples.append(
                Example(task=one.task, prompt=prompt, completion=text, evidence="reference", source=one.source)
            )
            ledger.append(_reference_entry(environment, one))
    banded = _banded(tasks, tried, group_size) if tried else list(tasks)
    return Verified(tuple(examples), (*(_task_entry(environment, one) for one in banded), *ledger), tuple(banded))


def answer_sampling(environment: Environment, settings: DataSettings, seed: int) -> Sampling:
    return Sampling(temperature=settings.temperature, max_tokens=environment.settings.max_tokens, seed=seed)


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


def _class_of(environment: Environment, task: Task) -> str:
    return "" if environment.classes is None else environment.classes.get(task.id, task.reference.strip())


def _dispose(group: Sequence[Graded], room: int) -> list[Disposition]:
    """One disposition an answer, in the order of ``group``; short answers are looked at first."""
    fates: dict[int, Disposition] = {}
    kept: list[str] = []
    for i in sorted(range(len(group)), key=lambda i: (len(group[i].rollout.completion), i)):
        text = group[i].rollout.completion
        if group[i].grade.error is not None:
            fates[i] = "error"
        elif group[i].rollout.stop == "length":
            fates[i] = "truncated"
        elif not group[i].grade.passed:
            fates[i] = "wrong"
        elif any(alike(text, other, SAME) for other in kept):
            fates[i] = "duplicate"
        elif len(kept) < room:
            kept.append(text)
            fates[i] = "kept"
        else:
            fates[i] = "surplus"
    return [fates[i] for i in range(len(group))]


def _banded(tasks: Sequence[Sourced], groups: Sequence[Sequence[Graded]], group_size: int) -> list[Sourced]:
    seen = [Passes.of([graded.grade.passed for graded in group]) for group in groups]
    prior: Prior = fit_prior(seen)
    return [
        replace(
            one, band=prior.band(own, group_size), passes=own,
            chance_mixed=round(prior.chance_mixed(own, group_size), 4) if own.graded else None,
        )
        for one, own in zip(tasks, seen, strict=True)
    ]  # fmt: skip


def _task_entry(environment: Environment, one: Sourced) -> Entry:
    fate: Disposition = one.band if one.band in ("too_easy", "too_hard") else "kept"
    reason = "no answer was graded"
    if one.passes.graded:
        chance = f"a group would be mixed with a chance of {one.chance_mixed:.0%}"
        reason = f"{one.passes.right} of {one.passes.graded} sampled answers are right; {chance}"
    if one.screened:
        line = entry(environment, one.screened)
        return replace(
            line, disposition=fate, reason=f"{line.reason}; {reason}", band=one.band, pass_rate=one.passes.rate,
            chance_mixed=one.chance_mixed,
        )  # fmt: skip
    return Entry(
        kind="task", id=one.task.id, skill=environment.skill.name, source=one.source, disposition=fate, reason=reason,
        task_id=one.task.id, evidence=one.evidence, prompt=question(one.task), reference=one.task.reference,
        grader_digest=environment.skill.grader_digest, band=one.band, pass_rate=one.passes.rate,
        chance_mixed=one.chance_mixed,
    )  # fmt: skip


def _answer_entry(
    environment: Environment, one: Sourced, graded: Graded, fate: Disposition, sampling: Sampling
) -> Entry:
    rollout, seed = graded.rollout, one.screened.proposal.seed if one.screened else None
    return Entry(
        kind="answer", id=answer_id(rollout, sampling), skill=environment.skill.name, source=one.source,
        disposition=fate, reason=said(graded.grade), task_id=one.task.id, seed_id=seed.id if seed else None,
        evidence="sampled", index=rollout.index, prompt=question(one.task), reference=one.task.reference,
        completion=rollout.completion, score=graded.grade.score, policy_id=rollout.policy_id,
        sampling=sampling_row(sampling), demonstrations=environment.settings.demonstrations,
        grader_digest=environment.skill.grader_digest,
    )  # fmt: skip


def _reference_entry(environment: Environment, one: Sourced) -> Entry:
    return Entry(
        kind="answer", id=one.task.id, skill=environment.skill.name, source=one.source, disposition="reference",
        reason="authored reference: too few samples of its class passed", task_id=one.task.id, evidence="reference",
        index=-1, prompt=question(one.task), reference=one.task.reference, completion=one.task.reference, score=1.0,
        policy_id="authored", demonstrations=0, grader_digest=environment.skill.grader_digest,
    )  # fmt: skip
