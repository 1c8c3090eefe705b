"""Where tasks come from besides ``tasks.jsonl``: a generator, a teacher's paraphrases, a teacher's new questions.

Each yields proposals: rows as in ``tasks.jsonl`` with the story of their making. Nothing here says that they are any
good; :mod:`rft_ilab.synth.screening` does.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rft_ilab.grading.generator import checked_row, generated_rows, generator_source
from rft_ilab.rollouts import Environment, sample_groups
from rft_ilab.store import Cache
from rft_ilab.synth.ledger import Source
from rft_ilab.types import Message, Policy, Prompt, Rollout, Sampling, Skill, Task, digest

REWORD = (
    "Rewrite the message in other words. Keep its meaning, and every name, number and date in it. "
    "Do not answer it. Write only the rewritten message.\n\nMessage: {text}\nRewritten message:"
)
ASK = (
    "These are messages of one kind:\n\n{examples}\n\n"
    "Write one more message of this kind, about something else. Do not answer it. Write only the message."
)
EXAMPLES = 4
CHARACTERS_PER_TOKEN = 3  # English has four; a paraphrase may be longer than its original
LABEL = re.compile(r"^\s*(?:(?:re-?written |new )?(?:message|question|paraphrase))\s*:\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A task that somebody proposes. ``row`` is None where what they wrote makes none, for the ``problem`` named.

    ``text`` is what was written. A row without ``reference`` asks for one by agreement. ``truncated``: it was cut off.
    """

    source: Source
    text: str
    row: dict[str, Any] | None
    seed: Task | None = None
    policy_id: str | None = None
    sampling: Sampling | None = None
    index: int = 0
    problem: str = ""
    truncated: bool = False


def from_generator(skill: Skill, count: int, seed: int, cache: Cache) -> list[Proposal]:
    """``count`` tasks of ``generator.py``, right by construction. Raises SkillError if it fails.

    What was drawn is kept: the order of a set, say, may be another one in the next process.
    """
    key = digest(["generator", skill.name, generator_source(skill), count, seed])
    size = cache.get(key)
    if size is None:
        drawn = [checked_row(row) for row in generated_rows(skill, count, seed)]
        # Row by row: every look into the cache may have to read a neighbour whole, so none must be large.
        cache.put([*((f"{key}/{i}", row) for i, row in enumerate(drawn)), (key, len(drawn))])
    else:
        drawn = [(row, problem) for i in range(size) for row, problem in [cache.get(f"{key}/{i}") or (None, "lost")]]
    made = []
    for index, (row, problem) in enumerate(drawn):
        if row is None:
            made.append(Proposal(source="generated", text="", row=None, index=index, problem=problem))
        else:
            # What the generator says of its split and origin is not its to say.
            own = {name: value for name, value in row.items() if name not in ("id", "split", "origin")}
            own |= {"origin": "generated", "split": "train"}
            made.append(Proposal(source="generated", text=_question(row), row=own, index=index))
    return made


def paraphrases(
    policy: Policy,
    tasks: Sequence[Task],
    each: int,
    *,
    temperature: float,
    seed: int,
    cache: Cache,
    advance: Callable[[int], None] = lambda done: None,
) -> list[Proposal]:
    """``each`` rewordings of the last message of every task; the reference and all other fields are kept."""
    prompts = [_asking(task.id, REWORD.format(text=task.messages[-1].content)) for task in tasks]
    longest = max((len(task.messages[-1].content) for task in tasks), default=0)
    sampling = Sampling(temperature=temperature, max_tokens=16 + longest // CHARACTERS_PER_TOKEN, seed=seed)
    made = []
    for task, group in zip(tasks, sample_groups(policy, prompts, each, sampling, cache, advance), strict=True):
        for rollout in group:
            text, cut = _message(rollout, [task])
            turns = [*task.messages[:-1], Message("user", text)]
            kept = {k: v for k, v in task.item.items() if k not in ("id", "split", "origin", "group")}
            row = kept | {"messages": [m.as_dict() for m in turns], "group": task.group}
            made.append(replace(_proposed("paraphrase", rollout, row, sampling, task), truncated=cut))
    return made


def questions(
    environment: Environment,
    policy: Policy,
    count: int,
    *,
    temperature: float,
    seed: int,
    cache: Cache,
    advance: Callable[[int], None] = lambda done: None,
) -> list[Proposal]:
    """``count`` new questions after examples of training tasks, drawn anew for each. They come without a reference."""
    rng = random.Random(f"questions/{seed}/{environment.skill.name}")
    tasks = environment.split("train")
    prompts, seeds = [], []
    for index in range(count):
        shown = rng.sample(tasks, min(EXAMPLES, len(tasks)))
        examples = "\n".join(f"- {task.messages[-1].content}" for task in shown)
        key = digest(["question", environment.skill.name, seed, index])
        prompts.append(_asking(key, ASK.format(examples=examples)))
        seeds.append(shown[0])
    longest = max((len(task.messages[-1].content) for task in tasks), default=0)
    sampling = Sampling(temperature=temperature, max_tokens=16 + longest // CHARACTERS_PER_TOKEN, seed=seed)
    made = []
    groups = sample_groups(policy, prompts, 1, sampling, cache, advance)
    for index, (first, (rollout,)) in enumerate(zip(seeds, groups, strict=True)):
        text, cut = _message(rollout, tasks)
        row = {"messages": [{"role": "user", "content": text}]}
        made.append(replace(_proposed("question", rollout, row, sampling, first), index=index, truncated=cut))
    return made


def tidy(text: str) -> str:
    """A message out of what a model wrote around it: no label before it, no quotes around it.

    >>> tidy('Rewritten message: "Where is my parcel?"')
    'Where is my parcel?'
    """
    text = LABEL.sub("", text).strip()
    for left, right in (('"', '"'), ("“", "”"), ("'", "'")):
        if len(text) > 1 and text.startswith(left) and text.endswith(right) and text.count(left) <= 2:
            text = text[1:-1].strip()
    return text


def _message(rollout: Rollout, like: Sequence[Task]) -> tuple[str, bool]:
    """The message that was written, and whether it was cut off.

    Where messages are single lines, the first line is it: models go on talking, and what follows is no part of it.
    """
    text = tidy(rollout.completion)
    cut = rollout.stop == "length"
    if "\n" in text and not any("\n" in task.messages[-1].content.strip() for task in like):
        return tidy(text.split("\n")[0]), False
    return text, cut


def proposed_question(question: str, answer: str, index: int) -> Proposal:
    """A question that somebody else's pipeline wrote, with its answer, which stands for the reference."""
    row: dict[str, Any] = {"messages": [{"role": "user", "content": question}], "reference": answer}
    row |= {"origin": "synthetic", "split": "train"}
    problem = "" if question.strip() and answer.strip() else "the question or the answer is empty"
    return Proposal(source="question", text=question, row=None if problem else row, index=index, problem=problem)


def _proposed(source: Source, rollout: Rollout, row: dict[str, Any], sampling: Sampling, seed: Task) -> Proposal:
    text = row["messages"][-1]["content"]
    row = row | {"origin": "synthetic", "split": "train"}
    return Proposal(
        source=source, text=rollout.completion, row=row if text else None, seed=seed, policy_id=rollout.policy_id,
        sampling=sampling, index=rollout.index, problem="" if text else "the teacher wrote nothing",
    )  # fmt: skip


def _asking(key: str, text: str) -> Prompt:
    return Prompt(task_id=key, messages=(Message("user", text),))


def _question(row: Any) -> str:
    """What a generated row asks, as far as it can be told."""
    try:
        return str(row["messages"][-1]["content"])
    except (LookupError, TypeError):
        return str(row)[:200]
