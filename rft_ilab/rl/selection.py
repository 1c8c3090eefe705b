"""Which weights leave the stage: the best validation score whose watched skills hold.

Candidates are the base, the warm start and checkpoints of GRPO. The best on the target's validation
split is checked on the watched skills' validation tasks; if one lost more than it may, the adapter is
scaled down, then the next best candidate is tried. The base is the last candidate, so a run never
ends worse than it began.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rft_ilab.rl.checkpoint import load_adapter
from rft_ilab.rl.engine import Engine
from rft_ilab.types import Policy

# Candidates beyond these few are not worth the validation they cost.
MAX_TRIED = 3
# A checkpoint that scores this much less than the best is no rival of it, however little it forgets. Two standard
# errors of 160 validation tasks at 90 %.
CLOSE = 0.05


@dataclass(slots=True)
class Candidate:
    """A checkpoint with its validation figures; ``file`` is None for the untouched base."""

    name: str
    file: str | None
    score: float
    val: float
    macro: float
    scale: float = 1.0
    watched: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "file": self.file,
            "scale": self.scale,
            "score": round(self.score, 4),
            "val": round(self.val, 4),
            "macro": round(self.macro, 4),
            "watched": {k: round(v, 4) for k, v in self.watched.items()},
        }


def select(
    engine: Engine,
    candidates: Sequence[Candidate],
    directory: Path,
    score_target: Callable[[Policy], tuple[float, float, float]],
    score_watched: Callable[[Policy], dict[str, float]],
    base_watched: dict[str, float],
    allowed_loss: dict[str, float],
) -> tuple[Candidate, list[Candidate]]:
    """Pick a candidate and leave the engine's sampler with its (scaled) weights.

    ``score_target`` returns (score, mean, macro) on validation, ``score_watched`` the accuracy of every
    watched skill; ``allowed_loss`` is how much each may lose. Returns the choice and all that was tried.

    The gate does not ask whether a loss is small but whether it can be ruled out, so the first that loses nothing
    is taken: the best checkpoint, those within ``CLOSE`` of it in order of score, then the best at three quarters.
    If each loses something, the first within ``allowed_loss``, half the adapter included; if there is none, the base.
    """
    tried: list[Candidate] = []
    ranked = sorted((c for c in candidates if c.file), key=lambda c: -c.score)[:MAX_TRIED]
    ranked = [c for c in ranked if c.score >= ranked[0].score - CLOSE]
    base = next(c for c in candidates if not c.file)

    def attempt(candidate: Candidate, scale: float) -> float:
        """The largest loss of a watched skill (infinite where the target is no better than the base's)."""
        engine.load_adapter(load_adapter(directory / str(candidate.file)))
        engine.refresh_sampler(scale)
        policy = engine.policy(f"candidate:{candidate.name}:{scale}")
        score, val, macro = (candidate.score, candidate.val, candidate.macro) if scale == 1.0 else score_target(policy)
        if score <= base.score:
            return float("inf")
        watched = score_watched(policy)
        tried.append(Candidate(candidate.name, candidate.file, score, val, macro, scale, watched))
        return max((base_watched[k] - watched[k] for k in base_watched), default=0.0)

    for candidate, scale in [*((c, 1.0) for c in ranked), *((c, 0.75) for c in ranked[:1])]:
        if attempt(candidate, scale) <= 0:
            return tried[-1], tried
    for candidate in ranked[:1]:
        attempt(candidate, 0.5)
    for scaled in tried:
        if all(base_watched[k] - scaled.watched[k] <= allowed_loss[k] for k in base_watched):
            engine.load_adapter(load_adapter(directory / str(scaled.file)))
            engine.refresh_sampler(scaled.scale)
            return scaled, tried
    zero = {n: torch.zeros_like(w) for n, w in engine.adapter().items()}
    engine.load_adapter(zero)
    engine.refresh_sampler()
    return base, tried
