"""The ledger of synthetic data: every candidate, a task or an answer, with exactly one disposition and its story.

=============  ========================================================================================
kept           a task: RL learns from it. An answer: supervised training does
wrong          the grader says so; of a generated task: it refuses the reference
error          the grader failed: neither right nor wrong
duplicate      nearly the same as one before it
contaminated   nearly a task of a val or test split, of any skill
truncated      cut off at ``max_tokens``
too_easy       a task: so often right that RL would hardly learn from it (:mod:`rft_ilab.difficulty`)
too_hard       a task: so seldom right
no_agreement   a teacher's task: too few independent answers agree
malformed      a teacher's text or a generator's row that makes no task
surplus        a right answer, but its class has enough
reference      no sample: the authored answer stands in where samples of its class are too few
=============  ========================================================================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rft_ilab.difficulty import Band
from rft_ilab.errors import RunError
from rft_ilab.types import Grade, Rollout, Sampling, Task, digest

Disposition = Literal[
    "kept", "wrong", "error", "duplicate", "contaminated", "truncated", "too_easy", "too_hard", "no_agreement",
    "malformed", "surplus", "reference",
]  # fmt: skip
Source = Literal["authored", "generated", "paraphrase", "question"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of ``ledger.jsonl``. ``seed_id`` is the task that this one was made of; ``policy_id`` wrote it.

    ``agreed`` of ``samples`` independent answers agreed with the reference. ``pass_rate`` is the share of sampled
    answers that passed, ``chance_mixed`` the chance that a group of rollouts would be mixed. ``duplicate_of`` and
    ``overlap`` say what a duplicate or contaminated task is like.
    """

    kind: Literal["task", "answer"]
    id: str
    skill: str
    source: Source
    disposition: Disposition
    reason: str
    task_id: str | None = None
    seed_id: str | None = None
    evidence: str | None = None
    index: int | None = None
    prompt: str | None = None
    reference: str | None = None
    completion: str | None = None
    score: float | None = None
    policy_id: str | None = None
    sampling: Mapping[str, Any] | None = None
    demonstrations: int | None = None
    grader_digest: str | None = None
    band: Band | None = None
    pass_rate: float | None = None
    chance_mixed: float | None = None
    agreed: int | None = None
    samples: int | None = None
    duplicate_of: str | None = None
    overlap: float | None = None

    def as_row(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def answer_id(rollout: Rollout, sampling: Sampling) -> str:
    """Identity of a sampled answer: who was asked what, how, and for the how-manieth time."""
    return digest(["answer", rollout.task_id, rollout.policy_id, sampling_row(sampling), rollout.index])


def task_id(task: Task | None, *story: object) -> str:
    """Identity of a candidate task; one that makes no task is known by its story (source, text, seed)."""
    return task.id if task else digest(["task", *map(str, story)])


def sampling_row(sampling: Sampling) -> dict[str, Any]:
    return {"temperature": sampling.temperature, "max_tokens": sampling.max_tokens, "seed": sampling.seed}


def said(grade: Grade) -> str:
    return grade.error or grade.reason


def counts(entries: Sequence[Entry], kind: str) -> Counter[str]:
    return Counter(entry.disposition for entry in entries if entry.kind == kind)


def check(entries: Sequence[Entry]) -> None:
    """Raises RunError if a candidate stands there twice: then the dispositions would not sum to the candidates."""
    seen = Counter((entry.kind, entry.id) for entry in entries)
    for (kind, name), times in seen.most_common(1):
        if times > 1:
            raise RunError(f"the {kind} {name[:12]} has {times} dispositions in the ledger")
