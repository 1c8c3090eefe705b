"""What the gate said, as reports show it: read once by :mod:`rft_ilab.report.verdict`.

Accuracies, differences and intervals are fractions of 1 here; only the renderers turn them into percent and points.
``None`` always means "the run did not record it", never zero.
"""

from __future__ import annotations

from dataclasses import dataclass

from rft_ilab.types import Outcome, Tier

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One paired before/after comparison; ``ci`` and ``p`` (one-sided) belong to ``delta``.

    The numbers are None, and ``ci`` excludes nothing, if no task could be compared.
    """

    before: float | None
    after: float | None
    delta: float | None
    ci: Interval
    p: float | None = None
    before_prompt: str = ""
    samples: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PassAtK:
    """Of ``k`` sampled answers to a task, is one right (``at``), are all (``hat``)?"""

    k: int
    at: Change
    hat: Change


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassResult:
    name: str
    n: int
    before: float
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstGroup:
    """The group of ``n`` tasks that lost most of a suite, with its mean scores."""

    name: str
    n: int
    before: float
    after: float

    @property
    def telling(self) -> bool:
        """A group of one task is a flip, not a group."""
        return self.n > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Macro:
    """Mean of the per-class accuracies over classes of at least ``min_class_n`` tasks."""

    before: float
    after: float
    min_class_n: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetResult:
    skill: str
    n: int
    ungraded: int
    clusters: int | None
    outcome: Outcome
    reason: str
    greedy: Change
    sampled: Change | None
    macro: Macro | None
    classes: tuple[ClassResult, ...]
    majority: float | None
    majority_class: str | None
    over_majority: tuple[float, Interval] | None
    worst: WorstGroup | None = None
    passes: tuple[PassAtK, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedResult:
    """``margin`` is the largest tolerated loss; ``better``/``worse`` count tasks that flipped."""

    skill: str
    tier: Tier
    n: int
    ungraded: int
    clusters: int | None
    margin: float
    prompt: str
    greedy: Change
    sampled: Change | None
    better: int | None
    worse: int | None
    outcome: Outcome
    reason: str
    classes: tuple[ClassResult, ...] = ()
    worst: WorstGroup | None = None
    passes: tuple[PassAtK, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """A test task whose greedy answer changed sides; ``direction`` is ``fixed`` or ``broken``.

    ``before`` and ``after`` are the answers, ``*_answer`` what the grader extracted (None: nothing). Older verdicts
    lack this and the group; those of today are ``detailed``.
    """

    skill: str
    task_id: str
    direction: str
    prompt: str
    reference: str
    before: str
    after: str
    before_reason: str
    after_reason: str
    group: str = ""
    cls: str | None = None
    before_answer: str | None = None
    after_answer: str | None = None
    before_score: float | None = None
    after_score: float | None = None
    detailed: bool = False

    @property
    def loss(self) -> float:
        """How much of the task was lost; negative if it was fixed."""
        if self.before_score is None or self.after_score is None:
            return 1.0 if self.direction == "broken" else -1.0
        return self.before_score - self.after_score


@dataclass(frozen=True, slots=True, kw_only=True)
class Ungraded:
    """A greedy answer of one ``side`` (``before`` or ``after``) on which the grader failed; ``reason`` is how."""

    skill: str
    task_id: str
    side: str
    prompt: str
    reference: str
    answer: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FlipCount:
    """All flips of a skill; ``listed`` of them are in the verdict."""

    skill: str
    broken: int
    fixed: int
    listed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """``drawn``: how many tasks of how many were used, if they were drawn until each suite was decided.

    ``baseline`` and ``candidate`` name a model and shorten its id; ``*_name`` and ``*_id`` are whole.
    """

    outcome: Outcome
    reasons: tuple[str, ...]
    alpha: float
    baseline: str
    candidate: str
    targets: tuple[TargetResult, ...]
    watched: tuple[WatchedResult, ...]
    flips: tuple[Flip, ...]
    drawn: tuple[int, int] | None = None
    flip_counts: tuple[FlipCount, ...] = ()
    baseline_name: str = ""
    baseline_id: str = ""
    candidate_name: str = ""
    candidate_id: str = ""

    @property
    def fixed_and_broken(self) -> tuple[int, int]:
        """How many flips of either direction there are; also of those that the verdict does not list."""
        if self.flip_counts:
            return sum(c.fixed for c in self.flip_counts), sum(c.broken for c in self.flip_counts)
        fixed = sum(flip.direction == "fixed" for flip in self.flips)
        return fixed, len(self.flips) - fixed

    @property
    def unlisted(self) -> int:
        """How many flips the verdict leaves out."""
        return sum(c.fixed + c.broken - c.listed for c in self.flip_counts)
