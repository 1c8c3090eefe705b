"""Verification of answers that a teacher wrote to questions of its own, where nobody knows the right answer.

The teacher's answer stands as the proposed reference. Independent answers to the same question are
sampled, and the skill's own grader says whether they agree with it; a row is kept when enough do. That is
weaker evidence than an authored reference: such tasks are ``synthetic`` and never enter val or test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rft_ilab.rollouts import Environment, collect
from rft_ilab.skills.tasks import task_from_row
from rft_ilab.store import Cache
from rft_ilab.types import Policy, Sampling

Disposition = Literal["kept", "no_agreement", "error", "contaminated", "malformed"]


@dataclass(frozen=True, slots=True)
class Judged:
    """One generated row with its fate; ``agreed`` of ``samples`` independent answers matched."""

    row: dict[str, Any]
    disposition: Disposition
    agreed: int
    samples: int
    reason: str


def judge_generated(
    environment: Environment,
    rows: Sequence[tuple[str, str, dict[str, Any]]],
    policy: Policy,
    *,
    samples: int,
    needed: int,
    seed: int,
    cache: Cache,
    advance: Callable[[int], None] = lambda done: None,
) -> list[Judged]:
    """Judge (question, answer, original row) triples: one :class:`Judged` each, in order.

    ``needed`` of ``samples`` sampled answers must pass the grader with the generated answer as reference.
    A question that stands in val or test is contaminated and never kept.
    """
    held_out = {t.messages[-1].content.strip() for t in environment.tasks if t.split != "train"}
    sampling = Sampling(temperature=1.0, max_tokens=environment.settings.max_tokens, seed=seed)
    judged: list[Judged] = []
    for question, answer, row in rows:
        advance(1)
        if not question.strip() or not answer.strip():
            judged.append(Judged(row, "malformed", 0, 0, "the question or the answer is empty"))
            continue
        if question.strip() in held_out:
            judged.append(Judged(row, "contaminated", 0, 0, "the question stands in the val or test split"))
            continue
        written = {"messages": [{"role": "user", "content": question}], "reference": answer, "origin": "synthetic"}
        task = task_from_row(environment.skill, written)
        (group,) = collect(
            policy,
            environment.grader,
            environment.skill,
            [task],
            samples,
            sampling,
            demonstrations=environment.settings.demonstrations,
            cache=cache,
        )
        errors = [g.grade.error for g in group if g.grade.error is not None]
        agreed = sum(bool(g.grade.passed) for g in group)
        if errors:
            judged.append(Judged(row, "error", agreed, samples, errors[0]))
        elif agreed >= needed:
            judged.append(Judged(row, "kept", agreed, samples, f"{agreed} of {samples} independent answers agree"))
        else:
            judged.append(Judged(row, "no_agreement", agreed, samples, f"only {agreed} of {samples} answers agree"))
    return judged
