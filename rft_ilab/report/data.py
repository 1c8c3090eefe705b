"""What a report is made of: one frozen object per run, read once by :mod:`rft_ilab.report.load`.

Accuracies, differences and intervals are fractions of 1 here; only the renderers turn them into
percent and points. ``None`` always means "the run did not record it", never zero.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rft_ilab.regress.flips import explain_command
from rft_ilab.store import name_of_run
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One optimiser step; ``values`` holds the finite numbers of its row, ``val`` its validation."""

    stage: str
    step: int
    values: Mapping[str, float] = field(hash=False)
    val: Mapping[str, float] = field(hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Validation accuracy of weights; ``scale`` is that of the adapter, ``score`` what selection maximises."""

    name: str
    scale: float | None
    score: float | None
    val: float | None
    macro: float | None
    watched: Mapping[str, float] = field(hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """``frontier`` is one checkpoint at several adapter scales, smallest first; empty in older runs.

    ``allowed_loss`` is how much each watched skill may lose on validation, as a fraction of 1.
    """

    candidates: tuple[Checkpoint, ...]
    chosen: str
    scale: float | None
    frontier: tuple[Checkpoint, ...]
    allowed_loss: Mapping[str, float] = field(hash=False)

    @property
    def point(self) -> Checkpoint | None:
        """The chosen point of the frontier."""
        return next((c for c in self.frontier if c.scale == self.scale), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A model on the target's validation tasks; ``weights`` is empty for the base with demonstrations."""

    name: str
    weights: str
    accuracy: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """From one model to a later one: net ``gain``, flipped answers, and KL(later || earlier) in nats per token."""

    before: str
    after: str
    compared: int
    gain: float | None
    fixed: int
    broken: int
    kl: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """What base, warm start and GRPO each did to one skill, on ``tasks`` validation tasks."""

    skill: str
    tasks: int
    states: tuple[State, ...]
    transitions: tuple[Transition, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """The signal report: pass@k before GRPO.

    Of ``numbers``, ``all_wrong``, ``mixed`` and ``all_right`` are shares of the tasks; ``per_class`` is pass@1.
    """

    skill: str
    after: str
    numbers: Mapping[str, float] = field(hash=False)
    per_class: Mapping[str, float] = field(hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerExample:
    skill: str
    disposition: str
    completion: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Answers by skill and disposition, tasks by skill, source and disposition, and a few answers to look at."""

    counts: Mapping[str, Mapping[str, int]] = field(hash=False)
    tasks: Mapping[str, Mapping[str, Mapping[str, int]]] = field(hash=False)
    examples: tuple[LedgerExample, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingAnswer:
    completion: str
    score: float | None
    advantage: float | None
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingGroup:
    """All answers that the policy gave to one prompt at one step."""

    step: int
    skill: str
    task_id: str
    prompt: str
    reference: str
    answers: tuple[TrainingAnswer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """Totals over all training rollouts, with a few groups and grader errors kept as examples."""

    total: int
    errors: int
    truncated: int
    groups: tuple[TrainingGroup, ...]
    error_examples: tuple[TrainingGroup, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    name: str
    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """Everything a report shows. ``gate`` is None only for a run loaded without its verdict."""

    directory: Path
    gate: GateResult | None
    steps: tuple[Step, ...]
    selection: Selection | None
    attribution: tuple[Attribution, ...]
    signals: tuple[Signal, ...]
    ledger: Ledger | None
    rollouts: Rollouts | None
    stages: tuple[StageCost, ...]
    peak_rss_mb: int | None
    manifest: Mapping[str, Any] = field(hash=False)
    damaged: tuple[str, ...] = ()
    ungraded: tuple[Ungraded, ...] = ()

    @property
    def control(self) -> str:
        """Which control arm this is; empty for a real run."""
        value = self.manifest.get("control")
        return value if isinstance(value, str) else ""

    def explain_command(self, task_id: str = "") -> str:
        """The command that shows a task, or lists the flips; not the verdict's, which anybody may have written."""
        return explain_command(task_id, name_of_run(self.directory))

    @property
    def gate_command(self) -> str:
        """The command line that judged last, else the one that started the run; empty if the run does not say."""
        stages = self.manifest.get("stages")
        facts = stages.get("regate") or stages.get("gate") if isinstance(stages, dict) else None
        for found in (facts, self.manifest):
            command = found.get("command") if isinstance(found, dict) else None
            if isinstance(command, list):
                return shlex.join(str(part) for part in command)
        return ""

    @property
    def wall_s(self) -> float:
        """Seconds of wall time, summed over the finished stages."""
        return sum(stage.wall_s for stage in self.stages)

    @property
    def cpu_s(self) -> float:
        """Seconds of CPU time (user + system, children included), summed over the finished stages."""
        return sum(stage.cpu_s for stage in self.stages)
