"""Before and after the first GRPO step: how many groups should carry signal, and how many do."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rft_ilab.config import TrainSettings
from rft_ilab.rl.curriculum import draw_tasks
from rft_ilab.rl.engine import Engine
from rft_ilab.rl.evaluate import refuse_errors, sample_and_grade
from rft_ilab.rl.objective import group_advantages, has_signal
from rft_ilab.rl.signal import Signal, measure_signal, refuse_without_signal, surprise
from rft_ilab.rollouts import Environment
from rft_ilab.store import read_json, write_json
from rft_ilab.types import Sampling

SIGNAL_TASKS = 48
FILE = "signal.json"


def check_signal(
    engine: Engine, targets: Sequence[Environment], settings: TrainSettings, log: Path, say: Callable[[str], None]
) -> None:
    """Sample training tasks after the warm start and write what that says to ``log``.

    Raises SignalError if there is nothing to learn from, GraderError if too many grades are errors.
    """
    found = [_measure(engine, environment, settings) for environment in targets]
    write_json(log / FILE, [s.as_dict() for s in found])
    for s in found:
        say(
            f"signal for {s.skill}: pass@1 {s.pass_at_1:.1%}, pass@{s.samples} {s.pass_at_k:.1%}, "
            f"{s.expected_mixed:.0%} of groups expected mixed"
        )
        refuse_without_signal(s, settings.signal_floor)


def _measure(engine: Engine, environment: Environment, settings: TrainSettings) -> Signal:
    rng = random.Random(f"signal/{settings.seed}")
    # Drawn as the first step will draw its own, or there would be nothing to compare.
    tasks = draw_tasks(environment.split("train"), environment.classes, {}, SIGNAL_TASKS, settings.balanced, rng)
    sampling = Sampling(max_tokens=environment.settings.max_tokens, seed=rng.randrange(2**31))
    groups = sample_and_grade(engine.policy("signal"), environment, tasks, settings.group_size, sampling, 0)
    refuse_errors(environment, groups, settings.max_error_share)
    measured = measure_signal(
        environment.skill.name,
        [(g[0].task.id, [r.grade.passed for r in g]) for g in groups],
        classes=environment.classes,
        samples=settings.group_size,
        group_size=settings.group_size,
        after="sft",
    )
    # These groups are as large as training's: what carries signal can be counted, partial credit and all.
    rewards_NG = [[None if r.grade.error else r.grade.reward for r in g] for g in groups]
    carry = sum(has_signal(group_advantages(rewards_G)) for rewards_G in rewards_NG)
    rewards = [r for rewards_G in rewards_NG for r in rewards_G if r is not None]
    mean = sum(rewards) / len(rewards) if rewards else None
    return replace(measured, expected_mixed=carry / max(1, measured.tasks), mean_reward=mean)


def compare_with_prediction(log: Path, row: Mapping[str, Any], say: Callable[[str], None]) -> float:
    """Say how many groups of the first step carry signal, and what share was expected to; returns that share."""
    predicted = read_json(log / FILE)
    share = sum(p["expected_mixed"] for p in predicted) / len(predicted)
    chance = surprise(predicted, row["signal_groups"], row["groups"])
    say(
        f"first step: {row['signal_groups']} of {row['groups']} groups are mixed, {share:.0%} were expected"
        + (f"; more than chance explains (p = {chance:.2g})" if chance < 0.01 else "")
    )
    return round(share, 4)
