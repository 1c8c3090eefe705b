"""Which models the trie can run, and how far: what it would get wrong is refused when the model is loaded.

Attention over the trie is plain softmax attention over all ancestors, and logits are the head's, divided by
``logits_scaling``. A model that does anything else would be sampled and trained as another model than it is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from rft_ilab.errors import PolicyError
from rft_ilab.policy.local import attention
from rft_ilab.policy.local.trie import build_trie
from rft_ilab.policy.local.vocabulary import logits_of

FIX = "use another model, e.g. of the Llama, Granite, Qwen2, Qwen3 or Mistral families"
# What a few tokens do not show: a soft cap bends only what is large, a temperature may depend on the position.
UNSUPPORTED = {
    "attn_logit_softcapping": "soft-capped attention scores",
    "final_logit_softcapping": "soft-capped logits",
    "attn_temperature_tuning": "attention scaled by position",
}
# Keys of config.json: as long as no sequence is longer, windows, chunks and rescaled rotations change nothing.
LIMITS = ("max_position_embeddings", "sliding_window", "attention_chunk_size")
# Root mean square of the difference over the standard deviation of the logits. Rounding of the embedded model comes to
# 2e-6 in float32; in bf16 random models of eight layers came to 0.06.
TOLERANCE, LOOSE_TOLERANCE = 1e-3, 0.2


def context_length(config: Any) -> int:
    """Most tokens of a sequence, prompt and answer, that the trie runs as the model itself would."""
    names = [n for n in LIMITS if n != "sliding_window" or getattr(config, "use_sliding_window", True)]
    limits = [getattr(config, name, None) for name in names]
    scaling = getattr(config, "rope_scaling", None) or {}
    if scaling.get("rope_type", scaling.get("type")) == "longrope":
        # Beyond it all positions are rotated in another way, those of the prompt, too.
        limits.append(getattr(config, "original_max_position_embeddings", None))
    return min((limit for limit in limits if limit), default=sys.maxsize)


def refuse_unfaithful(model: Any, directory: Path) -> None:
    """Raises PolicyError unless the trie gives the logits that the model's own attention gives.

    Asked of two sequences that part half way, and of the configuration where so few tokens would not tell.
    """
    config = model.config
    for key, what in UNSUPPORTED.items():
        if getattr(config, key, None):
            raise refusal(f"{what} ({key})", directory)
    first = [(7919 * i) % config.get_text_config().vocab_size for i in range(1, 9)]
    sequences = [first, [*first[:4], *reversed(first[:4])]]
    try:
        with torch.inference_mode():
            trie = build_trie(sequences)
            plan = attention.TriePlan(trie, model)
            logits_NV = logits_of(model, attention.hidden_states(model, trie.token_ids_N, trie.depth_N, plan))
            with _own_attention(model):
                expected = model(torch.tensor(sequences, device=model.device), use_cache=False).logits.float()
    except Exception as error:  # whatever a foreign architecture raises
        raise refusal(f"it does not run ({type(error).__name__})", directory) from error
    found = torch.stack([logits_NV[path] for path in trie.paths])
    difference = ((found - expected).square().mean().sqrt() / expected.std()).item()
    # Not "larger than": a difference that is no number is none that may pass.
    if not difference <= (TOLERANCE if model.dtype == torch.float32 else LOOSE_TOLERANCE):
        raise refusal(f"its logits would be others (by {difference:.2g} standard deviations)", directory)


def refusal(what: str, directory: Path) -> PolicyError:
    """Says why a model is refused."""
    return PolicyError(f"this architecture is not supported: {what}", where=directory, fix=FIX)


@contextmanager
def _own_attention(model: Any) -> Iterator[None]:
    configs = {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}.values()
    try:
        for config in configs:
            config._attn_implementation = "eager"
        yield
    finally:
        for config in configs:
            config._attn_implementation = attention.NAME
