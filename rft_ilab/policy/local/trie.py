"""A batch of token sequences as one trie: each distinct prefix once.

Prompts, demonstrations and completions of a batch share prefixes. Laid out in depth-first order, the
trie's nodes form one sequence for the model: ``position_ids`` are depths and a node attends to its
ancestors alone. The result is exact: every node sees what it would see in its own sequence
(the idea of PrefixGrouper, arXiv 2506.05433, taken to all levels).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True, slots=True)
class Trie:
    """N nodes in depth-first order.

    ``token_ids_N``; ``parent_N`` (-1 for a root); ``depth_N`` from 0; ``end_N`` is one past the last
    descendant; ``paths`` holds, for sequence s, the node of each of its tokens, shape (T_s,).
    """

    token_ids_N: np.ndarray
    parent_N: np.ndarray
    depth_N: np.ndarray
    end_N: np.ndarray
    paths: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.token_ids_N)

    def ancestor_mask(self) -> torch.Tensor:
        """Boolean (N, N): may node q (row) attend to node k (column)?"""
        index_N = torch.arange(len(self))
        end_N = torch.from_numpy(self.end_N)
        return (index_N[None, :] <= index_N[:, None]) & (index_N[:, None] < end_N[None, :])


def build_trie(sequences: Sequence[Sequence[int]]) -> Trie:
    """Pack sequences into a trie.

    >>> trie = build_trie([[5, 6, 7], [5, 6, 8], [5, 6, 7]])
    >>> trie.token_ids_N.tolist(), trie.parent_N.tolist(), trie.depth_N.tolist()
    ([5, 6, 7, 8], [-1, 0, 1, 1], [0, 1, 2, 2])
    >>> [path.tolist() for path in trie.paths]
    [[0, 1, 2], [0, 1, 3], [0, 1, 2]]
    """
    tokens: list[int] = []
    parents: list[int] = []
    depths: list[int] = []
    ends: list[int] = []
    paths: list[np.ndarray] = [np.empty(0, np.int64)] * len(sequences)
    stack: list[int] = []  # nodes on the path of the sequence handled last
    previous: Sequence[int] = ()
    # Sorted, each sequence shares its longest prefix with the one before it, so nodes come out depth-first.
    for s in sorted(range(len(sequences)), key=lambda i: tuple(sequences[i])):
        sequence = sequences[s]
        shared = shared_prefix(previous, sequence)
        for node in stack[shared:]:
            ends[node] = len(tokens)
        del stack[shared:]
        for depth in range(shared, len(sequence)):
            parents.append(stack[-1] if stack else -1)
            stack.append(len(tokens))
            tokens.append(sequence[depth])
            depths.append(depth)
            ends.append(-1)
        paths[s] = np.array(stack, np.int64)
        previous = sequence
    for node in stack:
        ends[node] = len(tokens)
    token_ids_N, parent_N, depth_N, end_N = (np.array(column, np.int64) for column in (tokens, parents, depths, ends))
    return Trie(token_ids_N, parent_N, depth_N, end_N, tuple(paths))


def shared_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """Number of leading tokens that two sequences share.

    >>> shared_prefix([1, 2, 3], [1, 2, 4, 5]), shared_prefix([1], [1]), shared_prefix([], [1])
    (2, 1, 0)
    """
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def split_by_size(sizes: Sequence[int], limit: int) -> list[range]:
    """Cut items into runs whose ``sizes`` add up to at most ``limit``; an item that is over it gets a run of its own.

    >>> split_by_size([4, 4, 4, 20], limit=8)
    [range(0, 2), range(2, 3), range(3, 4)]
    """
    runs: list[range] = []
    start, total = 0, 0
    for i, size in enumerate(sizes):
        if i > start and total + size > limit:
            runs.append(range(start, i))
            start, total = i, 0
        total += size
    if start < len(sizes):
        runs.append(range(start, len(sizes)))
    return runs
