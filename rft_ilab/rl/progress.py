"""What training carries from step to step besides weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rft_ilab.rl.guard import UpdateGuard
from rft_ilab.rl.stopping import EntropyGuard, StopRule


@dataclass(slots=True)
class Progress:
    """JSON-serialisable, and with nothing beside it in memory: a resumed run must go on as if it had never stopped.

    ``warm`` counts batches of the warm start; ``begun`` says that it, its validation and the signal check are over;
    ``step`` counts GRPO steps; ``ended`` says why there will be no more of them. ``ahead`` is the batch of the next
    step, if it has been sampled already (:func:`rft_ilab.rl.groups.as_rows`).
    """

    step: int = 0
    pass_rate: dict[str, float] = field(default_factory=dict)
    graded: int = 0
    errors: int = 0
    first_error: str = ""
    warm: int = 0
    begun: bool = False
    ended: str = ""
    ahead: list[dict[str, Any]] = field(default_factory=list)
    guard: UpdateGuard = field(default_factory=UpdateGuard)
    entropy_guard: EntropyGuard = field(default_factory=EntropyGuard)
    stop: StopRule = field(default_factory=StopRule)

    def as_dict(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in self.__slots__}
        rules = {"entropy_guard": asdict(self.entropy_guard), "stop": asdict(self.stop)}
        return own | rules | {"guard": self.guard.as_dict()}

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Progress:
        rules = {"entropy_guard": EntropyGuard(**facts["entropy_guard"]), "stop": StopRule(**facts["stop"])}
        return cls(**{**facts, **rules, "guard": UpdateGuard(**facts["guard"])})

    @property
    def name(self) -> str:
        """Of its checkpoint; later ones sort later."""
        return f"step-{self.step:05d}" if self.begun else f"sft-{self.warm:05d}"

    def covers(self, row: Mapping[str, Any]) -> bool:
        """Was this row of ``steps.jsonl`` or ``rollouts.jsonl`` written before this moment?"""
        done = self.warm if row.get("stage") == "sft" else self.step
        return bool(row["step"] <= done)

    def __str__(self) -> str:
        return f"GRPO step {self.step}" if self.begun else f"batch {self.warm} of the warm start"
