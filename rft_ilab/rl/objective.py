"""The arithmetic of GRPO, apart from any model.

Kept from the paper (arXiv 2402.03300): group-relative, std-normalised advantages; one update a batch.
Changed: token-mean loss over the batch (DAPO, arXiv 2503.14476), no KL term, and truncated importance
weights between the sampler's bf16 weights and the trainer (arXiv 2508.03260 explains why they differ).
Errors are masked: an ungraded rollout is in no mean and gets no gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Below this spread all rewards of a group are the same number, give or take rounding.
MIN_STD = 1e-6


def group_advantages(rewards_G: Sequence[float | None]) -> list[float | None]:
    """(reward - mean) / std within one group; None (an error) stays None.

    A group with fewer than two valid rewards, or with equal ones, carries no signal: zeros.

    >>> group_advantages([1.0, 0.0, None])
    [1.0, -1.0, None]
    >>> group_advantages([1.0, None, None])
    [0.0, None, None]
    """
    valid = [r for r in rewards_G if r is not None]
    mean = sum(valid) / len(valid) if valid else 0.0
    std = math.sqrt(sum((r - mean) ** 2 for r in valid) / len(valid)) if valid else 0.0
    if len(valid) < 2 or std < MIN_STD:
        return [None if r is None else 0.0 for r in rewards_G]
    return [None if r is None else (r - mean) / std for r in rewards_G]


def has_signal(advantages_G: Sequence[float | None]) -> bool:
    return any(advantages_G)


@dataclass(frozen=True, slots=True)
class WeightedSequence:
    """A prompt, a completion, and how much to raise the completion's log-probability.

    ``logprobs_T`` are the sampler's (nats), or None for supervised data (no importance weight).
    """

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    weight: float
    logprobs_T: tuple[float, ...] | None = None


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up over ``warmup`` steps, then linear decay to a tenth; ``step`` counts from 0.

    >>> [round(learning_rate(s, 11, 1.0, 2), 2) for s in (0, 1, 2, 10)]
    [0.5, 1.0, 1.0, 0.1]
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    rest = max(1, steps - 1 - warmup)
    return peak * (1.0 - 0.9 * min(1.0, (step - warmup) / rest))
