"""What the warm start learns from, and in which batches. No torch here: the pipeline builds lessons."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rft_ilab.config import TrainSettings
from rft_ilab.types import Message

# A batch with replay pays for that skill's demonstrations, about as much as for its target lessons.
REPLAY_EVERY = 2
# With fewer turns of each watched skill, every batch has a replay.
FEWEST_TURNS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """A verified answer to learn: of a target, or of a watched skill (``replay``)."""

    skill: str
    prompt: tuple[Message, ...]
    completion: str
    replay: bool


def plan_batches(lessons: Sequence[Lesson], settings: TrainSettings) -> list[list[Lesson]]:
    """Batches of ``sft_batch`` target lessons, every second one (in a short warm start every one) with a few of *one*
    watched skill.

    Lessons of one skill share their demonstrations, and shared tokens cost once: a batch that mixed all
    skills would pay for the demonstrations of each. The skills take turns: where chance decided, one had none in a
    short warm start and was forgotten.
    """
    main = [lesson for lesson in lessons if not lesson.replay]
    by_skill: dict[str, list[Lesson]] = {}
    for lesson in lessons:
        if lesson.replay and settings.sft_replay:
            by_skill.setdefault(lesson.skill, []).append(lesson)
    total = settings.sft_epochs * -(-len(main) // settings.sft_batch)
    every = REPLAY_EVERY if total // REPLAY_EVERY >= FEWEST_TURNS * len(by_skill) else 1
    turns = _turns(by_skill, settings.sft_replay, random.Random(f"replay/{settings.seed}"))
    batches: list[list[Lesson]] = []
    for epoch in range(settings.sft_epochs):
        order = random.Random(f"sft/{settings.seed}/{epoch}").sample(main, len(main))
        for i in range(0, len(order), settings.sft_batch):
            replay = next(turns) if by_skill and len(batches) % every == every - 1 else []
            batches.append(order[i : i + settings.sft_batch] + replay)
    return batches


def _turns(by_skill: Mapping[str, Sequence[Lesson]], size: int, rng: random.Random) -> Iterator[list[Lesson]]:
    """Endless: ``size`` lessons of one skill, then of another, each skill once before any comes again."""
    pieces = {skill: _pieces(group, size, rng) for skill, group in sorted(by_skill.items())}
    while pieces:
        for skill in rng.sample(list(pieces), len(pieces)):
            yield next(pieces[skill])


def _pieces(group: Sequence[Lesson], size: int, rng: random.Random) -> Iterator[list[Lesson]]:
    """Endless: all of the group in pieces, shuffled anew each time."""
    while True:
        shuffled = rng.sample(group, len(group))
        yield from (shuffled[i : i + size] for i in range(0, len(shuffled), size))
