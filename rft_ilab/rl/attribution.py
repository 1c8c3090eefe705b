"""Which stage did what: accuracy, flipped answers and distance of base, warm start and chosen model.

All on validation tasks of the target; greedy answers are those that selection has graded already. Distance is the KL
divergence in nats per token, estimated from completions that the later model sampled (a Monte Carlo mean of
log p_later - log p_earlier, so it may come out slightly negative where the two are the same but for noise).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from rft_ilab.rl.engine import Engine
from rft_ilab.rl.selection import Candidate, use
from rft_ilab.rl.validation import Answer
from rft_ilab.rollouts import Environment
from rft_ilab.skills.tasks import build_prompt
from rft_ilab.types import Sampling

# Validation tasks, one sampled completion each, from which a distance is estimated.
KL_TASKS = 64
Pair = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class State:
    """A model to be compared: ``candidate`` None is the base with demonstrations, which shares the base's weights."""

    name: str
    candidate: Candidate | None
    answers: Mapping[str, Answer]


def attribute(
    engine: Engine, log: Path, environment: Environment, states: Sequence[State], tasks: int, seed: int
) -> dict[str, Any]:
    """One skill's entry of ``rl/attribution.json``; leaves other weights in ``engine`` than it found.

    ``states`` in the order of training; transitions are those between neighbours with weights, and from the first to
    the last. Of greedy answers that flipped, those count that both sides have a grade for.
    """
    ids = [task.id for task in environment.validation(tasks)]
    weighted = [(s, s.candidate) for s in states if s.candidate]
    steps = list(pairwise(weighted))
    if len(weighted) > 2:
        steps.append((weighted[0], weighted[-1]))
    distances = _distances(engine, log, environment, [(a, b) for (_, a), (_, b) in steps], seed)
    return {
        "skill": environment.skill.name,
        "tasks": len(ids),
        "states": [_state(s, ids) for s in states],
        "transitions": [
            {"from": a.name, "to": b.name, **_flips(a, b, ids), **d}
            for ((a, _), (b, _)), d in zip(steps, distances, strict=True)
        ],
    }


def attribution_line(entry: Mapping[str, Any]) -> str:
    """For people: accuracy of every state, and what the last stage did to single answers."""
    parts = [f"{s['name']} {'n/a' if s['accuracy'] is None else format(s['accuracy'], '.1%')}" for s in entry["states"]]
    last = next(t for t in entry["transitions"] if (t["from"], t["to"]) == ("warm start", "chosen"))
    return (
        f"{entry['skill']} on {entry['tasks']} validation tasks: {', '.join(parts)}; after the warm start "
        f"{last['fixed']} fixed, {last['broken']} broken, KL {last['kl']} nats per token"
    )


def _state(state: State, ids: Sequence[str]) -> dict[str, Any]:
    passed = [state.answers[i].passed for i in ids]
    graded = [p for p in passed if p is not None]
    accuracy = round(sum(graded) / len(graded), 4) if graded else None
    weights = state.candidate.label if state.candidate else None
    return {"name": state.name, "weights": weights, "accuracy": accuracy, "graded": len(graded)}


def _flips(before: State, after: State, ids: Sequence[str]) -> dict[str, Any]:
    pairs = [(before.answers[i].passed, after.answers[i].passed) for i in ids]
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    fixed, broken = sum(b and not a for a, b in both), sum(a and not b for a, b in both)
    gain = round((fixed - broken) / len(both), 4) if both else None
    return {"compared": len(both), "gain": gain, "fixed": fixed, "broken": broken}


def _distances(
    engine: Engine, log: Path, environment: Environment, steps: Sequence[tuple[Candidate, Candidate]], seed: int
) -> list[dict[str, Any]]:
    """KL(later || earlier) for each pair: completions of the later, scored once under each model that is asked for."""
    drawn: dict[str, list[Pair]] = {}
    scores: dict[tuple[str, str], list[float]] = {}

    def samples(later: Candidate) -> list[Pair]:
        if later.label not in drawn:
            use(engine, later, later.scale, log)
            drawn[later.label] = _sample(engine, environment, later.label, seed)
        return drawn[later.label]

    def scored(later: Candidate, model: Candidate) -> list[float]:
        pairs = samples(later)
        if (later.label, model.label) not in scores:
            use(engine, model, model.scale, log)
            scores[later.label, model.label] = [x for logprobs_T in engine.score(pairs) for x in logprobs_T]
        return scores[later.label, model.label]

    found: list[dict[str, Any]] = []
    for earlier, later in steps:
        if earlier.label == later.label:
            found.append({"kl": 0.0, "tokens": 0})
            continue
        ours, theirs = scored(later, later), scored(later, earlier)
        found.append({"kl": round((sum(ours) - sum(theirs)) / len(ours), 4) if ours else None, "tokens": len(ours)})
    return found


def _sample(engine: Engine, environment: Environment, label: str, seed: int) -> list[Pair]:
    """One completion at temperature 1 for each of the first validation tasks, as token ids."""
    tasks = environment.validation(KL_TASKS)
    prompts = [build_prompt(environment.skill, task, 0) for task in tasks]
    sampling = Sampling(temperature=1.0, max_tokens=environment.settings.max_tokens, seed=seed)
    rollouts = {r.task_id: r for r in engine.policy(f"attribution:{label}").sample(prompts, 1, sampling)}
    return [
        (tuple(engine.loaded.encode_prompt(p.messages)), tuple(rollouts[p.task_id].token_ids or ())) for p in prompts
    ]
