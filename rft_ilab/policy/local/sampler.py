"""LocalPolicy: prompts in, rollouts out, on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rft_ilab.policy.local.decode import Row, decode
from rft_ilab.policy.local.model import LoadedModel
from rft_ilab.policy.local.trie import shared_prefix, split_by_size
from rft_ilab.types import Prompt, Rollout, Sampling

# Positions of a chunk's lanes: each row has its prompt's own tokens and its answer there, 23 kB a position at 135M
# parameters in bf16. Larger chunks prefill a shared prefix less often and multiply larger matrices.
LANE_POSITIONS = 16384


class LocalPolicy:
    """Samples a loaded model. ``id`` names weights and tokenizer, hence everything it can answer."""

    def __init__(self, loaded: LoadedModel, policy_id: str | None = None) -> None:
        self.loaded = loaded
        # The number format changes answers at near ties, so it belongs to the identity.
        self.id = policy_id or f"local:{loaded.digest}:{str(loaded.model.dtype).removeprefix('torch.')}"

    def sample(self, prompts: Sequence[Prompt], n: int, sampling: Sampling) -> Iterator[Rollout]:
        """``n`` rollouts of every prompt, with token ids and log-probabilities; yields chunk by chunk.

        Prompts that share most of their tokens (the same demonstrations) should be neighbours. Raises PolicyError
        before anything is sampled if one of them is too long for the model.
        """
        encoded = [self.loaded.encode_prompt(p.messages) for p in prompts]
        self.loaded.refuse_too_long(max(map(len, encoded), default=0), sampling.max_tokens)
        # Of all prompts, the lexically first and last share least.
        shared = shared_prefix(min(encoded), max(encoded)) if encoded else 0
        positions = [n * (len(ids) - shared + sampling.max_tokens) for ids in encoded]
        chunks = split_by_size(positions, LANE_POSITIONS)
        for chunk in chunks:
            rows = [
                Row(i - chunk.start, _stream_key(sampling, prompts[i], k), sampling.temperature, sampling.max_tokens)
                for i in chunk
                for k in range(n)
            ]
            decode(self.loaded.model, [encoded[i] for i in chunk], rows, self.loaded.eos)
            for r, row in enumerate(rows):
                yield Rollout(
                    task_id=prompts[chunk[r // n]].task_id,
                    index=r % n,
                    policy_id=self.id,
                    completion=self.loaded.decode(row.token_ids),
                    stop="eos" if row.finished else "length",
                    token_ids=tuple(row.token_ids),
                    logprobs=tuple(row.logprobs),
                )


def _stream_key(sampling: Sampling, prompt: Prompt, index: int) -> str:
    return f"{sampling.seed}/{prompt.task_id}/{index}"
