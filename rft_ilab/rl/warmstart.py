"""Supervised warm start on verified answers: from never right to sometimes right.

It teaches the answer format and every class, and does most of the work on a small model. RL starts from its weights
and learns from what the policy itself says; ``ilab rft report`` shows what each of the two added.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rft_ilab.config import TrainSettings
from rft_ilab.rl.engine import Engine
from rft_ilab.rl.lessons import Lesson, plan_batches
from rft_ilab.rl.objective import WeightedSequence, learning_rate
from rft_ilab.rl.progress import Progress
from rft_ilab.store import append_jsonl


def warm_start(
    engine: Engine,
    lessons: Sequence[Lesson],
    settings: TrainSettings,
    progress: Progress,
    log: Path,
    advance: Callable[[dict[str, Any]], None] = lambda row: None,
) -> int:
    """Train on verified answers, from batch ``progress.warm`` on; returns the number of batches.

    Token-mean cross-entropy of the completions, each step one trie. ``log`` is the directory of ``steps.jsonl``;
    ``advance`` gets a batch's row when it is over. Raises TrainingError when updates keep going wrong (:mod:`.guard`).
    """
    loaded = engine.loaded
    batches = plan_batches(lessons, settings)
    for step in range(progress.warm, len(batches)):
        started = time.monotonic()
        rate = learning_rate(step, len(batches), settings.sft_learning_rate, settings.warmup_steps)
        rate *= progress.guard.factor
        stats = engine.accumulate(
            [
                WeightedSequence(
                    tuple(loaded.encode_prompt(lesson.prompt)),
                    tuple(loaded.encode_completion(lesson.completion)),
                    weight=1.0,
                )
                for lesson in batches[step]
            ]
        )
        done = progress.guard.update(engine, stats, rate, step=f"warm start step {step + 1}", log=log)
        row: dict[str, Any] = {
            "stage": "sft",
            "step": step + 1,
            "steps": len(batches),
            "learning_rate": rate,
            "tokens": stats.tokens,
            "nodes": stats.nodes,
            "seconds": round(time.monotonic() - started, 3),
        }
        row |= ({"loss": round(stats.loss, 5)} if math.isfinite(stats.loss) else {}) | done
        append_jsonl(log / "steps.jsonl", [row])
        progress.warm = step + 1
        advance(row)
    return len(batches)
