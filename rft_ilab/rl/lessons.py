"""What the warm start learns from, and in which batches. No torch here: the pipeline builds lessons."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from rft_ilab.config import TrainSettings
from rft_ilab.types import Message

# A batch with replay pays for that skill's demonstrations, about as much as for its target lessons.
REPLAY_EVERY = 2


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
        if lesson.replay and settings.sft_replay:
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
            if pieces and len(batches) % REPLAY_EVERY == 1:
                replay = pieces[replayed % len(pieces)]
                replayed += 1
            batches.append(order[i : i + settings.sft_batch] + replay)
    return batches
