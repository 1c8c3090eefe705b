"""A step's sequences in pieces that memory holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from rft_ilab.policy.local.trie import shared_prefix
from rft_ilab.rl.objective import WeightedSequence

# Trie nodes in one forward-backward pass: bounds activation memory (about 1 MB a node at 135M parameters).
MICRO_BATCH_NODES = 1024
# On a GPU launching a pass takes the same however many nodes there are. As many as memory allows: at most this share of
# what is free, at so many hidden states a layer and node (measured: 22 at 135M parameters, 29 at 1.24 billion).
MOST_GPU_NODES, GPU_SHARE, KEPT_STATES = 8192, 0.25, 36


def tokens_of(sequence: WeightedSequence) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return sequence.prompt_ids, sequence.completion_ids


def most_nodes(model: Any) -> int:
    """Trie nodes in one forward-backward pass, by the memory that a GPU has left."""
    if model.device.type != "cuda":
        return MICRO_BATCH_NODES
    # What PyTorch holds and does not use is free, too.
    held = torch.cuda.memory_reserved(model.device) - torch.cuda.memory_allocated(model.device)
    free = torch.cuda.mem_get_info(model.device)[0] + held
    config = model.config.get_text_config()
    node = KEPT_STATES * config.num_hidden_layers * config.hidden_size * model.dtype.itemsize
    return min(MOST_GPU_NODES, max(MICRO_BATCH_NODES, int(GPU_SHARE * free / node)))


def micro_batches(ordered: Sequence[WeightedSequence], most: int) -> list[list[WeightedSequence]]:
    """Sequences in lexical order, cut where their trie would grow beyond ``most`` nodes."""
    parts: list[list[WeightedSequence]] = []
    nodes = 0
    previous: tuple[int, ...] = ()
    for sequence in ordered:
        ids = sequence.prompt_ids + sequence.completion_ids[:-1]
        shared = shared_prefix(ids, previous)
        new = len(ids) - shared
        if not parts or nodes + new > most:
            parts.append([])
            nodes, new = 0, len(ids)
        parts[-1].append(sequence)
        nodes, previous = nodes + new, ids
    return parts
