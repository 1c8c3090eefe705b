"""Attention over a token trie, as a transformers attention function.

The model's own code stays as it is; only the function between its projections is ours. What a position
may see is held by a *plan* that is passed through the forward call: :class:`TriePlan` for a whole trie
(training, prompts), :class:`rft_ilab.policy.local.lanes.Lanes` for one more token a row (decoding).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from rft_ilab.policy.local.trie import Trie

NAME = "rft_trie"
# Queries that are handled together. Small enough that few of their keys are foreign branches, large enough for a
# matrix product to be worth its call.
QUERY_BLOCK = 128
# On GPUs. Not cuDNN's, which plans anew for every number of nodes, and that is another in every pass.
GPU_KERNELS = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
# Weights of attention grow with the square of a sequence. They are kept for the way back where a node that sees all
# others has so many bytes of them a head: 1024 nodes in bf16 (at 135M parameters 0.3 GB), 512 in float32, where keeping
# those of 950 would add 0.3 GB to the peak. Of more they are computed again (some 5 % of training).
KEPT_ROW_BYTES = 2048


class Plan(Protocol):
    """Who sees whom. Shapes: query (1, H, Q, D), key and value (1, H_kv, Q, D); returns (1, Q, H, D)."""

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor: ...


def planned_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    plan: Plan,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls in every layer; ``attention_mask`` is a dummy that keeps it from making one."""
    layer: int = module.layer_idx  # type: ignore[assignment]
    return plan.attend(layer, query, key, value, query.shape[-1] ** -0.5 if scaling is None else scaling), None


ALL_ATTENTION_FUNCTIONS.register(NAME, planned_attention)


def hidden_states(model: Any, token_ids_N: np.ndarray, depth_N: np.ndarray, plan: Plan) -> torch.Tensor:
    """Last hidden states (N, D) of tokens at positions ``depth_N`` that see what ``plan`` says."""
    device = model.get_input_embeddings().weight.device
    return run_decoder(model, torch.from_numpy(token_ids_N).to(device), torch.from_numpy(depth_N).to(device), plan)


def run_decoder(model: Any, token_ids_N: torch.Tensor, depth_N: torch.Tensor, plan: Plan) -> torch.Tensor:
    """The same of tensors where the model is."""
    found: torch.Tensor = model.get_decoder()(
        input_ids=token_ids_N[None],
        position_ids=depth_N[None],
        attention_mask=torch.zeros(1, 1, 1, 1, device=token_ids_N.device),
        use_cache=False,
        plan=plan,
    ).last_hidden_state[0]
    return found


@dataclass(frozen=True, slots=True)
class Block:
    """Queries ``start:end`` and the nodes that any of them may see, as indices (None: all up to ``end``).

    ``mask_QK`` is additive, in the order of :func:`_fold`: the query heads of a group are neighbours.
    """

    start: int
    end: int
    keys: torch.Tensor | None
    mask_QK: torch.Tensor


class TriePlan:
    """Every node sees its ancestors and itself. ``record`` collects keys and values layer by layer."""

    def __init__(self, trie: Trie, model: Any, record: list[tuple[torch.Tensor, torch.Tensor]] | None = None) -> None:
        weight = model.get_input_embeddings().weight
        self._record = record
        self._whole: torch.Tensor | None = None
        self._blocks: list[Block] = []
        if weight.is_cuda:
            self._whole = _aligned(additive(trie.ancestor_mask().to(weight.device), weight.dtype))[None, None]
            return
        fold = model.config.num_attention_heads // model.config.num_key_value_heads
        for start in range(0, len(trie), QUERY_BLOCK):
            self._blocks.append(_block(trie, start, min(len(trie), start + QUERY_BLOCK), fold, weight.dtype))

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        if self._record is not None:
            self._record.append((key, value))
        if self._whole is not None:
            fold = query.shape[1] // key.shape[1]
            with sdpa_kernel(GPU_KERNELS):
                out: torch.Tensor = torch.nn.functional.scaled_dot_product_attention(
                    query,
                    key.repeat_interleave(fold, dim=1),
                    value.repeat_interleave(fold, dim=1),
                    attn_mask=self._whole,
                    scale=scaling,
                )
            return out.transpose(1, 2)
        folded: torch.Tensor = _BlockAttention.apply(  # type: ignore[no-untyped-call]
            _fold(query, key.shape[1]), key[0].contiguous(), value[0].contiguous(), self._blocks, scaling
        )
        return _unfold(folded)


def _block(trie: Trie, start: int, end: int, fold: int, dtype: torch.dtype) -> Block:
    # Nodes come depth-first, so whatever a later node of the block sees before the block, its first node sees too.
    path: list[int] = []
    node = int(trie.parent_N[start])
    while node >= 0:
        path.append(node)
        node = int(trie.parent_N[node])
    keys = np.concatenate([np.array(path[::-1], np.int64), np.arange(start, end)])
    queries = np.arange(start, end)
    allowed_QK = (keys[None, :] <= queries[:, None]) & (queries[:, None] < trie.end_N[keys][None, :])
    mask_QK = additive(torch.from_numpy(allowed_QK), dtype).repeat_interleave(fold, dim=0)
    return Block(start, end, None if len(path) == start else torch.from_numpy(keys), mask_QK)


def additive(allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Boolean to additive mask."""
    zero = torch.zeros((), dtype=dtype, device=allowed.device)
    return torch.where(allowed, zero, torch.finfo(dtype).min)


def _aligned(mask_NN: torch.Tensor) -> torch.Tensor:
    """The same in rows that begin at multiples of 16: the kernel would copy any others at every call."""
    nodes = len(mask_NN)
    return torch.nn.functional.pad(mask_NN, (0, -nodes % 16))[:, :nodes]


def _fold(query: torch.Tensor, kv_heads: int) -> torch.Tensor:
    """(1, H, Q, D) to (H_kv, Q, H / H_kv, D): nothing of grouped keys is copied, the queries share them."""
    _, heads, queries, width = query.shape
    return query.view(kv_heads, heads // kv_heads, queries, width).transpose(1, 2).contiguous()


def _unfold(folded: torch.Tensor) -> torch.Tensor:
    """(H_kv, Q, fold, D) to (1, Q, H, D)."""
    kv_heads, queries, fold, width = folded.shape
    return folded.transpose(0, 1).reshape(1, queries, kv_heads * fold, width)


class _BlockAttention(torch.autograd.Function):
    """Softmax attention block by block. query (H_kv, N, fold, D); key, value (H_kv, N, D).

    Scores are rounded to the model's dtype, as transformers' eager attention does; the softmax sums in float32.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, blocks: list[Block], scaling: float
    ) -> torch.Tensor:
        kv_heads, _, _, width = query.shape
        out = torch.empty_like(query)
        kept = []
        for block in blocks:
            part = slice(block.start, block.end)
            weights = _weights(block, query[:, part].reshape(kv_heads, -1, width), _of(block, key), scaling)
            out[:, part] = torch.bmm(weights, _of(block, value)).view(kv_heads, block.end - block.start, -1, width)
            if query.shape[1] * query.element_size() <= KEPT_ROW_BYTES:
                kept.append(weights)
        ctx.save_for_backward(query, key, value, *kept)
        ctx.blocks, ctx.scaling = blocks, scaling
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        query, key, value, *kept = ctx.saved_tensors
        kv_heads, _, _, width = query.shape
        d_query, d_key, d_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for i, block in enumerate(ctx.blocks):
            part = slice(block.start, block.end)
            rows, d_rows = (x[:, part].reshape(kv_heads, -1, width) for x in (query, grad))
            keys, values = _of(block, key), _of(block, value)
            weights = kept[i] if kept else _weights(block, rows, keys, ctx.scaling)
            _add(block, d_value, torch.bmm(weights.transpose(1, 2), d_rows))
            d_weights = torch.bmm(d_rows, values.transpose(1, 2))
            d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype)  # type: ignore[attr-defined]
            d_query[:, part] = torch.bmm(d_scores, keys).view(kv_heads, block.end - block.start, -1, width)
            _add(block, d_key, torch.bmm(d_scores.transpose(1, 2), rows))
        return d_query.mul_(ctx.scaling), d_key.mul_(ctx.scaling), d_value, None, None


def _weights(block: Block, rows: torch.Tensor, keys: torch.Tensor, scaling: float) -> torch.Tensor:
    mask = block.mask_QK.expand(len(keys), -1, -1)
    return torch.softmax(torch.baddbmm(mask, rows, keys.transpose(1, 2), alpha=scaling), dim=-1)


def _of(block: Block, x: torch.Tensor) -> torch.Tensor:
    return x[:, : block.end] if block.keys is None else x.index_select(1, block.keys)


def _add(block: Block, total: torch.Tensor, part: torch.Tensor) -> None:
    if block.keys is None:
        total[:, : block.end] += part
    else:
        total.index_add_(1, block.keys, part)
