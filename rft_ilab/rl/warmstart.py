"""Supervised warm start on verified answers: from never right to sometimes right.

It teaches the answer format and every class, and does most of the work on a small model. RL starts from its weights
and learns from what the policy itself says; ``ilab rft report`` shows what each of the two added.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rft_ilab.config import TrainSettings
from rft_ilab.rl.engine import Engine
from rft_ilab.rl.lessons import Lesson, plan_batches
from rft_ilab.rl.objective import RateGuard, WeightedSequence, learning_rate
from rft_ilab.store import append_jsonl


def warm_start(
    engine: Engine,
    lessons: Sequence[Lesson],
    settings: TrainSettings,
    log: Path,
    advance: Callable[[dict[str, Any]], None] = lambda row: None,
) -> int:
    """Train on verified answers; returns the number of optimiser steps.

    Token-mean cross-entropy of the completions, each step one trie. A batch whose gradient is no number is skipped and
    the rate halved; raises TrainingError after three in a row.
    """
    loaded = engine.loaded
    batches = plan_batches(lessons, settings)
    guard = RateGuard()
    for step, batch in enumerate(batches):
        started = time.monotonic()
        rate = guard.factor * learning_rate(step, len(batches), settings.sft_learning_rate, settings.warmup_steps)
        stats = engine.accumulate(
            [
                WeightedSequence(
                    tuple(loaded.encode_prompt(lesson.prompt)),
                    tuple(loaded.encode_completion(lesson.completion)),
                    weight=1.0,
                )
                for lesson in batch
            ]
        )
        norm = engine.step(rate)
        done = guard.after(norm)
        row: dict[str, Any] = {
            "stage": "sft",
            "step": step + 1,
            "steps": len(batches),
            "learning_rate": rate,
            "tokens": stats.tokens,
            "nodes": stats.nodes,
            "seconds": round(time.monotonic() - started, 3),
        }
        row |= {"loss": round(stats.loss, 5), "grad_norm": round(norm, 4)} if done else {"skipped": True}
        append_jsonl(log, [row])
        advance(row)
    return len(batches)
