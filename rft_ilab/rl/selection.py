"""Which weights leave the stage: the best validation score whose watched skills hold.

Candidates are the base, the warm start and checkpoints of GRPO, each at full scale. Of the best checkpoint the
*frontier* is measured: its adapter at several scales down to 0, which is the base. Whatever was measured competes, the
base included, so a run never ends with a lower validation score than it began with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
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
# What loses nothing is preferred to the best if it keeps this share of the best's gain (or comes CLOSE to it).
KEPT_GAIN = 0.75
# 0.9 - 0.85 is more than 0.05 in floats.
ROUNDING = 1e-9
# Between full scale and none.
PARTIAL_SCALES = (0.75, 0.5, 0.25)


@dataclass(slots=True)
class Candidate:
    """A checkpoint with its validation figures; ``file`` is None for the untouched base, whose scale is 0."""

    name: str
    file: str | None
    score: float
    val: float
    macro: float
    scale: float = 1.0
    watched: dict[str, float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Names the weights, e.g. ``step-10@0.75``."""
        return f"{self.name}@{self.scale:g}"

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


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, the frontier of its checkpoint (scale 1 first, the base last), and all that was measured.

    If the base was chosen, the frontier is that of the best checkpoint. ``tried`` has no base.
    """

    chosen: Candidate
    frontier: Sequence[Candidate]
    tried: Sequence[Candidate]


def evaluations(candidates: Sequence[Candidate]) -> tuple[int, int]:
    """At most how often :func:`select` asks for (target, watched skills): what it costs. Half of it is usual."""
    rivals = len(_ranked(candidates))
    partial = len(PARTIAL_SCALES) * min(rivals, 2)
    return partial, partial + rivals


def select(
    engine: Engine,
    candidates: Sequence[Candidate],
    directory: Path,
    score_target: Callable[[Policy], tuple[float, float, float]],
    score_watched: Callable[[Policy], dict[str, float]],
    base_watched: dict[str, float],
    allowed_loss: dict[str, float],
    to_beat: float = 0.0,
) -> Choice:
    """Pick checkpoint and adapter scale, and leave the engine's sampler with these weights.

    ``score_target`` returns (score, mean, macro) on validation, ``score_watched`` the accuracy of every
    watched skill; ``allowed_loss`` is how much each may lose; ``to_beat`` is a score that the choice must exceed,
    as it must the base's (the base may do better with demonstrations than without).

    The best checkpoint and those within ``CLOSE`` of it are checked at full scale, in order of score, until one loses
    nothing. The frontier is measured of that one (of the best if each loses something), and :func:`best_of` chooses
    from everything measured; if that is a rival at full scale, the frontier of the rival is measured, too.
    """
    base = replace(next(c for c in candidates if not c.file), scale=0.0, watched=base_watched)
    ranked = _ranked(candidates)
    tried: list[Candidate] = []

    def measure(candidate: Candidate, scale: float) -> Candidate:
        use(engine, candidate, scale, directory)
        policy = engine.policy(replace(candidate, scale=scale).label)
        figures = (candidate.score, candidate.val, candidate.macro) if scale == 1.0 else score_target(policy)
        tried.append(Candidate(candidate.name, candidate.file, *figures, scale, score_watched(policy)))
        return tried[-1]

    leader = ranked[0]
    for candidate in ranked:
        if candidate.score > max(base.score, to_beat) and _largest_loss(measure(candidate, 1.0), base) <= 0:
            leader = candidate
            break
    frontiers: dict[str, list[Candidate]] = {}
    while leader.name not in frontiers:
        full = [t for t in tried if t.name == leader.name] or [measure(leader, 1.0)]
        frontiers[leader.name] = full + [measure(leader, scale) for scale in PARTIAL_SCALES]
        chosen = best_of(tried, base, allowed_loss, to_beat)
        leader = next((c for c in ranked if c.name == chosen.name), leader)
    use(engine, chosen, chosen.scale, directory)
    return Choice(chosen, [*frontiers[leader.name], base], tried)


def best_of(
    tried: Sequence[Candidate], base: Candidate, allowed_loss: dict[str, float], to_beat: float = 0.0
) -> Candidate:
    """The best that beats ``base`` and ``to_beat`` on the target, no watched skill losing more than ``allowed_loss``.

    The gate does not ask whether a loss is small but whether it can be ruled out. So what loses nothing at all goes
    first, unless it scores more than ``CLOSE`` less than the best *and* gives up more than a quarter of the best's
    gain. The base if nothing else will do. Of equals the one that loses less, then the smaller scale.
    """

    def order(c: Candidate) -> tuple[float, float, float]:
        return c.score, -_largest_loss(c, base), -c.scale

    fit = [
        c
        for c in tried
        if c.score > max(base.score, to_beat)
        and all(base.watched[k] - c.watched[k] <= allowed_loss[k] + ROUNDING for k in base.watched)
    ]
    if not fit:
        return base
    best = max(fit, key=order)
    enough = min(best.score - CLOSE, base.score + KEPT_GAIN * (best.score - base.score))
    harmless = [c for c in fit if _largest_loss(c, base) <= 0 and c.score >= enough - ROUNDING]
    return max(harmless or fit, key=order)


def _ranked(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The few checkpoints worth checking, best first."""
    ranked = sorted((c for c in candidates if c.file), key=lambda c: -c.score)[:MAX_TRIED]
    return [c for c in ranked if c.score >= ranked[0].score - CLOSE]


def _largest_loss(candidate: Candidate, base: Candidate) -> float:
    """Of a watched skill, against the base; 0 if none is watched."""
    return max((base.watched[k] - candidate.watched[k] for k in base.watched), default=0.0)


def use(engine: Engine, candidate: Candidate, scale: float, directory: Path) -> None:
    """Give the engine the candidate's adapter and its sampler the scaled weights."""
    if candidate.file:
        engine.load_adapter(load_adapter(directory / candidate.file))
    else:
        engine.load_adapter({n: torch.zeros_like(w) for n, w in engine.adapter().items()})
    engine.refresh_sampler(scale)
