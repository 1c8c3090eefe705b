"""Keys and values while decoding: a prefix that all rows share, and a lane of its own for each.

Attention over the prefix is one matrix product for all rows; over the lanes it is batched. Both go through
one softmax. A lane is copied only where a row parts from one that had said the same so far, and lanes are
closed up when half of them are done.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from rft_ilab.policy.local.attention import additive
from rft_ilab.policy.local.trie import Trie

# Below so many lanes, closing up costs more than it saves.
FEWEST_LANES = 16
# Lanes grow by so many columns. What a batched product reads has to lie close together, or it is copied first (three
# quarters of the time in bf16); columns that are not written yet are masked.
GROWTH = 32


class Lanes:
    """A :class:`~rft_ilab.policy.local.attention.Plan` for one new token of each of A rows a step.

    ``prompts`` is the trie of the prompts and ``recorded`` its keys and values by layer, each (1, H_kv, N, D).
    Columns of a lane: the prompt's own tokens (right-aligned), then one a step, at most ``steps``.
    """

    def __init__(
        self, prompts: Trie, recorded: Sequence[tuple[torch.Tensor, torch.Tensor]], most: int, steps: int
    ) -> None:
        shared = _shared_nodes(prompts)
        tails = [path[shared:] for path in prompts.paths]
        longest = max(len(tail) for tail in tails)
        device, dtype = recorded[0][0].device, recorded[0][0].dtype
        self.column = longest
        self._width = longest + min(steps, GROWTH)
        first_L = torch.tensor([longest - len(tail) for tail in tails], device=device)
        columns_T = torch.arange(self._width, device=device)
        self._mask_LT = additive(torch.zeros(most, self._width, dtype=torch.bool, device=device), dtype)
        self._mask_LT[: len(tails)] = additive((columns_T >= first_L[:, None]) & (columns_T < longest), dtype)
        self._prefix: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._own: list[tuple[torch.Tensor, torch.Tensor]] = []
        padded = torch.from_numpy(np.stack([np.pad(tail, (longest - len(tail), 0)) for tail in tails])).to(device)
        for pair in recorded:
            prefix, own = [], []
            for (x,) in pair:
                prefix.append(x[:, :shared].contiguous())
                lanes = x.new_zeros(most, x.shape[0], self._width, x.shape[2])
                lanes[: len(tails), :, :longest] = x[:, padded].transpose(0, 1)
                own.append(lanes)
            self._prefix.append((prefix[0], prefix[1]))
            self._own.append((own[0], own[1]))
        self._used = len(tails)
        self._free: list[int] = []
        self._lane_A = list(range(len(tails)))
        self._index_A: torch.Tensor | None = None

    def advance(self, parents: Sequence[int], most: int) -> None:
        """Before a step: row a goes on where row ``parents[a]`` of the last step stood.

        Each may stand for several that part later: ``most`` in all, for which room is kept.
        """
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
        if copies:
            source, target = (torch.tensor(x, device=self._mask_LT.device) for x in zip(*copies, strict=True))
            self._mask_LT[target] = self._mask_LT[source]
            for x in (x for pair in self._own for x in pair):
                x[target, :, : self.column] = x[source, :, : self.column]
        if self._used >= FEWEST_LANES and 2 * len(lanes) <= self._used:
            self._close_up(lanes, most)
            lanes = list(range(len(lanes)))
        self._lane_A = lanes
        in_order = lanes == list(range(self._used))
        self._index_A = None if in_order else torch.tensor(lanes, device=self._mask_LT.device)
        if self.column == self._width:
            self._widen()
        self._mask_LT[:, self.column] = 0
        self.column += 1

    def _widen(self) -> None:
        self._width += GROWTH
        self._mask_LT = torch.nn.functional.pad(self._mask_LT, (0, GROWTH), value=torch.finfo(self._mask_LT.dtype).min)
        # Layer by layer in place: all old and all new ones at once would be twice the memory.
        for layer, (keys, values) in enumerate(self._own):
            self._own[layer] = (_wider(keys), _wider(values))

    def _new_lane(self) -> int:
        if self._free:
            return self._free.pop()
        self._used += 1
        return self._used - 1

    def _close_up(self, lanes: Sequence[int], most: int) -> None:
        index = torch.tensor(lanes, device=self._mask_LT.device)
        # The rest of the room is written to before it is read: any lane will do to fill it.
        index = torch.cat([index, index[:1].expand(most - len(lanes))])
        self._mask_LT = self._mask_LT[index]
        for layer, (keys, values) in enumerate(self._own):
            self._own[layer] = (keys[index], values[index])
        self._used, self._free = len(lanes), []

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        """query (1, H, A, D), key and value (1, H_kv, A, D); returns (1, A, H, D)."""
        _, heads, rows, width = query.shape
        kv_heads = key.shape[1]
        fold = heads // kv_heads
        used, columns = self._used, self._width
        index = self._index_A
        q_AHFD = (query[0] * scaling).view(kv_heads, fold, rows, width).permute(2, 0, 1, 3)
        k_AHD, v_AHD = key[0].transpose(0, 1), value[0].transpose(0, 1)
        where = slice(used) if index is None else index
        for x, new_AHD in zip(self._own[layer], (k_AHD, v_AHD), strict=True):
            x[where, :, self.column - 1] = new_AHD
        if index is None:
            q_LHFD = q_AHFD.contiguous()
        else:
            q_LHFD = query.new_zeros(used, kv_heads, fold, width)
            q_LHFD[index] = q_AHFD
        own_keys, own_values = (x.flatten(0, 1)[: used * kv_heads] for x in self._own[layer])
        prefix_keys, prefix_values = self._prefix[layer]
        q_HRD = q_LHFD.transpose(0, 1).reshape(kv_heads, used * fold, width)
        prefix_scores = torch.bmm(q_HRD, prefix_keys.transpose(1, 2)).view(kv_heads, used, fold, -1).transpose(0, 1)
        own_scores = torch.bmm(q_LHFD.view(used * kv_heads, fold, width), own_keys.transpose(1, 2))
        own_scores = own_scores.view(used, kv_heads, fold, columns)
        mask = self._mask_LT[:used, None, None]
        scores = torch.cat([prefix_scores, own_scores.add_(mask)], dim=-1)
        weights = torch.softmax(scores, dim=-1)
        shared = prefix_keys.shape[1]
        own = torch.bmm(weights[..., shared:].reshape(used * kv_heads, fold, columns), own_values)
        common = torch.bmm(
            weights[..., :shared].transpose(0, 1).reshape(kv_heads, used * fold, shared), prefix_values
        ).view(kv_heads, used, fold, width)
        out = own.view(used, kv_heads, fold, width) + common.transpose(0, 1)
        if index is not None:
            out = out[index]
        return out.reshape(1, rows, heads, width)


def _wider(x_LHTD: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(x_LHTD, (0, 0, 0, GROWTH))


def _shared_nodes(trie: Trie) -> int:
    """Number of leading nodes that lie on every path."""
    return min(
        (int(np.argmin(path == np.arange(len(path)))) if (path != np.arange(len(path))).any() else len(path))
        for path in trie.paths
    )
