"""Verification of questions and answers that another pipeline wrote, where nobody knows the right answer.

The pipeline's answer stands as the proposed reference, and the row is screened as a teacher's question is
(:mod:`rft_ilab.synth.screening`): independent answers must agree with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rft_ilab.rollouts import Environment
from rft_ilab.store import Cache
from rft_ilab.synth.ledger import Disposition
from rft_ilab.synth.screening import Known, screen
from rft_ilab.synth.sources import proposed_question
from rft_ilab.types import Policy, Task


@dataclass(frozen=True, slots=True)
class Judged:
    """One generated row with its fate; ``agreed`` of ``samples`` independent answers matched.

    ``task`` is what the row makes, if it makes one.
    """

    row: dict[str, Any]
    disposition: Disposition
    agreed: int
    samples: int
    reason: str
    task: Task | None


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
    known: Known | None = None,
) -> list[Judged]:
    """Judge (question, answer, original row) triples: one :class:`Judged` each, in order.

    ``needed`` of ``samples`` sampled answers must pass the grader with the generated answer as reference. ``known``
    are held-out and earlier questions; without it, held-out questions of this skill alone are contamination.
    """
    proposals = [proposed_question(question, answer, i) for i, (question, answer, _) in enumerate(rows)]
    found = screen(
        environment, proposals, known or Known.of([environment], environment), policy,
        samples=samples, needed=needed, seed=seed, cache=cache, advance=advance,
    )  # fmt: skip
    return [
        Judged(row, one.disposition, one.agreed or 0, one.samples or 0, one.reason, one.task)
        for (_, _, row), one in zip(rows, found, strict=True)
    ]
