"""Supervised warm start on verified answers: from never right to sometimes right.

Deliberately short. It teaches the answer format and every class a little; RL does the rest.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rft_ilab.config import TrainSettings
from rft_ilab.rl.engine import Engine
from rft_ilab.rl.objective import WeightedSequence, learning_rate
from rft_ilab.store import append_jsonl
from rft_ilab.types import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """A verified answer to learn: of a target, or of a watched skill (``replay``)."""

    skill: str
    prompt: tuple[Message, ...]
    completion: str
    replay: bool


def plan_batches(lessons: Sequence[Lesson], settings: TrainSettings) -> list[list[Lesson]]:
    """Batches of ``sft_batch`` target lessons, every second one with a few of *one* watched skill.

    Lessons of one skill share their demonstrations, and shared tokens cost once: a batch that mixed all
    skills would pay for the demonstrations of each.
    """
    main = [lesson for lesson in lessons if not lesson.replay]
    by_skill: dict[str, list[Lesson]] = {}
    for lesson in lessons:
        if lesson.replay:
            by_skill.setdefault(lesson.skill, []).append(lesson)
    batches: list[list[Lesson]] = []
    replayed = 0
    for epoch in range(settings.sft_epochs):
        rng = random.Random(f"sft/{settings.seed}/{epoch}")
        order = rng.sample(main, len(main))
        pieces = [
            shuffled[i : i + settings.sft_replay]
            for _, group in sorted(by_skill.items())
            for shuffled in [rng.sample(group, len(group))]
            for i in range(0, len(group), settings.sft_replay)
        ]
        rng.shuffle(pieces)
        for i in range(0, len(order), settings.sft_batch):
            replay: list[Lesson] = []
            if pieces and len(batches) % 2:
                replay = pieces[replayed % len(pieces)]
                replayed += 1
            batches.append(order[i : i + settings.sft_batch] + replay)
    return batches


def warm_start(
    engine: Engine,
    lessons: Sequence[Lesson],
    settings: TrainSettings,
    log: Path,
    advance: Callable[[dict[str, Any]], None] = lambda row: None,
) -> int:
    """Train on verified answers; returns the number of optimiser steps.

    Token-mean cross-entropy of the completions, each step one trie.
    """
    loaded = engine.loaded
    batches = plan_batches(lessons, settings)
    for step, batch in enumerate(batches):
        started = time.monotonic()
        rate = learning_rate(step, len(batches), settings.sft_learning_rate, settings.warmup_steps)
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
        row = {
            "stage": "sft",
            "step": step + 1,
            "steps": len(batches),
            "loss": round(stats.loss, 5),
            "learning_rate": rate,
            "grad_norm": round(norm, 4),
            "tokens": stats.tokens,
            "nodes": stats.nodes,
            "seconds": round(time.monotonic() - started, 3),
        }
        append_jsonl(log, [row])
        advance(row)
    return len(batches)
