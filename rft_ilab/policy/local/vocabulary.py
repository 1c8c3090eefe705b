"""The vocabulary head: logits as the model itself would make them from last hidden states."""

from __future__ import annotations

from typing import Any

import torch


def logit_scale(model: Any) -> float:
    """What logits are divided by (Granite's ``logits_scaling``; 1 elsewhere)."""
    return float(getattr(model.config, "logits_scaling", None) or 1.0)


def logits_of(model: Any, hidden_ND: torch.Tensor) -> torch.Tensor:
    """Logits (N, V) in float32."""
    logits_NV: torch.Tensor = model.get_output_embeddings()(hidden_ND).float()
    scale = logit_scale(model)
    return logits_NV if scale == 1.0 else logits_NV / scale
