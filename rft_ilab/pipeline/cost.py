"""What a run will cost, said before it starts: token positions to compute, at the speed measured here."""

from __future__ import annotations

from collections.abc import Sequence

from rft_ilab.config import Settings
from rft_ilab.rollouts import Environment
from rft_ilab.types import Task

# English text and labels, roughly; the estimate is for planning a coffee, not for billing.
CHARACTERS_PER_TOKEN = 4.0
# A backward pass through frozen weights costs as much again as two forward passes of the same positions.
TRAIN_FACTOR = 3.0
# Small batches while decoding run at about half the speed of the prefill that the speed is measured on.
DECODE_FACTOR = 2.0


def sampling_positions(tasks: Sequence[Task], samples: float, answer_tokens: float | None = None) -> float:
    """Positions to prefill and decode ``samples`` answers to each task; prefixes are shared.

    Answers are as long as the references, unless ``answer_tokens`` says how long.
    """
    prompt = sum(len(t.messages[-1].content) for t in tasks) / CHARACTERS_PER_TOKEN + 8 * len(tasks)
    answers = sum(len(t.reference) for t in tasks) / CHARACTERS_PER_TOKEN + 2 * len(tasks)
    if answer_tokens is not None:
        answers = answer_tokens * len(tasks)
    return prompt + DECODE_FACTOR * samples * answers


def sampling_tokens(environment: Environment, tasks: Sequence[Task], samples: int) -> tuple[float, float]:
    """Tokens that an endpoint reads and at most writes for ``samples`` calls a task, each with its whole prompt."""
    settings = environment.settings
    # Demonstrations differ little in length, and which ones are shown depends on the task.
    seeds = environment.skill.seeds
    shown = sum(len(seed.prompt) + len(seed.answer) for seed in seeds) / max(1, len(seeds)) * settings.demonstrations
    every = len(environment.skill.description) + shown
    prompts = sum(len(task.messages[-1].content) + every for task in tasks)
    return samples * prompts / CHARACTERS_PER_TOKEN, float(samples * len(tasks) * settings.max_tokens)


def training_positions(targets: Sequence[Environment], lessons: int, settings: Settings) -> float:
    """Positions of warm start and GRPO, backward passes included."""
    train = settings.train
    tasks = [task for e in targets for task in e.split("train")]
    one = sampling_positions(tasks, 1) / max(1, len(tasks))
    group = sampling_positions(tasks, train.group_size) / max(1, len(tasks))
    description = sum(len(e.skill.description) for e in targets) / CHARACTERS_PER_TOKEN
    warm = train.sft_epochs * lessons * one + train.sft_epochs * lessons / train.sft_batch * 2 * description
    step = train.prompts * 2 * group + description
    return TRAIN_FACTOR * warm + train.steps * (1 + TRAIN_FACTOR / 2) * step


def tokens(amount: float) -> str:
    """For people: ``about 12,000 tokens``, two digits of which are meant seriously."""
    if amount < 100:
        return f"about {amount:.0f} tokens"
    magnitude = 10 ** (len(str(int(amount))) - 2)
    return f"about {round(amount / magnitude) * magnitude:,} tokens"


def minutes(positions: float, per_second: float) -> str:
    """For people: ``under a minute`` or ``about 3 minutes``."""
    amount = positions / per_second / 60
    return "under a minute" if amount < 1 else f"about {amount:.0f} minute{'s' if round(amount) != 1 else ''}"
