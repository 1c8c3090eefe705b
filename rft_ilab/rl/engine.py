"""Forward and backward over a token trie, LoRA weights, and the sampler that follows them.

All sequences of a step are packed so that each distinct prefix is computed once, and the vocabulary
head runs only where a completion token is predicted. Gradients equal those of the padded batch (tested).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from rft_ilab.config import TrainSettings
from rft_ilab.policy.local.attention import additive
from rft_ilab.policy.local.model import LoadedModel
from rft_ilab.policy.local.sampler import LocalPolicy
from rft_ilab.policy.local.trie import build_trie, shared_prefix
from rft_ilab.rl.objective import WeightedSequence

# Trie nodes in one forward-backward pass: bounds activation memory (about 1.3 MB a node at 135M parameters).
MICRO_BATCH_NODES = 1024
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class PassStats:
    """Token-weighted means over the completion tokens of a batch.

    ``loss`` is the objective's value; ``entropy`` in nats; ``importance_gap`` is
    mean |log p_trainer - log p_sampler|; ``tokens`` counts completion tokens, ``nodes`` trie nodes.
    """

    loss: float
    entropy: float
    importance_gap: float
    tokens: int
    nodes: int


class Engine:
    """A frozen base model with LoRA adapters to train, and a merged copy to sample from."""

    def __init__(self, loaded: LoadedModel, settings: TrainSettings) -> None:
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.loaded = loaded
        # The sampler has the same weights until they are trained; embeddings stay shared.
        memo = {id(p): p for p in [loaded.model.get_input_embeddings().weight]}
        self._sampler = copy.deepcopy(loaded.model, memo)
        config = LoraConfig(
            r=settings.lora_rank,
            lora_alpha=settings.lora_alpha,
            lora_dropout=0.0,
            target_modules=list(LORA_TARGETS),
            task_type="CAUSAL_LM",
        )
        self.peft: Any = get_peft_model(loaded.model, config)
        self._lora = [(n, m) for n, m in self.peft.get_base_model().named_modules() if hasattr(m, "lora_A")]
        self.parameters = [p for p in self.peft.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=0.0, betas=(0.9, 0.99), weight_decay=0.0)

    # -- sampling ---------------------------------------------------------------------------------

    @torch.no_grad()
    def refresh_sampler(self, scale: float = 1.0) -> None:
        """Sampler weights = base + ``scale`` x LoRA, rounded once to the sampler's dtype."""
        for name, module in self._lora:
            target = self._sampler.get_submodule(name).weight
            delta = module.lora_B["default"].weight @ module.lora_A["default"].weight
            target.copy_(module.base_layer.weight.float() + scale * module.scaling["default"] * delta.float())

    def policy(self, version: str) -> LocalPolicy:
        """The sampler as a policy; ``version`` must change with the weights, since caches rely on it."""
        return LocalPolicy(self.sampler, policy_id=version)

    @property
    def sampler(self) -> LoadedModel:
        """The merged copy as a loaded model. Its digest is the base's: true only at scale 0."""
        base = self.loaded
        return LoadedModel(self._sampler, base.tokenizer, base.eos, base.digest, base.directory)

    # -- training ---------------------------------------------------------------------------------

    def accumulate(self, sequences: Sequence[WeightedSequence]) -> PassStats:
        """Add the gradient of  -sum_s weight_s sum_t min(rho_st, C) log p(t) / (total tokens).

        rho is the (detached) importance weight of trainer over sampler, capped at C = ``truncation``.
        """
        total = sum(len(s.completion_ids) for s in sequences)
        loss = entropy = gap = 0.0
        nodes = 0
        for part in self._micro_batches(sequences):
            stats = self._forward_backward(part, total)
            loss, entropy, gap, nodes = loss + stats[0], entropy + stats[1], gap + stats[2], nodes + stats[3]
        return PassStats(loss, entropy / total, gap / total, total, nodes)

    def _micro_batches(self, sequences: Sequence[WeightedSequence]) -> list[list[WeightedSequence]]:
        """Neighbours in lexical order share most; cut their trie where it grows beyond the limit."""
        ordered = sorted(sequences, key=lambda s: (s.prompt_ids, s.completion_ids))
        parts: list[list[WeightedSequence]] = []
        nodes = 0
        previous: tuple[int, ...] = ()
        for sequence in ordered:
            ids = sequence.prompt_ids + sequence.completion_ids[:-1]
            shared = shared_prefix(ids, previous)
            new = len(ids) - shared
            if not parts or nodes + new > MICRO_BATCH_NODES:
                parts.append([])
                nodes, new = 0, len(ids)
            parts[-1].append(sequence)
            nodes, previous = nodes + new, ids
        return parts

    def _forward_backward(self, sequences: Sequence[WeightedSequence], total: int) -> tuple[float, float, float, int]:
        trie = build_trie([s.prompt_ids + s.completion_ids[:-1] for s in sequences])
        # A prediction is a (node, next token) pair; equal pairs of different sequences are one.
        pairs: dict[tuple[int, int], int] = {}
        weight: list[float] = []
        count: list[int] = []
        sampled: list[float] = []
        for sequence, path in zip(sequences, trie.paths, strict=True):
            start = len(sequence.prompt_ids) - 1
            for t, token in enumerate(sequence.completion_ids):
                key = (int(path[start + t]), token)
                if key not in pairs:
                    pairs[key] = len(weight)
                    weight.append(0.0)
                    count.append(0)
                    sampled.append(float("nan") if sequence.logprobs_T is None else sequence.logprobs_T[t])
                weight[pairs[key]] += sequence.weight
                count[pairs[key]] += 1
        nodes = sorted({node for node, _ in pairs})
        row_of = {node: row for row, node in enumerate(nodes)}
        logprobs_NV = self._logprobs(trie, nodes)
        device = logprobs_NV.device
        rows_K = torch.tensor([row_of[node] for node, _ in pairs], device=device)
        tokens_K = torch.tensor([token for _, token in pairs], device=device)
        logprob_K = logprobs_NV[rows_K, tokens_K]
        sampled_K = torch.tensor(sampled, device=device)
        count_K = torch.tensor(count, dtype=torch.float32, device=device)
        difference_K = torch.nan_to_num(logprob_K.detach() - sampled_K, nan=0.0)
        rho_K = difference_K.exp().clamp(max=self.settings.truncation)
        loss = -(torch.tensor(weight, device=device) * rho_K * logprob_K).sum() / total
        loss.backward()
        with torch.no_grad():
            entropy_N = -(logprobs_NV.exp() * logprobs_NV).sum(-1)
            entropy = (entropy_N[rows_K] * count_K).sum().item()
            gap = (difference_K.abs() * count_K).sum().item()
        return loss.item(), entropy, gap, len(trie)

    def _logprobs(self, trie: Any, nodes: Sequence[int]) -> torch.Tensor:
        """Log-probabilities (len(nodes), V) of the next token at ``nodes``, in float32."""
        model = self.peft.get_base_model()
        head = model.get_output_embeddings()
        device = head.weight.device
        hidden_ND = model.get_decoder()(
            input_ids=torch.from_numpy(trie.token_ids_N)[None].to(device),
            position_ids=torch.from_numpy(trie.depth_N)[None].to(device),
            attention_mask=additive(trie.ancestor_mask().to(device), head.weight.dtype),
            use_cache=False,
        ).last_hidden_state[0]
        return torch.log_softmax(head(hidden_ND[torch.tensor(nodes, device=device)]).float(), dim=-1)

    @torch.no_grad()
    def score(self, pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[tuple[float, ...]]:
        """Log-probabilities (T,), in nats, of each (prompt, completion) under the weights in training; no gradients."""
        found: dict[tuple[tuple[int, ...], tuple[int, ...]], tuple[float, ...]] = {}
        for part in self._micro_batches([WeightedSequence(p, c, 0.0) for p, c in pairs if c]):
            trie = build_trie([s.prompt_ids + s.completion_ids[:-1] for s in part])
            ends = [path[len(s.prompt_ids) - 1 :].tolist() for s, path in zip(part, trie.paths, strict=True)]
            nodes = sorted({node for path in ends for node in path})
            row_of = {node: row for row, node in enumerate(nodes)}
            logprobs_NV = self._logprobs(trie, nodes)
            for s, path in zip(part, ends, strict=True):
                rows_T = [row_of[node] for node in path]
                found[s.prompt_ids, s.completion_ids] = tuple(logprobs_NV[rows_T, list(s.completion_ids)].tolist())
        return [found[pair] if pair[1] else () for pair in pairs]

    def step(self, rate: float) -> float:
        """One optimiser step at learning rate ``rate``; returns the gradient norm before clipping.

        A gradient that is no finite number changes nothing: neither weights nor the optimiser's moments.
        """
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm).item()
        if not math.isfinite(norm):
            self.optimizer.zero_grad(set_to_none=True)
            return norm
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    # -- adapters ---------------------------------------------------------------------------------

    def adapter(self) -> dict[str, torch.Tensor]:
        """A copy of the trainable weights by name."""
        return {n: p.detach().clone() for n, p in self.peft.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def load_adapter(self, weights: dict[str, torch.Tensor]) -> None:
        for name, parameter in self.peft.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(weights[name])
