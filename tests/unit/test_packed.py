"""Products laid out beforehand: the same numbers, also after the weight has changed, and the gradient of x."""

from __future__ import annotations

import pytest
import torch

from rft_ilab.policy.local.packed import PackedLinear, Products, pack

DTYPES = (torch.float32, torch.bfloat16, torch.float64)
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float64: 1e-12}


def close(left: torch.Tensor, right: torch.Tensor) -> bool:
    return torch.allclose(left, right, rtol=TOLERANCE[left.dtype], atol=TOLERANCE[left.dtype])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(0, 24), (1, 24), (5, 24), (2, 3, 24)], ids=str)
def test_both_ways_they_are_the_plain_products(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    weight, bias = torch.randn(40, 24, dtype=dtype), torch.randn(40, dtype=dtype)
    products, x, grad = Products(weight), torch.randn(shape, dtype=dtype), torch.randn(*shape[:-1], 40, dtype=dtype)
    assert close(products.straight(x), x @ weight.t())
    assert close(products.straight(x, bias), x @ weight.t() + bias)
    assert close(products.turned(grad), grad @ weight)
    assert close(products.turned_once(grad), grad @ weight)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_changed_weight_is_the_one_that_counts(dtype: torch.dtype) -> None:
    weight = torch.nn.Parameter(torch.randn(8, 16, dtype=dtype), requires_grad=False)
    products, x, grad = Products(weight), torch.randn(3, 16, dtype=dtype), torch.randn(3, 8, dtype=dtype)
    before = products.straight(x), products.turned(grad)
    weight.mul_(2.0)
    assert close(products.straight(x), 2 * before[0])
    assert close(products.turned(grad), 2 * before[1])
    weight.data = torch.ones(8, 16, dtype=dtype)
    assert close(products.straight(x), x.sum(dim=-1, keepdim=True).expand(-1, 8))
    assert close(products.turned(grad), grad.sum(dim=-1, keepdim=True).expand(-1, 16))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_packed_model_keeps_its_names_its_ties_and_the_gradient_of_its_input(dtype: torch.dtype) -> None:
    embedding, head = torch.nn.Embedding(30, 16, dtype=dtype), torch.nn.Linear(16, 30, bias=False, dtype=dtype)
    head.weight = embedding.weight
    model = torch.nn.ModuleDict({"embedding": embedding, "inner": torch.nn.Linear(16, 16, dtype=dtype), "head": head})
    model.requires_grad_(False)
    names = list(model.state_dict())
    x = torch.randn(4, 16, dtype=dtype, requires_grad=True)
    plain = head(model["inner"](x))
    (wanted,) = torch.autograd.grad(plain.pow(2).sum(), x)
    pack(model)
    assert isinstance(head, PackedLinear) and head.weight is embedding.weight and list(model.state_dict()) == names
    packed = model["head"](model["inner"](x))
    (found,) = torch.autograd.grad(packed.pow(2).sum(), x)
    assert close(packed, plain)
    assert torch.allclose(found, wanted, rtol=5 * TOLERANCE[dtype], atol=20 * TOLERANCE[dtype])
    with torch.inference_mode():
        assert close(model["head"](model["inner"](x)), plain.detach())
