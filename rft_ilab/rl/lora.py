"""LoRA (arXiv 2106.09685) as one matrix product: a linear layer that runs with base + s B A merged.

Forward and the gradient to the inputs use the merged weight, so trainer and sampler have the same weights to
the last bit, and what is trained is what is saved, rounding included. The gradients of A and B need two
products with ``r`` columns each. Merging costs a pass over the weights after every update.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from rft_ilab.policy.local.packed import Products

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def merged(
    base: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scaling: float, out: torch.Tensor | None = None
) -> torch.Tensor:
    """base (out, in) + ``scaling`` x B (out, r) A (r, in): A and B rounded to base's dtype, the sum rounded once."""
    return torch.addmm(base, b.to(base.dtype), a.to(base.dtype), alpha=scaling, out=out)


class LoraLinear(torch.nn.Module):
    """``weight`` (out, in) is what runs, base + ``scaling`` x B A in its dtype. A (r, in), B (out, r): float32."""

    def __init__(self, base: torch.nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.in_features, self.out_features = base.in_features, base.out_features
        self.scaling = alpha / rank
        self.bias = base.bias
        self.base = base.weight.detach()
        self.weight = torch.nn.Parameter(self.base.clone(), requires_grad=False)
        self._products = Products(self.weight)
        like = {"dtype": torch.float32, "device": self.base.device}
        self.lora_A = torch.nn.Parameter(torch.empty(rank, base.in_features, **like))
        self.lora_B = torch.nn.Parameter(torch.zeros(base.out_features, rank, **like))
        torch.nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self._low = (self.lora_A.detach(), self.lora_B.detach())

    @torch.no_grad()
    def merge(self, scale: float = 1.0) -> None:
        """``weight`` = base + ``scaling`` x (``scale`` x B) A, rounded once.

        ``scale`` goes into B, as in the adapter that is saved: merging that file gives the same bits.
        """
        dtype = self.base.dtype
        self._low = (self.lora_A.detach().to(dtype), self.lora_B.detach().to(dtype))
        if scale == 0.0:
            self.weight.copy_(self.base)
        else:
            merged(self.base, self.lora_A.detach(), self.lora_B.detach() * scale, self.scaling, out=self.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.is_grad_enabled():
            return self._products.straight(x, self.bias)
        out: torch.Tensor = _Merged.apply(  # type: ignore[no-untyped-call]
            x, self.lora_A, self.lora_B, self._products, self.bias, *self._low, self.scaling
        )
        return out


class _Merged(torch.autograd.Function):
    """x W^T + b with W = base + s B A. dA = s (g B)^T x, dB = s g^T (x A^T), dx = g W, g the output's gradient."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
        products: Products,
        bias: torch.Tensor | None,
        low_a: torch.Tensor,
        low_b: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        ctx.save_for_backward(x, low_a, low_b)
        ctx.products, ctx.scaling = products, scaling
        out = products.straight(x, bias)
        if x.dtype is torch.float32:
            # What this pass keeps for the way back is the most that there ever is in memory, and after the step the
            # weights have changed. 0.4 GB at 135M parameters, for 0.16 s if the step has another piece.
            products.forget()
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        x, a, b = ctx.saved_tensors
        flat_x, flat_grad = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
        d_a = (flat_grad @ b).t() @ flat_x
        d_b = flat_grad.t() @ (flat_x @ a.t())
        d_x = None
        if ctx.needs_input_grad[0]:
            # These weights change with every update. Laid out for the way back they save 13 % of its products in
            # float32, 4 % in bf16, and laying out costs more; to keep them so for the other pieces of a step would take
            # the memory of the weights a third time.
            d_x = ctx.products.turned_once(grad)
        return d_x, d_a.float() * ctx.scaling, d_b.float() * ctx.scaling, None, None, None, None, None


def add_lora(model: torch.nn.Module, rank: int, alpha: float) -> dict[str, LoraLinear]:
    """Replace the linear layers named in ``TARGETS`` in place; returns them by module name."""
    named = [(n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n.split(".")[-1] in TARGETS]
    layers = {}
    for name, module in named:
        layer = LoraLinear(module, rank, alpha)
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, layer)
        layers[name] = layer
    return layers


@contextmanager
def without_lora(layers: dict[str, LoraLinear]) -> Iterator[None]:
    """Within, the layers run with their base weights: the reference policy."""
    merged = {name: layer.weight.data for name, layer in layers.items()}
    try:
        for layer in layers.values():
            layer.weight.data = layer.base
        yield
    finally:
        for name, layer in layers.items():
            layer.weight.data = merged[name]
