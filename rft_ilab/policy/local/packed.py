"""Products with a weight that oneDNN has laid out beforehand.

A plain product copies the weight into the processor's layout every time, which costs most where few rows are
multiplied: of 8 rows and 576 x 1536 weights in bf16 the copy takes a third of the time, of one row half. A weight that
is used more often than it changes is laid out once, by the call that PyTorch's own compiler makes for frozen weights.
Where it is not at hand (GPUs, other processors) the product is the plain one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

DTYPES = (torch.bfloat16, torch.float32)


@dataclass(slots=True)
class LaidOut:
    """A weight at one moment (its place and version), laid out for x W^T and for g W as soon as that is asked for."""

    state: tuple[int, int]
    straight: torch.Tensor | None = None
    turned: torch.Tensor | None = None


class Products:
    """x W^T and g W for a weight W (out, in); follows W when it changes, in place or by another ``data``.

    Threads may share it as long as W stays as it is: at worst both lay it out.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        self._weight = weight
        self._latest: LaidOut | None = None

    def straight(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """x W^T + bias, (..., in) to (..., out). Not differentiable."""
        if (now := self._now(x)) is None:
            return torch.nn.functional.linear(x, self._weight, bias)
        if now.straight is None:
            now.straight = _laid_out(self._weight.detach())
        return _product(x, now.straight, bias)

    def turned(self, grad: torch.Tensor) -> torch.Tensor:
        """g W, (..., out) to (..., in): the gradient by x. Not differentiable."""
        if (now := self._now(grad)) is None:
            return grad @ self._weight
        if now.turned is None:
            now.turned = _laid_out(self._weight.detach().t().contiguous())
        return _product(grad, now.turned, None)

    def turned_once(self, grad: torch.Tensor) -> torch.Tensor:
        """The same, for weights that will have changed before it would pay to lay them out."""
        return grad @ self._weight

    def forget(self) -> None:
        """Let go of what is laid out."""
        self._latest = None

    def _now(self, x: torch.Tensor) -> LaidOut | None:
        """Of the weight as it is; None if it cannot be laid out for ``x``."""
        weight, now = self._weight, self._latest
        if not _available(weight.dtype) or weight.is_cuda or x.dtype != weight.dtype or weight.is_inference():
            return None
        state = (weight.data_ptr(), weight._version)
        if now is None or now.state != state:
            now = self._latest = LaidOut(state)
        return now


class PackedLinear(torch.nn.Linear):
    """A frozen linear layer over :class:`Products`; the gradient reaches x only."""

    products: Products

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.is_grad_enabled():
            return self.products.straight(x, self.bias)
        out: torch.Tensor = _Frozen.apply(x, self.products, self.bias)  # type: ignore[no-untyped-call]
        return out


class _Frozen(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: torch.Tensor, products: Products, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.products = products
        return products.straight(x, bias)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        return ctx.products.turned(grad), None, None


def pack(model: torch.nn.Module) -> None:
    """Make every linear layer of a frozen model a :class:`PackedLinear`, in place: same parameters, same names."""
    for module in model.modules():
        if type(module) is torch.nn.Linear:
            # Not a new module: weights may be tied, and whoever holds this one goes on holding the right one.
            module.__class__ = PackedLinear
            module.products = Products(module.weight)


@cache
def _available(dtype: torch.dtype) -> bool:
    if dtype not in DTYPES or not torch.backends.mkldnn.is_available():
        return False
    if dtype is torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    return hasattr(torch.ops.mkldnn, "_reorder_linear_weight") and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _laid_out(weight: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        laid: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
    return laid


def _product(x: torch.Tensor, laid_out: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, laid_out, bias, "none", [], "")
    return product
