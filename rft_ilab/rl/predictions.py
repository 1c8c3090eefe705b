"""From last hidden states to loss and gradient, a few rows of logits at a time.

The vocabulary is the widest thing in a small model: logits, probabilities and their gradients of one step would take
more memory than all layers together. So a chunk of rows goes through the head, gives log-probabilities, entropy, KL and
the gradient with respect to its hidden states, and is forgotten (the idea of Liger Kernel, arXiv 2410.10989).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from rft_ilab.policy.local.vocabulary import hidden_gradient, logits_of

# Rows of logits at a time: 25 MB in float32 at 49,152 tokens. Of 32, 64, 128 and 256 the fastest here.
ROWS = 128

# (log-probabilities of pairs (K,), which pairs (K,)) -> gradient of the loss by them (K,)
Slope = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Predictions:
    """Nats. ``logprob_K`` of each pair; ``entropy_R`` of each row; ``kl_R`` = KL(policy || reference) or None."""

    logprob_K: torch.Tensor
    entropy_R: torch.Tensor
    kl_R: torch.Tensor | None


@torch.no_grad()
def predict(
    model: Any,
    hidden_RD: torch.Tensor,
    row_K: torch.Tensor,
    token_K: torch.Tensor,
    slope: Slope | None = None,
    *,
    reference_RD: torch.Tensor | None = None,
    kl_weight_R: torch.Tensor | None = None,
    entropy_weight_R: torch.Tensor | None = None,
) -> tuple[Predictions, torch.Tensor | None]:
    """Log-probabilities of pairs (row, token) and, with ``slope``, the loss's gradient (R, D) by the hidden states.

    ``row_K`` is sorted. The loss may be any function of the pairs' log-probabilities with the derivative ``slope``,
    plus the sum over rows of ``kl_weight_R`` x KL(policy || reference) - ``entropy_weight_R`` x entropy, exact over the
    vocabulary.
    """
    rows = len(hidden_RD)
    logprob_K = torch.empty(len(row_K), device=hidden_RD.device)
    entropy_R = torch.empty(rows, device=hidden_RD.device)
    kl_R = None if reference_RD is None else torch.empty_like(entropy_R)
    grad_RD = None if slope is None else torch.empty_like(hidden_RD)
    for start in range(0, rows, ROWS):
        part = slice(start, min(rows, start + ROWS))
        first, last = torch.searchsorted(row_K, torch.tensor([part.start, part.stop], device=row_K.device)).tolist()
        pairs = slice(first, last)
        logprob_RV = torch.log_softmax(logits_of(model, hidden_RD[part]), dim=-1)
        prob_RV = logprob_RV.exp()
        entropy_R[part] = -torch.linalg.vecdot(prob_RV, logprob_RV)
        local, token = row_K[pairs] - part.start, token_K[pairs]
        logprob_K[pairs] = logprob_RV[local, token]
        # By the logits: d log p(token) = onehot - p, d H = -p (log p + H), d KL = p (log p - log q - KL).
        factor_RV: torch.Tensor | float = 0.0
        if slope is not None and entropy_weight_R is not None:
            factor_RV = entropy_weight_R[part, None] * (logprob_RV + entropy_R[part, None])
        if kl_R is not None and reference_RD is not None:
            # From here on logprob_RV holds log p - log q.
            logprob_RV -= torch.log_softmax(logits_of(model, reference_RD[part]), dim=-1)
            kl_R[part] = torch.linalg.vecdot(prob_RV, logprob_RV)
            if slope is not None and kl_weight_R is not None:
                factor_RV = factor_RV + kl_weight_R[part, None] * (logprob_RV - kl_R[part, None])
        if slope is None or grad_RD is None:
            continue
        slope_K = slope(logprob_K[pairs], torch.arange(first, last, device=row_K.device))
        total_R = torch.zeros(part.stop - part.start, device=row_K.device).index_add_(0, local, slope_K)
        prob_RV *= factor_RV - total_R[:, None]
        prob_RV.index_put_((local, token), slope_K, accumulate=True)
        grad_RD[part] = hidden_gradient(model, prob_RV)
    return Predictions(logprob_K, entropy_R, kl_R), grad_RD
