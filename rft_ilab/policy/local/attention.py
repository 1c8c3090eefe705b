"""Attention over a pool of keys and values that trie nodes share, as a transformers attention function.

Transformers' own SDPA path copies keys and values once per query head; with grouped-query models it is
the larger part of a decode step's memory traffic. Here the query heads of a group are folded into the
query axis instead, so nothing is copied.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "rft_trie"
# Of a trie of 600 nodes, three blocks take 0.75 (bf16) to 0.7 (fp32) of the time of one, both ways; more gain little.
QUERY_BLOCK = 256


def trie_attention(
    module: torch.nn.Module,
    query: torch.Tensor,  # (1, H, Q, D)
    key: torch.Tensor,  # (1, H_kv, K, D)
    value: torch.Tensor,  # (1, H_kv, K, D)
    attention_mask: torch.Tensor,  # (1, 1, Q, K), additive
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Scaled dot-product attention; returns (1, Q, H, D), as transformers' functions do."""
    queries = query.shape[2]
    if queries <= QUERY_BLOCK or queries != key.shape[2]:
        return _attend(query, key, value, attention_mask, scaling).transpose(1, 2).contiguous(), None
    # A whole trie: no node sees one behind it, so a block of queries needs the keys up to its own end and no others.
    parts = []
    for start in range(0, queries, QUERY_BLOCK):
        end = min(queries, start + QUERY_BLOCK)
        mask = attention_mask[:, :, start:end, :end]
        parts.append(_attend(query[:, :, start:end], key[:, :, :end], value[:, :, :end], mask, scaling))
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scaling: float | None
) -> torch.Tensor:
    """Shape (1, H, Q, D)."""
    _, heads, queries, width = query.shape
    kv_heads = key.shape[1]
    fold = heads // kv_heads
    folded = query.reshape(1, kv_heads, fold * queries, width)
    allowed = mask if fold == 1 else mask.repeat(1, 1, fold, 1)
    out = torch.nn.functional.scaled_dot_product_attention(folded, key, value, attn_mask=allowed, scale=scaling)
    return out.reshape(1, heads, queries, width)


ALL_ATTENTION_FUNCTIONS.register(NAME, trie_attention)


class NodePool(Cache):  # type: ignore[misc]
    """Keys and values of all trie nodes so far, one row a node, in buffers that grow by doubling."""

    def __init__(self) -> None:
        super().__init__()
        self._buffers: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._sizes: list[int] = []

    def get_seq_length(self, layer_idx: int | None = 0) -> int:
        return self._sizes[layer_idx or 0] if self._sizes else 0

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer_idx: int, cache_kwargs: dict[str, Any] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append (1, H_kv, new, D) keys and values of one layer; returns all of them."""
        new = key.shape[2]
        if layer_idx == len(self._buffers):
            capacity = 2 * new
            self._buffers.append(tuple(x.new_empty(1, x.shape[1], capacity, x.shape[3]) for x in (key, value)))  # type: ignore[arg-type]
            self._sizes.append(0)
        size, (keys, values) = self._sizes[layer_idx], self._buffers[layer_idx]
        if size + new > keys.shape[2]:
            grown = [x.new_empty(1, x.shape[1], 2 * (size + new), x.shape[3]) for x in (keys, values)]
            for old, larger in zip((keys, values), grown, strict=True):
                larger[:, :, :size] = old[:, :, :size]
            keys, values = grown
            self._buffers[layer_idx] = (keys, values)
        keys[:, :, size : size + new] = key
        values[:, :, size : size + new] = value
        self._sizes[layer_idx] = size + new
        return keys[:, :, : size + new], values[:, :, : size + new]


def additive(allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Boolean (Q, K) to the additive (1, 1, Q, K) mask that the model passes through."""
    zero = torch.zeros((), dtype=dtype, device=allowed.device)
    return torch.where(allowed, zero, torch.finfo(dtype).min)[None, None]
