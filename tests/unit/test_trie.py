"""The trie holds exactly the sequences' prefixes, once each."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rft_ilab.policy.local.trie import build_trie, split_by_size

sequences = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=8), min_size=1, max_size=12)


@given(sequences)
def test_paths_spell_their_sequences(batch: list[list[int]]) -> None:
    trie = build_trie(batch)
    for sequence, path in zip(batch, trie.paths, strict=True):
        assert trie.token_ids_N[path].tolist() == sequence
        assert trie.depth_N[path].tolist() == list(range(len(sequence)))
        assert trie.parent_N[path].tolist() == [-1, *path[:-1].tolist()]


@given(sequences)
def test_every_distinct_prefix_is_one_node(batch: list[list[int]]) -> None:
    prefixes = {tuple(s[: i + 1]) for s in batch for i in range(len(s))}
    assert len(build_trie(batch)) == len(prefixes)


@given(sequences)
def test_the_mask_is_the_ancestor_relation(batch: list[list[int]]) -> None:
    trie = build_trie(batch)
    mask = trie.ancestor_mask()
    for node in range(len(trie)):
        ancestors, walk = set(), node
        while walk != -1:
            ancestors.add(walk)
            walk = int(trie.parent_N[walk])
        assert set(mask[node].nonzero()[:, 0].tolist()) == ancestors


def test_empty_batch() -> None:
    assert len(build_trie([])) == 0
    assert split_by_size([], 10) == []


def test_an_oversized_item_gets_its_own_run() -> None:
    assert split_by_size([50, 1], limit=10) == [range(0, 1), range(1, 2)]
