"""The vocabulary head: logits as the model itself would make them from last hidden states."""

from __future__ import annotations

from typing import Any

import torch

from rft_ilab.policy.local.packed import PackedLinear


def logit_scale(model: Any) -> float:
    """What logits are divided by (Granite's ``logits_scaling``; 1 elsewhere)."""
    return float(getattr(model.config, "logits_scaling", None) or 1.0)


def hidden_gradient(model: Any, grad_NV: torch.Tensor) -> torch.Tensor:
    """Gradient (N, D) by the last hidden states of a loss whose gradient by the logits is ``grad_NV``."""
    head, scale = model.get_output_embeddings(), logit_scale(model)
    grad_NV = grad_NV.to(head.weight.dtype)
    grad_ND = head.products.turned(grad_NV) if isinstance(head, PackedLinear) else grad_NV @ head.weight
    return grad_ND if scale == 1.0 else grad_ND / scale


def logits_of(model: Any, hidden_ND: torch.Tensor) -> torch.Tensor:
    """Logits (N, V) in float32."""
    logits_NV: torch.Tensor = model.get_output_embeddings()(hidden_ND).float()
    scale = logit_scale(model)
    return logits_NV if scale == 1.0 else logits_NV / scale
