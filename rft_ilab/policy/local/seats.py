"""Decoding on a GPU: every row keeps a seat of its own, and a pass is recorded once and replayed (CUDA graphs).

A pass of a small model is two thousand kernels of a few microseconds. Launched one by one they take seven times as long
as replayed (135M parameters, 64 rows, one H200: 45 and 6.4 ms), so what counts is not how many rows there are but that
the launches go. A recorded pass has fixed shapes and addresses: no row is shared with another that has said the same so
far, none moves up when others are done, and the room for all tokens is there from the start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from rft_ilab.policy.local.attention import run_decoder
from rft_ilab.policy.local.lanes import Store, one_query_a_row
from rft_ilab.policy.local.trie import Trie

# What a model decides by its data while it runs cannot be recorded: angles that change with the longest sequence, and
# which experts are asked.
UNSTEADY_ROPES = ("dynamic", "longrope")
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


def suit(model: Any) -> bool:
    """Whether passes of ``model`` can be recorded, and it lies where that pays."""
    config = model.config
    scaling = getattr(config, "rope_scaling", None) or {}
    unsteady = scaling.get("rope_type", scaling.get("type")) in UNSTEADY_ROPES
    experts = any(getattr(config, name, None) for name in EXPERTS)
    return bool(model.get_input_embeddings().weight.is_cuda) and not unsteady and not experts


class Seats:
    """A :class:`~rft_ilab.policy.local.attention.Plan` for one new token of each of the rows that began, each step.

    Row a begins with the prompt ``prompt_A[a]`` and says at most ``steps`` tokens. Rows that are done are computed on
    and not looked at.
    """

    def __init__(
        self, prompts: Trie, recorded: Sequence[tuple[torch.Tensor, torch.Tensor]], prompt_A: Sequence[int], steps: int
    ) -> None:
        self._store = Store.of(prompts, recorded, prompt_A, len(prompt_A), steps)
        device = self._store.mask_LT.device
        self._column = torch.tensor([self._store.filled - 1], device=device)
        self._token_A, self._depth_A = (torch.zeros(len(prompt_A), dtype=torch.long, device=device) for _ in range(2))
        self._seat_A = list(range(len(prompt_A)))
        self._graph: torch.cuda.CUDAGraph | None = None
        self._hidden_AD: torch.Tensor | None = None

    def step(
        self, model: Any, parents: Sequence[int], most: int, token_ids_A: np.ndarray, depth_A: np.ndarray
    ) -> torch.Tensor:
        """Last hidden states (A, D): row a says token a where row ``parents[a]`` of the last step stood.

        ``most`` is for plans that keep room.
        """
        self._seat_A = [self._seat_A[parent] for parent in parents]
        seats = torch.tensor(self._seat_A, device=self._column.device)
        self._token_A[seats] = torch.from_numpy(token_ids_A).to(self._column.device)
        self._depth_A[seats] = torch.from_numpy(depth_A).to(self._column.device)
        self._column += 1
        if self._hidden_AD is None or not self._column.is_cuda:
            # The first pass also makes what the libraries want to have made before they are recorded.
            self._hidden_AD = self._pass(model)
        else:
            if self._graph is None:
                self._graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self._graph):
                    self._hidden_AD = self._pass(model)
            self._graph.replay()
        return self._hidden_AD[seats]

    def _pass(self, model: Any) -> torch.Tensor:
        self._store.mask_LT.index_fill_(1, self._column, 0.0)
        return run_decoder(model, self._token_A, self._depth_A, self)

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        """query (1, H, A, D), key and value (1, H_kv, A, D); returns (1, A, H, D)."""
        _, heads, rows, width = query.shape
        for x, new in zip(self._store.own[layer], (key, value), strict=True):
            x.index_copy_(2, self._column, new[0].transpose(0, 1)[:, :, None])
        out = self._store.attend(layer, one_query_a_row(query, key.shape[1], scaling).contiguous())
        return out.reshape(1, rows, heads, width)
