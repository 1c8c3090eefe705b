"""GRPO: sample groups, grade them, raise what did better than its group. One readable loop.

Paper: arXiv 2402.03300. Kept: group-normalised rewards, no value network, on-policy (one update a
batch by default). From DAPO (arXiv 2503.14476): groups without signal are dropped and refilled, token-mean loss.
Off by default: the KL term (watched skills are replayed and the checkpoint is chosen on validation instead) and an
entropy bonus; both are measured all the same.
A batch may be sampled while the one before it is trained on (``async_steps``).
Added: a group that is wrong throughout teaches nothing, so its task's authored reference joins the batch
as a supervised sample (off-policy guidance, as in LUFFY, arXiv 2504.14945); counted apart as ``guided``.
A grader error is no reward: it is masked, counted, and stops the run when there are too many.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from rft_ilab.config import TrainSettings
from rft_ilab.errors import GraderError
from rft_ilab.rl.ahead import meanwhile
from rft_ilab.rl.engine import Engine
from rft_ilab.rl.groups import Group, as_rows, of_rows, sample_batch
from rft_ilab.rl.objective import WeightedSequence, equal_sequences, has_signal, learning_rate
from rft_ilab.rl.progress import Progress
from rft_ilab.rollouts import Environment
from rft_ilab.skills.tasks import build_prompt
from rft_ilab.store import append_jsonl


def grpo_step(
    engine: Engine, environments: Sequence[Environment], settings: TrainSettings, progress: Progress, log: Path
) -> dict[str, Any]:
    """One step: sample, grade, update. Advances ``progress``; appends rollouts and the step's row to ``log``.

    Raises GraderError when the share of erroneous grades so far exceeds ``max_error_share``, TrainingError when updates
    keep going wrong (see :mod:`.guard`).
    """
    step = progress.step
    started = time.monotonic()
    engine.refresh_sampler()
    if progress.ahead:
        groups, progress.ahead = of_rows(progress.ahead, environments, settings), []
    else:
        groups = sample_batch(engine, environments, settings, progress, step)
    training = time.monotonic()
    _check_errors(progress, settings)
    sequences = [s for g in groups if has_signal(g.advantages_G) for s in _weighted(engine, g)]
    # Not by what a teacher's answers agreed on: that is no reference to lean on.
    trusted = [g for g in groups if g.rollouts[0].task.origin != "synthetic"]
    guided = [g for g in trusted if settings.guidance and _all_wrong(g)]
    sequences += [_guidance(engine, g, settings.guidance) for g in guided]
    if settings.loss_mean == "sequence":
        sequences = equal_sequences(sequences)
    rate = progress.guard.factor * learning_rate(step, settings.steps, settings.learning_rate, settings.warmup_steps)
    rewards = [graded.grade.reward for g in groups for graded in g.rollouts if graded.grade.error is None]
    row: dict[str, Any] = {
        "stage": "grpo",
        "step": step + 1,
        "steps": settings.steps,
        **_mean_and_spread(rewards),
        "signal_groups": sum(has_signal(g.advantages_G) for g in groups),
        "groups": len(groups),
        "guided": len(guided),
        "errors": sum(graded.grade.error is not None for g in groups for graded in g.rollouts),
        "completion_tokens": sum(len(graded.rollout.token_ids or ()) for g in groups for graded in g.rollouts),
        "learning_rate": rate,
        "sample_s": round(training - started, 3),
    }
    # Before the update: if that stops the run, they are the evidence.
    append_jsonl(log / "rollouts.jsonl", (r for g in groups for r in _rollout_rows(g, step + 1)))
    ahead = settings.async_steps and step + 1 < settings.steps
    sample_next = partial(_sample_next, engine, environments, settings, progress, row) if ahead else None
    if sequences:
        for update in range(settings.updates):
            row |= _update(engine, sequences, rate, progress, log, sample_next if update == 0 else None)
    elif sample_next:
        sample_next()
    row["train_s"] = round(time.monotonic() - training, 3)
    row["tokens_per_s"] = round(row["completion_tokens"] / max(1e-3, time.monotonic() - started), 1)
    progress.step += 1
    return row


def _sample_next(
    engine: Engine,
    environments: Sequence[Environment],
    settings: TrainSettings,
    progress: Progress,
    row: dict[str, Any],
) -> None:
    """Put the next step's batch into ``progress``, and the time it takes into this step's ``row``."""
    started = time.monotonic()
    progress.ahead = as_rows(sample_batch(engine, environments, settings, progress, progress.step + 1))
    row["sample_s"] = round(row["sample_s"] + time.monotonic() - started, 3)


def _mean_and_spread(rewards: Sequence[float]) -> dict[str, float]:
    """Of graded rollouts; nothing where all grades are errors."""
    if not rewards:
        return {}
    mean = sum(rewards) / len(rewards)
    std = math.sqrt(sum((r - mean) ** 2 for r in rewards) / len(rewards))
    return {"reward": round(mean, 4), "reward_std": round(std, 4)}


def _update(
    engine: Engine,
    sequences: Sequence[WeightedSequence],
    rate: float,
    progress: Progress,
    log: Path,
    sample_next: Callable[[], None] | None,
) -> dict[str, Any]:
    """One update; what it came to, without numbers that are none. Raises TrainingError.

    ``sample_next`` is done with the weights before it, at the same time where that is possible.
    """
    settings = engine.settings
    # The reference's forward pass is a quarter of an update, so KL is measured now and then.
    every = settings.kl_every
    measure_kl = every > 0 and (progress.step % every == 0 or progress.step + 1 == settings.steps)
    # The reference runs in the same layers, with other weights.
    together = not measure_kl and not settings.kl_weight
    with meanwhile(sample_next, together=together) if sample_next else nullcontext():
        stats = engine.accumulate(sequences, measure_kl=measure_kl, entropy_weight=progress.entropy_guard.weight)
    done = progress.guard.update(engine, stats, rate, step=f"GRPO step {progress.step + 1}", log=log)
    progress.entropy_guard.after(stats.entropy, settings.entropy_target)
    found = {
        "entropy": round(stats.entropy, 4),
        "loss": round(stats.loss, 5),
        "importance_gap": round(stats.importance_gap, 5),
        "nodes": stats.nodes,
        "predictions": stats.predictions,
    }
    if stats.kl:
        found["kl"] = round(sum(kl for kl, _ in stats.kl.values()) / sum(n for _, n in stats.kl.values()), 5)
    row: dict[str, Any] = {k: v for k, v in found.items() if math.isfinite(v)}
    if stats.kl:
        row["kl_by_skill"] = {skill: round(kl / n, 5) for skill, (kl, n) in sorted(stats.kl.items())}
    if settings.entropy_target:
        row["entropy_weight"] = progress.entropy_guard.weight
    return row | done


def _check_errors(progress: Progress, settings: TrainSettings) -> None:
    if progress.graded and progress.errors / progress.graded > settings.max_error_share:
        raise GraderError(
            f"{progress.errors} of {progress.graded} grades are errors; the first: {progress.first_error}",
            fix="run: ilab taxonomy lint",
        )


def _all_wrong(group: Group) -> bool:
    """Did every valid rollout score nothing? (Errors alone say nothing about the task.)"""
    rewards = [r.grade.reward for r in group.rollouts if r.grade.error is None]
    return bool(rewards) and max(rewards) == 0.0


def _prompt_ids(engine: Engine, group: Group) -> tuple[int, ...]:
    prompt = build_prompt(group.environment.skill, group.rollouts[0].task, 0)
    return tuple(engine.loaded.encode_prompt(prompt.messages))


def _weighted(engine: Engine, group: Group) -> list[WeightedSequence]:
    """The group's valid rollouts, weighted by their advantages."""
    prompt_ids, skill = _prompt_ids(engine, group), group.environment.skill.name
    return [
        WeightedSequence(prompt_ids, graded.rollout.token_ids or (), advantage, graded.rollout.logprobs, skill)
        for graded, advantage in zip(group.rollouts, group.advantages_G, strict=True)
        if advantage is not None and graded.rollout.token_ids
    ]


def _guidance(engine: Engine, group: Group, weight: float) -> WeightedSequence:
    """The task's authored reference as one supervised sample."""
    reference = tuple(engine.loaded.encode_completion(group.rollouts[0].task.reference))
    return WeightedSequence(_prompt_ids(engine, group), reference, weight, skill=group.environment.skill.name)


def _rollout_rows(group: Group, step: int) -> list[Mapping[str, Any]]:
    """Rows of ``rl/rollouts.jsonl``: everything that a person needs to judge the grader's judgement."""
    return [
        {
            "step": step,
            "skill": graded.task.skill,
            "task_id": graded.task.id,
            "index": graded.rollout.index,
            "prompt": graded.task.messages[-1].content,
            "reference": graded.task.reference,
            "completion": graded.rollout.completion,
            "stop": graded.rollout.stop,
            "score": graded.grade.score,
            "error": graded.grade.error,
            "reason": graded.grade.reason,
            "advantage": None if advantage is None else round(advantage, 4),
        }
        for graded, advantage in zip(group.rollouts, group.advantages_G, strict=True)
    ]


def train_grpo(
    engine: Engine,
    environments: Sequence[Environment],
    settings: TrainSettings,
    progress: Progress,
    log: Path,
    *,
    after_step: Callable[[dict[str, Any]], bool],
) -> None:
    """Run steps until ``settings.steps``; ``after_step(row)`` saves what it wants and returns True to stop."""
    while progress.step < settings.steps:
        row = grpo_step(engine, environments, settings, progress, log)
        if after_step(row):
            return
