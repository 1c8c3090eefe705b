"""What the gate reads (results of two models on the same tasks) and what it writes (the verdict's JSON)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict

from rft_ilab.regress.anytime import Stage
from rft_ilab.types import Outcome, Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One graded greedy completion. ``score`` in [0, 1] is what the gate compares (1 or 0 for right or
    wrong); None means that the grader failed. ``text`` is the completion, ``answer`` what the grader extracted
    from it (None: nothing), ``reason`` the grader's."""

    score: float | None
    text: str = ""
    reason: str = ""
    answer: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """What one model did on one task. ``group`` is the template or seed that related tasks share;
    ``cls`` is the class of the right answer, None if the skill has no classes; ``prompt`` is the last
    user turn; ``sampled`` are the scores of the random draws, None where the grader failed."""

    task_id: str
    group: str
    cls: str | None
    reference: str
    prompt: str
    greedy: Answer
    sampled: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetInput:
    """A skill that should have become better. ``before`` has the base model's results by prompt label
    (``zero-shot``, ``8 demonstrations``), ``after`` the candidate's with the application's prompt. ``note``: why
    results of the base model are missing, if some are. ``look``: which part of the suite these tasks are, if it was not
    measured at once."""

    skill: str
    before: Mapping[str, Sequence[TaskResult]]
    after: Sequence[TaskResult]
    note: str = ""
    look: Stage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedInput:
    """A skill that must not have become worse by ``margin`` (fraction of 1) or more. ``note`` and ``look`` as for a
    target."""

    skill: str
    tier: Tier
    margin: float
    prompt_label: str
    before: Sequence[TaskResult]
    after: Sequence[TaskResult]
    note: str = ""
    look: Stage | None = None


class Metric(TypedDict):
    """Numbers are None, and ``ci`` is [-1, 1], if nothing could be compared."""

    before: float | None
    after: float | None
    delta: float | None
    ci: list[float]


class TargetMetric(Metric):
    """``before`` is the better of the base prompts; ``p``: one-sided, of no gain over it."""

    before_prompt: str
    p: float


class SampledTargetMetric(TargetMetric):
    samples: int


class SampledMetric(Metric):
    samples: int


class PassAtK(TypedDict):
    """``pass_at``: one of ``k`` random answers is right; ``pass_hat``: all are (pass^k). Unbiased, paired by task."""

    k: int
    pass_at: Metric
    pass_hat: Metric


class Macro(TypedDict):
    before: float | None
    after: float | None
    min_class_n: int


ClassRow = TypedDict("ClassRow", {"class": str, "n": int, "before": float, "after": float})


class WorstGroup(TypedDict):
    """The group of tasks that lost most: its ``n`` tasks and their mean score under either model."""

    group: str
    n: int
    before: float
    after: float


class Margin(TypedDict):
    delta: float
    ci: list[float]


class TargetRow(TypedDict):
    """``majority``, ``majority_class``, ``macro`` and ``after_vs_majority`` are None without classes. ``n`` tasks of
    ``available`` were compared; ``looks`` says how it was decided when to stop, if they were drawn in batches.
    ``pass_at_k``: for k = 1, 2, 4 ... up to the samples a task, against the base prompt of ``sampled``."""

    skill: str
    n: int
    ungraded: int
    available: int
    looks: NotRequired[Literal["scheduled", "anytime"]]
    clusters: int
    outcome: Outcome
    reason: str
    greedy: TargetMetric
    sampled: SampledTargetMetric
    pass_at_k: list[PassAtK]
    macro: Macro | None
    classes: list[ClassRow]
    majority: float | None
    majority_class: str | None
    after_vs_majority: Margin | None
    worst_group: WorstGroup | None


class WatchedRow(Metric):
    """``p``: one-sided, of a loss of ``margin`` or more, after Holm's adjustment. ``n`` tasks of ``available`` were
    compared; ``looks`` as for a target."""

    skill: str
    tier: Tier
    n: int
    ungraded: int
    available: int
    looks: NotRequired[Literal["scheduled", "anytime"]]
    clusters: int
    margin: float
    prompt: str
    p: float
    better: int
    worse: int
    outcome: Outcome
    reason: str
    sampled: SampledMetric
    pass_at_k: list[PassAtK]
    classes: list[ClassRow]
    worst_group: WorstGroup | None


# ``before`` and ``after`` are the completions, ``*_answer`` what the grader extracted (None: nothing). ``command``
# shows the task with everything that was asked and answered.
Flip = TypedDict(
    "Flip",
    {
        "skill": str,
        "task_id": str,
        "group": str,
        "class": str | None,
        "direction": Literal["fixed", "broken"],
        "prompt": str,
        "reference": str,
        "before": str,
        "after": str,
        "before_answer": str | None,
        "after_answer": str | None,
        "before_score": float | None,
        "after_score": float | None,
        "before_reason": str,
        "after_reason": str,
        "command": str,
    },
)


class FlipCount(TypedDict):
    """How many tasks of a skill flipped, and how many of them ``flips`` lists."""

    skill: str
    broken: int
    fixed: int
    listed: int


class Verdict(TypedDict):
    """``gate/verdict.json``. ``mode``: all tasks at once, or batches with a look after each."""

    outcome: Outcome
    mode: Literal["fixed", "until-decided"]
    reasons: list[str]
    alpha: float
    baseline: Mapping[str, Any]
    candidate: Mapping[str, Any]
    targets: list[TargetRow]
    watched: list[WatchedRow]
    flips: list[Flip]
    flip_counts: list[FlipCount]
