"""How likely a model finds given answers: what tasks with choices are scored by."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from rft_ilab.policy.local.attention import TriePlan, hidden_states
from rft_ilab.policy.local.model import LoadedModel
from rft_ilab.policy.local.trie import build_trie, split_by_size
from rft_ilab.policy.local.vocabulary import logits_of
from rft_ilab.types import Prompt

# Nodes of one forward pass, and rows of logits at a time (25 MB in float32 at 49,152 tokens).
NODES, ROWS = 2048, 128

Likelihood = tuple[float, bool]


def likelihoods(
    loaded: LoadedModel, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]
) -> Iterator[list[Likelihood]]:
    """For each prompt, of each of its choices: log p(choice | prompt) in nats, and whether greedy decoding says it.

    The end of the turn is not part of a choice. Raises PolicyError if something is too long for the model, ValueError
    for a choice without tokens.
    """
    encoded = [loaded.encode_prompt(prompt.messages) for prompt in prompts]
    answers = [[_tokens(loaded, choice) for choice in several] for several in choices]
    for prompt, several in zip(encoded, answers, strict=True):
        loaded.refuse_too_long(len(prompt), max(map(len, several)))
    sizes = [len(prompt) + sum(map(len, several)) for prompt, several in zip(encoded, answers, strict=True)]
    for part in split_by_size(sizes, NODES):
        flat = [(encoded[i], answer) for i in part for answer in answers[i]]
        found = iter(_score(loaded, flat))
        for i in part:
            yield [next(found) for _ in answers[i]]


def _tokens(loaded: LoadedModel, text: str) -> list[int]:
    ids: list[int] = loaded.tokenizer(text, add_special_tokens=False).input_ids
    if not ids:
        raise ValueError("a choice has no tokens")
    return ids


@torch.inference_mode()
def _score(loaded: LoadedModel, pairs: Sequence[tuple[list[int], list[int]]]) -> list[Likelihood]:
    model, device = loaded.model, loaded.model.device
    # Nothing is predicted at the last token of an answer.
    trie = build_trie([prompt + answer[:-1] for prompt, answer in pairs])
    hidden_ND = hidden_states(model, trie.token_ids_N, trie.depth_N, TriePlan(trie, model))
    nodes = [path[len(prompt) - 1 :] for (prompt, _), path in zip(pairs, trie.paths, strict=True)]
    at_K = torch.tensor([int(node) for path in nodes for node in path], device=device)
    token_K = torch.tensor([token for _, answer in pairs for token in answer], device=device)
    logprob_K: list[float] = []
    greedy_K: list[bool] = []
    for start in range(0, len(at_K), ROWS):
        logits_RV = logits_of(model, hidden_ND[at_K[start : start + ROWS]])
        token_R = token_K[start : start + ROWS]
        chosen_R = logits_RV.gather(1, token_R[:, None])[:, 0]
        logprob_K += (chosen_R - logits_RV.logsumexp(dim=1)).tolist()
        greedy_K += (logits_RV.argmax(dim=1) == token_R).tolist()
    scores: list[Likelihood] = []
    start = 0
    for _, answer in pairs:
        part = slice(start, start + len(answer))
        scores.append((math.fsum(logprob_K[part]), all(greedy_K[part])))
        start += len(answer)
    return scores
