"""What a report is made of: one frozen object per run, read once by :mod:`rft_ilab.report.load`.

What the gate said is in :mod:`rft_ilab.report.gate_data`.

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
from rft_ilab.report.gate_data import GateResult, Ungraded
from rft_ilab.store import name_of_run


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
