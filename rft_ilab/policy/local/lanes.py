"""Keys and values while decoding: a prefix that all rows share, and a lane of its own for each.

Attention over the prefix is one matrix product for all rows; over the lanes it is batched. Both go through
one softmax. A lane is copied only where a row parts from one that had said the same so far, and lanes are
closed up when half of them are done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rft_ilab.policy.local.attention import additive, hidden_states
from rft_ilab.policy.local.trie import Trie

# Below so many lanes, closing up costs more than it saves.
FEWEST_LANES = 16
# Lanes grow by so many columns. What a batched product reads has to lie close together, or it is copied first (three
# quarters of the time in bf16); columns that are not written yet are masked.
GROWTH = 32


@dataclass(slots=True)
class Store:
    """Keys and values by layer: those of the prefix (H_kv, P, D), and each lane's own (L, H_kv, T, D).

    The first ``filled`` columns of a lane are for its prompt's own tokens, right-aligned; ``mask_LT`` is additive.
    """

    prefix: list[tuple[torch.Tensor, torch.Tensor]]
    own: list[tuple[torch.Tensor, torch.Tensor]]
    mask_LT: torch.Tensor
    filled: int

    @classmethod
    def of(
        cls,
        prompts: Trie,
        recorded: Sequence[tuple[torch.Tensor, torch.Tensor]],
        prompt_L: Sequence[int],
        most: int,
        room: int,
    ) -> Store:
        """A lane for each of ``prompt_L``, ``most`` lanes in all, with ``room`` columns after the prompts'.

        ``prompts`` is the trie of the prompts and ``recorded`` its keys and values by layer, each (1, H_kv, N, D).
        """
        shared = _shared_nodes(prompts)
        tails = [prompts.paths[p][shared:] for p in prompt_L]
        longest = max(len(tail) for tail in tails)
        device, dtype = recorded[0][0].device, recorded[0][0].dtype
        first_L = torch.tensor([longest - len(tail) for tail in tails], device=device)
        columns_T = torch.arange(longest + room, device=device)
        mask_LT = additive(torch.zeros(most, longest + room, dtype=torch.bool, device=device), dtype)
        mask_LT[: len(tails)] = additive((columns_T >= first_L[:, None]) & (columns_T < longest), dtype)
        padded = torch.from_numpy(np.stack([np.pad(tail, (longest - len(tail), 0)) for tail in tails])).to(device)
        store = cls([], [], mask_LT, longest)
        for pair in recorded:
            prefix, own = [], []
            for (x,) in pair:
                prefix.append(x[:, :shared].contiguous())
                lanes = x.new_zeros(most, x.shape[0], longest + room, x.shape[2])
                lanes[: len(tails), :, :longest] = x[:, padded].transpose(0, 1)
                own.append(lanes)
            store.prefix.append((prefix[0], prefix[1]))
            store.own.append((own[0], own[1]))
        return store

    def attend(self, layer: int, q_LHFD: torch.Tensor) -> torch.Tensor:
        """A query each of the first L lanes, scaled already, F heads of them to one of keys; as many outputs."""
        used, kv_heads, fold, width = q_LHFD.shape
        own_keys, own_values = (x.flatten(0, 1)[: used * kv_heads] for x in self.own[layer])
        prefix_keys, prefix_values = self.prefix[layer]
        q_HRD = q_LHFD.transpose(0, 1).reshape(kv_heads, used * fold, width)
        prefix_scores = torch.bmm(q_HRD, prefix_keys.transpose(1, 2)).view(kv_heads, used, fold, -1).transpose(0, 1)
        own_scores = torch.bmm(q_LHFD.view(used * kv_heads, fold, width), own_keys.transpose(1, 2))
        own_scores = own_scores.view(used, kv_heads, fold, -1)
        scores = torch.cat([prefix_scores, own_scores.add_(self.mask_LT[:used, None, None])], dim=-1)
        weights = torch.softmax(scores, dim=-1)
        shared = prefix_keys.shape[1]
        own = torch.bmm(weights[..., shared:].reshape(used * kv_heads, fold, -1), own_values)
        common = torch.bmm(
            weights[..., :shared].transpose(0, 1).reshape(kv_heads, used * fold, shared), prefix_values
        ).view(kv_heads, used, fold, width)
        return own.view(used, kv_heads, fold, width) + common.transpose(0, 1)


class Lanes:
    """A :class:`~rft_ilab.policy.local.attention.Plan` for one new token of each of A rows a step.

    Columns of a lane: the prompt's own tokens, then one a step, at most ``steps``. At first a row a prompt.
    """

    def __init__(
        self, prompts: Trie, recorded: Sequence[tuple[torch.Tensor, torch.Tensor]], most: int, steps: int
    ) -> None:
        count = len(prompts.paths)
        self._store = Store.of(prompts, recorded, range(count), max(most, count), min(steps, GROWTH))
        self.column = self._store.filled
        self._used = count
        self._free: list[int] = []
        self._lane_A = list(range(count))
        self._index_A: torch.Tensor | None = None

    def step(
        self, model: Any, parents: Sequence[int], most: int, token_ids_A: np.ndarray, depth_A: np.ndarray
    ) -> torch.Tensor:
        """Last hidden states (A, D): row a says token a where row ``parents[a]`` of the last step stood.

        Each may stand for several that part later: ``most`` in all, for which room is kept.
        """
        self._advance(parents, most)
        return hidden_states(model, token_ids_A, depth_A, self)

    def _advance(self, parents: Sequence[int], most: int) -> None:
        old = self._lane_A
        self._free += sorted(set(old) - {old[p] for p in parents}, reverse=True)
        taken: set[int] = set()
        lanes: list[int] = []
        copies: list[tuple[int, int]] = []
        for parent in parents:
            lane = old[parent]
            if lane in taken:
                copies.append((lane, self._new_lane()))
                lane = copies[-1][1]
            taken.add(lane)
            lanes.append(lane)
        store = self._store
        if copies:
            source, target = (torch.tensor(x, device=store.mask_LT.device) for x in zip(*copies, strict=True))
            store.mask_LT[target] = store.mask_LT[source]
            for x in (x for pair in store.own for x in pair):
                x[target, :, : self.column] = x[source, :, : self.column]
        if self._used >= FEWEST_LANES and 2 * len(lanes) <= self._used:
            self._close_up(lanes, most)
            lanes = list(range(len(lanes)))
        self._lane_A = lanes
        in_order = lanes == list(range(self._used))
        self._index_A = None if in_order else torch.tensor(lanes, device=store.mask_LT.device)
        if self.column == store.mask_LT.shape[1]:
            self._widen()
        store.mask_LT[:, self.column] = 0
        self.column += 1

    def _widen(self) -> None:
        store = self._store
        store.mask_LT = torch.nn.functional.pad(store.mask_LT, (0, GROWTH), value=torch.finfo(store.mask_LT.dtype).min)
        # Layer by layer in place: all old and all new ones at once would be twice the memory.
        for layer, (keys, values) in enumerate(store.own):
            store.own[layer] = (_wider(keys), _wider(values))

    def _new_lane(self) -> int:
        if self._free:
            return self._free.pop()
        self._used += 1
        return self._used - 1

    def _close_up(self, lanes: Sequence[int], most: int) -> None:
        store = self._store
        index = torch.tensor(lanes, device=store.mask_LT.device)
        # The rest of the room is written to before it is read: any lane will do to fill it.
        index = torch.cat([index, index[:1].expand(most - len(lanes))])
        store.mask_LT = store.mask_LT[index]
        for layer, (keys, values) in enumerate(store.own):
            store.own[layer] = (keys[index], values[index])
        self._used, self._free = len(lanes), []

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        """query (1, H, A, D), key and value (1, H_kv, A, D); returns (1, A, H, D)."""
        _, heads, rows, width = query.shape
        kv_heads, index = key.shape[1], self._index_A
        where = slice(self._used) if index is None else index
        for x, new in zip(self._store.own[layer], (key, value), strict=True):
            x[where, :, self.column - 1] = new[0].transpose(0, 1)
        q_AHFD = one_query_a_row(query, kv_heads, scaling)
        if index is None:
            out = self._store.attend(layer, q_AHFD.contiguous())
        else:
            q_LHFD = query.new_zeros(self._used, kv_heads, heads // kv_heads, width)
            q_LHFD[index] = q_AHFD
            out = self._store.attend(layer, q_LHFD)[index]
        return out.reshape(1, rows, heads, width)


def one_query_a_row(query: torch.Tensor, kv_heads: int, scaling: float) -> torch.Tensor:
    """(1, H, A, D) to (A, H_kv, H / H_kv, D), scaled."""
    _, heads, rows, width = query.shape
    return (query[0] * scaling).view(kv_heads, heads // kv_heads, rows, width).permute(2, 0, 1, 3)


def _wider(x_LHTD: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(x_LHTD, (0, 0, 0, GROWTH))


def _shared_nodes(trie: Trie) -> int:
    """Number of leading nodes that lie on every path."""
    return min(
        (int(np.argmin(path == np.arange(len(path)))) if (path != np.arange(len(path))).any() else len(path))
        for path in trie.paths
    )
