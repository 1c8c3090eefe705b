"""Sampling by growing a trie: one forward pass a step over the distinct unfinished prefixes.

Kept from ordinary batched decoding: nothing but the result's distribution. Prompts are prefilled once
with their common prefixes shared; rows that have said the same so far are one entry; finished rows
leave (on a GPU neither, see seats.py). Each row draws from its own counter-seeded stream by inverse
CDF, so what a (task, index, seed) says does not depend on who else is in the batch (up to
floating-point ties).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from rft_ilab.policy.local import seats
from rft_ilab.policy.local.attention import TriePlan, hidden_states
from rft_ilab.policy.local.lanes import Lanes
from rft_ilab.policy.local.seats import Seats
from rft_ilab.policy.local.trie import build_trie
from rft_ilab.policy.local.vocabulary import logits_of

# Tokens whose weights are summed together while drawing.
VOCABULARY_BLOCK = 256


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
def decode(model: Any, prompts: Sequence[Sequence[int]], rows: Sequence[Row], eos: frozenset[int]) -> None:
    """Complete ``rows`` in place; ``prompts`` are token ids, ``row.prompt`` indexes them.

    ``logprobs`` are of the untempered distribution (nats), as the policy gradient needs them.
    A finished row ends in an ``eos`` token, which is kept in ``token_ids``.
    """
    if not rows:
        return
    trie = build_trie(prompts)
    recorded: list[tuple[torch.Tensor, torch.Tensor]] = []
    hidden_ND = hidden_states(model, trie.token_ids_N, trie.depth_N, TriePlan(trie, model, recorded))
    longest = max(row.max_tokens for row in rows)
    # The frontier: entries, the prompt of each, and the rows that stand there.
    plan: Seats | Lanes
    if seats.suit(model):
        prompt_A, standing = [row.prompt for row in rows], [[row] for row in rows]
        plan = Seats(trie, recorded, prompt_A, longest)
    else:
        prompt_A = list(range(len(prompts)))
        standing = [[row for row in rows if row.prompt == p] for p in prompt_A]
        plan = Lanes(trie, recorded, len(rows), longest)
    leaves = np.array([trie.paths[p][-1] for p in prompt_A])
    depth_A, hidden_AD = trie.depth_N[leaves], hidden_ND[leaves]
    del recorded, hidden_ND
    streams = {id(row): random.Random(row.key) for row in rows if row.temperature > 0}
    while True:
        grown: dict[tuple[int, int], list[Row]] = {}
        kept = [a for a, here in enumerate(standing) if here]
        if not kept:
            return
        for a, token, row in _draw(logits_of(model, hidden_AD[kept]), [standing[a] for a in kept], streams):
            row.finished = token in eos
            if not row.finished and len(row.token_ids) < row.max_tokens:
                grown.setdefault((kept[a], token), []).append(row)
        if not grown:
            return
        parents = [a for a, _ in grown]
        depth_A = depth_A[parents] + 1
        standing = list(grown.values())
        tokens_A = np.array([token for _, token in grown])
        hidden_AD = plan.step(model, parents, sum(len(here) for here in standing), tokens_A, depth_A)


def _draw(
    logits_AV: torch.Tensor, standing: Sequence[Sequence[Row]], streams: dict[int, random.Random]
) -> list[tuple[int, int, Row]]:
    """Draw the next token of every row; appends it and its log-probability. Returns (entry, token, row)."""
    drawn: list[tuple[int, int, Row]] = []
    untempered = Weights.of(logits_AV)
    for temperature in sorted({row.temperature for here in standing for row in here}):
        picks = [(a, row) for a, here in enumerate(standing) for row in here if row.temperature == temperature]
        entries = [a for a, _ in picks]
        if temperature > 0:
            uniform = [streams[id(row)].random() for _, row in picks]
            weights = untempered if temperature == 1.0 else Weights.of(logits_AV / temperature)
            tokens = weights.inverse_cdf(entries, uniform)
        else:
            tokens = logits_AV.argmax(dim=-1)[entries].tolist()
        drawn += [(a, token, row) for (a, row), token in zip(picks, tokens, strict=True)]
    index_R = torch.tensor([a for a, _, _ in drawn])
    chosen_R = logits_AV[index_R, torch.tensor([token for _, token, _ in drawn])]
    logprobs = (chosen_R - untempered.log_total_A[index_R]).tolist()
    for (_, token, row), logprob in zip(drawn, logprobs, strict=True):
        row.token_ids.append(token)
        row.logprobs.append(logprob)
    return drawn


@dataclass(frozen=True, slots=True)
class Weights:
    """Softmax before it is normalised, in blocks of the vocabulary (the last one filled up with zeros).

    ``upto_AB`` is the weight of all blocks up to and with b, ``log_total_A`` the logarithm of the sum of exp(logits).
    """

    weight_ABW: torch.Tensor
    upto_AB: torch.Tensor
    log_total_A: torch.Tensor

    @classmethod
    def of(cls, logits_AV: torch.Tensor) -> Weights:
        peak_A = logits_AV.amax(dim=-1)
        weight_AV = (logits_AV - peak_A[:, None]).exp_()
        if fill := -logits_AV.shape[1] % VOCABULARY_BLOCK:
            weight_AV = torch.nn.functional.pad(weight_AV, (0, fill))
        weight_ABW = weight_AV.view(len(logits_AV), -1, VOCABULARY_BLOCK)
        upto_AB = weight_ABW.sum(dim=-1).double().cumsum(dim=-1)
        return cls(weight_ABW, upto_AB, peak_A + upto_AB[:, -1].log().float())

    def inverse_cdf(self, entries: Sequence[int], uniform: Sequence[float]) -> list[int]:
        """One token for each of ``uniform`` in [0, 1), from the distribution of its line ``entries[r]``.

        Only the block that is hit is looked into.
        """
        device, blocks = self.upto_AB.device, self.upto_AB.shape[1]
        line_R = torch.tensor(list(entries), device=device)
        needle_R = torch.tensor(list(uniform), dtype=torch.float64, device=device) * self.upto_AB[line_R, -1]
        block_R = torch.searchsorted(self.upto_AB[line_R], needle_R[:, None], right=True)[:, 0].clamp_(max=blocks - 1)
        before_R = torch.where(block_R > 0, self.upto_AB[line_R, (block_R - 1).clamp(min=0)], 0.0)
        weight_RW = self.weight_ABW[line_R, block_R]
        inside_R = torch.searchsorted(weight_RW.double().cumsum(dim=-1), (needle_R - before_R)[:, None], right=True)
        # Rounding may point past the last token of a block that has any weight: then the last such token is meant.
        last_R = VOCABULARY_BLOCK - 1 - (weight_RW > 0).flip(-1).to(torch.int8).argmax(dim=-1)
        tokens: list[int] = (block_R * VOCABULARY_BLOCK + torch.minimum(inside_R[:, 0], last_R)).tolist()
        return tokens
