"""Forward and backward over a token trie, and the LoRA weights that they train.

All sequences of a step are packed so that each distinct prefix is computed once, and the vocabulary
head runs only where a completion token is predicted. Gradients equal those of the padded batch (tested).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from rft_ilab.config import TrainSettings
from rft_ilab.policy.local.attention import TriePlan, hidden_states
from rft_ilab.policy.local.model import LoadedModel
from rft_ilab.policy.local.sampler import LocalPolicy
from rft_ilab.policy.local.trie import Trie, build_trie
from rft_ilab.rl import parallel
from rft_ilab.rl.lora import add_lora, without_lora
from rft_ilab.rl.objective import WeightedSequence, slopes
from rft_ilab.rl.pieces import micro_batches, most_nodes, tokens_of
from rft_ilab.rl.predictions import predict


@dataclass(slots=True)
class PassStats:
    """Token-weighted means over the completion tokens of a batch.

    ``loss`` is the policy-gradient objective's value; ``entropy`` in nats; ``importance_gap`` is
    mean |log p_trainer - log p_sampler|; ``tokens`` counts completion tokens, ``nodes`` trie nodes,
    ``predictions`` those of them at which a token is predicted. ``kl`` holds, for each skill, the sum of
    KL(policy || reference) over its completion tokens (nats) and their number; empty unless asked for.
    """

    loss: float = 0.0
    entropy: float = 0.0
    importance_gap: float = 0.0
    tokens: int = 0
    nodes: int = 0
    predictions: int = 0
    kl: dict[str, tuple[float, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pairs:
    """The distinct predictions of a batch, sorted by node: (node, next token) and what hangs on each.

    ``row_K`` indexes ``nodes``; ``gain_K`` and ``pain_K`` are sums of positive and negative weights; ``sampled_K`` is
    the sampler's log-probability (NaN: supervised); ``count_K`` is how many completion tokens a pair stands for.
    """

    nodes: list[int]
    row_K: torch.Tensor
    token_K: torch.Tensor
    gain_K: torch.Tensor
    pain_K: torch.Tensor
    sampled_K: torch.Tensor
    count_K: torch.Tensor


class Engine:
    """A model whose linear layers carry LoRA adapters; the same merged weights sample and train."""

    def __init__(self, loaded: LoadedModel, settings: TrainSettings) -> None:
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.loaded = loaded
        self._lora = add_lora(loaded.model, settings.lora_rank, settings.lora_alpha)
        self.parameters = [p for layer in self._lora.values() for p in (layer.lora_A, layer.lora_B)]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=0.0, betas=(0.9, 0.99), weight_decay=0.0)
        self._merged: float | None = None

    # -- weights ----------------------------------------------------------------------------------

    def refresh_sampler(self, scale: float = 1.0) -> None:
        """Running weights = base + ``scale`` x LoRA, rounded once to the model's dtype."""
        if self._merged != scale:
            for layer in self._lora.values():
                layer.merge(scale)
            self._merged = scale

    def weights_changed(self) -> None:
        """To be called by whoever changes ``parameters``: what runs is merged anew before it is used again."""
        self._merged = None

    def policy(self, version: str) -> LocalPolicy:
        """The sampler as a policy; ``version`` must change with the weights, since caches rely on it."""
        return LocalPolicy(self.sampler, policy_id=version)

    @property
    def sampler(self) -> LoadedModel:
        """The model with the weights of the last refresh. Its digest is the base's: true only at scale 0."""
        return self.loaded

    # -- training ---------------------------------------------------------------------------------

    def accumulate(
        self, sequences: Sequence[WeightedSequence], *, measure_kl: bool = False, entropy_weight: float = 0.0
    ) -> PassStats:
        """Add the gradient of  -sum_s weight_s sum_t min(rho_st, C) log p(t) / (total tokens).

        rho is the (detached) importance weight of trainer over sampler, capped at C = ``truncation``; outside the clip
        range it moves nothing further (:func:`rft_ilab.rl.objective.slopes`). ``settings.kl_weight`` x KL to the base
        model and -``entropy_weight`` x entropy are added, means over the completion tokens, exact over the vocabulary.
        Raises PolicyError if a sequence is too long for the model.
        """
        for s in sequences:
            self.loaded.refuse_too_long(len(s.prompt_ids), len(s.completion_ids))
        self.refresh_sampler()
        stats = PassStats(tokens=sum(len(s.completion_ids) for s in sequences))
        # Neighbours in lexical order share most.
        ordered = sorted(sequences, key=tokens_of)
        for part in micro_batches(parallel.stretch(ordered), most_nodes(self.loaded.model)):
            self._forward_backward(part, stats, measure_kl or self.settings.kl_weight > 0, entropy_weight)
        return _added_up(stats, sorted({s.skill for s in sequences}))

    def _forward_backward(
        self, sequences: Sequence[WeightedSequence], stats: PassStats, with_kl: bool, entropy_weight: float
    ) -> None:
        """One micro-batch; adds its share of the means to ``stats``, whose ``tokens`` are those of the whole batch."""
        model, device = self.loaded.model, self.loaded.model.device
        trie = build_trie([s.prompt_ids + s.completion_ids[:-1] for s in sequences])
        pairs = _pairs(sequences, trie, device)
        plan, index_R = TriePlan(trie, model), torch.tensor(pairs.nodes, device=device)
        reference_RD = None
        if with_kl:
            with torch.no_grad(), without_lora(self._lora):
                reference_RD = hidden_states(model, trie.token_ids_N, trie.depth_N, plan)[index_R]
        hidden_RD = hidden_states(model, trie.token_ids_N, trie.depth_N, plan)[index_R]
        settings, total = self.settings, stats.tokens
        loss = 0.0

        def slope(logprob_K: torch.Tensor, which_K: torch.Tensor) -> torch.Tensor:
            nonlocal loss
            gain_K, pain_K, sampled_K = (x[which_K] for x in (pairs.gain_K, pairs.pain_K, pairs.sampled_K))
            slope_K = slopes(logprob_K, sampled_K, gain_K, pain_K, settings) / total
            loss += torch.dot(slope_K, logprob_K).item()
            return slope_K

        count_R = torch.zeros(len(pairs.nodes), device=device).index_add_(0, pairs.row_K, pairs.count_K)
        found, grad_RD = predict(
            model,
            hidden_RD.detach(),
            pairs.row_K,
            pairs.token_K,
            slope,
            reference_RD=reference_RD,
            kl_weight_R=count_R * (settings.kl_weight / total) if settings.kl_weight else None,
            entropy_weight_R=count_R * (entropy_weight / total) if entropy_weight else None,
        )
        hidden_RD.backward(grad_RD)
        difference_K = torch.nan_to_num(found.logprob_K - pairs.sampled_K, nan=0.0)
        stats.loss += loss
        stats.entropy += torch.dot(found.entropy_R, count_R).item() / total
        stats.importance_gap += torch.dot(difference_K.abs(), pairs.count_K).item() / total
        stats.nodes += len(trie)
        stats.predictions += len(pairs.nodes)
        if found.kl_R is not None:
            _add_kl(stats, sequences, trie, pairs.nodes, found.kl_R)

    @torch.no_grad()
    def score(self, pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[tuple[float, ...]]:
        """Log-probabilities (T,), in nats, of each (prompt, completion) under the weights of the last refresh."""
        if self._merged is None:
            self.refresh_sampler()
        model = self.loaded.model
        found: dict[tuple[tuple[int, ...], tuple[int, ...]], tuple[float, ...]] = {}
        ordered = sorted({WeightedSequence(p, c, 0.0) for p, c in pairs if c}, key=tokens_of)
        for part in micro_batches(ordered, most_nodes(model)):
            trie = build_trie([s.prompt_ids + s.completion_ids[:-1] for s in part])
            asked = _pairs(part, trie, model.device)
            hidden_RD = hidden_states(model, trie.token_ids_N, trie.depth_N, TriePlan(trie, model))[asked.nodes]
            logprobs = predict(model, hidden_RD, asked.row_K, asked.token_K)[0].logprob_K.tolist()
            keys = zip([asked.nodes[row] for row in asked.row_K.tolist()], asked.token_K.tolist(), strict=True)
            known = dict(zip(keys, logprobs, strict=True))
            for s, path in zip(part, trie.paths, strict=True):
                nodes = path[len(s.prompt_ids) - 1 :].tolist()
                found[tokens_of(s)] = tuple(known[pair] for pair in zip(nodes, s.completion_ids, strict=True))
        return [found[pair] if pair[1] else () for pair in pairs]

    def step(self, rate: float) -> float:
        """One optimiser step at learning rate ``rate``; returns the gradient norm before clipping.

        A gradient that is no finite number changes nothing: neither weights nor the optimiser's moments.
        """
        parallel.add_gradients(self.parameters)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm).item()
        if not math.isfinite(norm):
            self.optimizer.zero_grad(set_to_none=True)
            return norm
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.weights_changed()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    # -- adapters ---------------------------------------------------------------------------------

    def _named(self) -> dict[str, torch.nn.Parameter]:
        """The trainable weights under the names that PEFT gives them in its files."""
        return {
            f"base_model.model.{name}.{which}.weight": getattr(layer, which)
            for name, layer in self._lora.items()
            for which in ("lora_A", "lora_B")
        }

    def adapter(self) -> dict[str, torch.Tensor]:
        """A copy of the trainable weights by name."""
        return {name: parameter.detach().clone() for name, parameter in self._named().items()}

    @torch.no_grad()
    def load_adapter(self, weights: dict[str, torch.Tensor]) -> None:
        for name, parameter in self._named().items():
            parameter.copy_(weights[name])
        self.weights_changed()


def _added_up(stats: PassStats, skills: Sequence[str]) -> PassStats:
    """Over all processes; ``tokens`` are known to each."""
    kl = [number for skill in skills for number in stats.kl.get(skill, (0.0, 0))]
    loss, entropy, gap, nodes, predictions, *kl = parallel.add_up(
        [stats.loss, stats.entropy, stats.importance_gap, stats.nodes, stats.predictions, *kl]
    )
    sums = {skill: (kl[2 * i], int(kl[2 * i + 1])) for i, skill in enumerate(skills)}
    measured = {skill: found for skill, found in sums.items() if found[1]}
    return PassStats(loss, entropy, gap, stats.tokens, int(nodes), int(predictions), measured)


def _pairs(sequences: Sequence[WeightedSequence], trie: Trie, device: torch.device) -> Pairs:
    """Equal predictions of different sequences are one; supervised and sampled ones are kept apart."""
    found: dict[tuple[int, int, bool], list[float]] = {}
    for sequence, path in zip(sequences, trie.paths, strict=True):
        start, logprobs_T = len(sequence.prompt_ids) - 1, sequence.logprobs_T
        gain, pain = max(sequence.weight, 0.0), min(sequence.weight, 0.0)
        for t, token in enumerate(sequence.completion_ids):
            sampled = math.nan if logprobs_T is None else logprobs_T[t]
            pair = found.setdefault((int(path[start + t]), token, logprobs_T is None), [0.0, 0.0, sampled, 0.0])
            pair[0] += gain
            pair[1] += pain
            pair[3] += 1.0
    keys = sorted(found)
    nodes = sorted({node for node, _, _ in keys})
    row_of = {node: row for row, node in enumerate(nodes)}
    gain_K, pain_K, sampled_K, count_K = torch.tensor([found[key] for key in keys], device=device).unbind(dim=1)
    return Pairs(
        nodes,
        torch.tensor([row_of[node] for node, _, _ in keys], device=device),
        torch.tensor([token for _, token, _ in keys], device=device),
        gain_K, pain_K, sampled_K, count_K,
    )  # fmt: skip


def _add_kl(
    stats: PassStats, sequences: Sequence[WeightedSequence], trie: Trie, nodes: Sequence[int], kl_R: torch.Tensor
) -> None:
    """Sum the KL of every completion token to its sequence's skill."""
    by_node = np.zeros(len(trie))
    by_node[list(nodes)] = kl_R.double().cpu().numpy()
    for sequence, path in zip(sequences, trie.paths, strict=True):
        start, length = len(sequence.prompt_ids) - 1, len(sequence.completion_ids)
        known, tokens = stats.kl.get(sequence.skill, (0.0, 0))
        stats.kl[sequence.skill] = (known + float(by_node[path[start : start + length]].sum()), tokens + length)
