"""The arithmetic of GRPO, apart from any model.

Kept from the paper (arXiv 2402.03300): group-relative, std-normalised advantages; one update a batch.
Changed: token-mean loss over the batch (DAPO, arXiv 2503.14476; the paper's mean over sequences is a setting), no KL
term unless asked for, and truncated importance weights between sampler and trainer (arXiv 2508.03260 explains why the
two differ).
Errors are masked: an ungraded rollout is in no mean and gets no gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from rft_ilab.config import TrainSettings

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

    ``logprobs_T`` are the sampler's (nats), or None for supervised data (no importance weight). ``skill`` is where its
    KL is counted.
    """

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    weight: float
    logprobs_T: tuple[float, ...] | None = None
    skill: str = ""


def equal_sequences(sequences: Sequence[WeightedSequence]) -> list[WeightedSequence]:
    """Weights such that the mean over tokens counts every sequence alike, as the GRPO paper does.

    >>> [s.weight for s in equal_sequences([WeightedSequence((1,), (2, 3, 4), 1.0), WeightedSequence((1,), (2,), 1.0)])]
    [0.6666666666666666, 2.0]
    """
    mean = sum(len(s.completion_ids) for s in sequences) / max(1, len(sequences))
    return [replace(s, weight=s.weight * mean / len(s.completion_ids)) for s in sequences]


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up over ``warmup`` steps, then linear decay to a tenth; ``step`` counts from 0.

    >>> [round(learning_rate(s, 11, 1.0, 2), 2) for s in (0, 1, 2, 10)]
    [0.5, 1.0, 1.0, 0.1]
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    rest = max(1, steps - 1 - warmup)
    return peak * (1.0 - 0.9 * min(1.0, (step - warmup) / rest))


def slopes(
    logprob_K: torch.Tensor,
    sampled_K: torch.Tensor,
    gain_K: torch.Tensor,
    pain_K: torch.Tensor,
    settings: TrainSettings,
) -> torch.Tensor:
    """Derivative (K,) of the loss by each log-probability, before the mean over tokens.

    rho = p / p_sampler, capped at ``truncation``. What is raised (``gain_K`` >= 0) stops at rho > 1 + ``clip_high``,
    what is lowered (``pain_K`` <= 0) at rho < 1 - ``clip_low``: PPO's clip (arXiv 1707.06347) with DAPO's wider upper
    side. It binds only when a batch is used for several updates. Supervised pairs (``sampled_K`` NaN) have rho = 1.

    >>> import torch; from rft_ilab.config import TrainSettings
    >>> slopes(*torch.tensor([[0.0, -1.0], [0.0, -2.0], [1.0, 1.0], [-3.0, 0.0]]), TrainSettings()).tolist()
    [2.0, -0.0]
    """
    rho_K = torch.nan_to_num(logprob_K - sampled_K, nan=0.0).exp()
    raised_K = torch.where(rho_K > 1 + settings.clip_high, 0.0, gain_K)
    lowered_K = torch.where(rho_K < 1 - settings.clip_low, 0.0, pain_K)
    return -(raised_K + lowered_K) * rho_K.clamp(max=settings.truncation)
