"""Sampling by growing a trie: one forward pass a step over the distinct unfinished prefixes.

Kept from ordinary batched decoding: nothing but the result's distribution. Prompts are prefilled once
with their common prefixes shared; rows that have said the same so far are one node; finished rows
leave. Each row draws from its own counter-seeded stream by inverse CDF, so what a (task, index, seed)
says does not depend on who else is in the batch (up to floating-point ties).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from rft_ilab.policy.local.attention import NodePool, additive
from rft_ilab.policy.local.trie import build_trie


@dataclass(slots=True)
class Row:
    """One completion in the making. ``temperature`` 0 is greedy; ``key`` seeds its random stream."""

    prompt: int
    key: str
    temperature: float
    max_tokens: int
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finished: bool = False


@torch.inference_mode()
def decode(model: torch.nn.Module, prompts: Sequence[Sequence[int]], rows: Sequence[Row], eos: frozenset[int]) -> None:
    """Complete ``rows`` in place; ``prompts`` are token ids, ``row.prompt`` indexes them.

    ``logprobs`` are of the untempered distribution (nats), as the policy gradient needs them.
    A finished row ends in an ``eos`` token, which is kept in ``token_ids``.
    """
    body, head = model.get_decoder(), model.get_output_embeddings()
    device, dtype = head.weight.device, head.weight.dtype
    trie = build_trie(prompts)
    pool = NodePool()
    hidden_ND = body(
        input_ids=torch.from_numpy(trie.token_ids_N)[None].to(device),
        position_ids=torch.from_numpy(trie.depth_N)[None].to(device),
        attention_mask=additive(trie.ancestor_mask().to(device), dtype),
        past_key_values=pool,
        use_cache=True,
    ).last_hidden_state[0]
    leaves = np.array([path[-1] for path in trie.paths])
    # One frontier entry a distinct prompt; entry -> the rows that stand there.
    allowed_AK = trie.ancestor_mask()[leaves].to(device)
    depth_A = trie.depth_N[leaves]
    hidden_AD = hidden_ND[leaves]
    standing: list[list[Row]] = [[] for _ in prompts]
    for row in rows:
        standing[row.prompt].append(row)
    streams = {id(row): random.Random(row.key) for row in rows if row.temperature > 0}
    while True:
        grown: dict[tuple[int, int], list[Row]] = {}
        kept = [a for a, here in enumerate(standing) if here]
        if not kept:
            return
        logits_AV = head(hidden_AD[kept]).float()
        for a, token, row in _draw(logits_AV, [standing[a] for a in kept], streams):
            row.finished = token in eos
            if not row.finished and len(row.token_ids) < row.max_tokens:
                grown.setdefault((kept[a], token), []).append(row)
        if not grown:
            return
        parents = [a for a, _ in grown]
        # A new node sees what its parent saw, and itself.
        allowed_AK = torch.cat([allowed_AK[parents], torch.eye(len(grown), dtype=torch.bool, device=device)], dim=1)
        depth_A = depth_A[parents] + 1
        hidden_AD = body(
            input_ids=torch.tensor([[token for _, token in grown]], device=device),
            position_ids=torch.from_numpy(depth_A)[None].to(device),
            attention_mask=additive(allowed_AK, dtype),
            past_key_values=pool,
            use_cache=True,
        ).last_hidden_state[0]
        standing = list(grown.values())


def _draw(
    logits_AV: torch.Tensor, standing: Sequence[Sequence[Row]], streams: dict[int, random.Random]
) -> list[tuple[int, int, Row]]:
    """Draw the next token of every row; appends it and its log-probability. Returns (entry, token, row)."""
    logprobs_AV = torch.log_softmax(logits_AV, dim=-1)
    best_A = logits_AV.argmax(dim=-1).tolist()
    entry: list[int] = []
    rows: list[Row] = []
    tokens: list[int] = []
    sampled: dict[float, list[int]] = {}
    for a, here in enumerate(standing):
        for row in here:
            if row.temperature > 0:
                sampled.setdefault(row.temperature, []).append(len(rows))
            entry.append(a)
            rows.append(row)
            tokens.append(best_A[a])
    for temperature, picks in sampled.items():
        entries = sorted({entry[i] for i in picks})
        where = {a: k for k, a in enumerate(entries)}
        cdf_AV = torch.softmax(logits_AV[entries] / temperature, dim=-1).cumsum(dim=-1)
        uniform_R = torch.tensor([streams[id(rows[i])].random() for i in picks], device=cdf_AV.device)
        lines = torch.tensor([where[entry[i]] for i in picks], device=cdf_AV.device)
        # Rounding can leave the last CDF value below 1; scaling by it keeps every draw inside the vocabulary.
        needle_R1 = (uniform_R * cdf_AV[lines, -1])[:, None]
        drawn = torch.searchsorted(cdf_AV[lines], needle_R1, right=True)[:, 0].clamp_(max=cdf_AV.shape[1] - 1)
        for i, token in zip(picks, drawn.tolist(), strict=True):
            tokens[i] = token
    chosen = logprobs_AV[torch.tensor(entry), torch.tensor(tokens)].tolist()
    for row, token, logprob in zip(rows, tokens, chosen, strict=True):
        row.token_ids.append(token)
        row.logprobs.append(logprob)
    return list(zip(entry, tokens, rows, strict=True))
