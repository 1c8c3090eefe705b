"""What the gate compares a candidate with: a model that is here, or the stored results of one that need not be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from rft_ilab.pipeline.gauge import Gauge, Measurement
from rft_ilab.pipeline.request import Workspace
from rft_ilab.pipeline.stored import OpenModel, StoredBaseline
from rft_ilab.regress.verdict import TaskResult
from rft_ilab.rollouts import Environment
from rft_ilab.store import Run
from rft_ilab.types import Policy


class Compared(Protocol):
    """The baseline's side of a gate. ``policy`` is None where no model is asked."""

    id: str
    name: str
    policy: Policy | None

    def better_prompt(self, environment: Environment) -> int: ...

    def measure(self, m: Measurement, advance: Any) -> list[TaskResult]: ...

    def explained(self, m: Measurement, before: list[TaskResult], after: Sequence[TaskResult]) -> list[TaskResult]: ...

    def note(self, skill: str) -> str: ...

    def facts(self) -> dict[str, Any]: ...


def compared_with(space: Workspace, run: Run, gauge: Gauge, open_model: OpenModel) -> Compared:
    """The stored baseline that the request names, else its model, else the one that the run started from."""
    if space.request.baseline:
        return StoredBaseline(space, run, gauge, open_model)
    directory = space.request.model or Path(run.manifest.get("model") or space.model_directory)
    return LiveBaseline(gauge, open_model(directory), directory)


class LiveBaseline:
    """A model in this process, measured through the cache."""

    def __init__(self, gauge: Gauge, policy: Policy, directory: Path) -> None:
        self.gauge = gauge
        self.policy: Policy | None = policy
        self.id, self.name = policy.id, str(directory)

    def better_prompt(self, environment: Environment) -> int:
        assert self.policy
        return self.gauge.better_prompt(self.policy, environment)

    def measure(self, m: Measurement, advance: Any) -> list[TaskResult]:
        assert self.policy
        return self.gauge.measure(self.policy, m, advance)

    def explained(self, m: Measurement, before: list[TaskResult], after: Sequence[TaskResult]) -> list[TaskResult]:
        return before

    def note(self, skill: str) -> str:
        return ""

    def facts(self) -> dict[str, Any]:
        return {"id": self.id, "name": self.name}


def number_formats(baseline_id: str, candidate_id: str) -> str:
    """What to say where the two models were run in different number formats; empty if in the same, or unknown."""
    then, now = (i.split(":")[2] if i.count(":") == 2 else "" for i in (baseline_id, candidate_id))
    if not then or not now or then == now:
        return ""
    return f"the baseline was measured in {then}, the candidate in {now}: near ties may fall otherwise"
