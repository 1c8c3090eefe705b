"""This side of bench_rl.py: GRPO steps of the engine here, each with what it cost."""

from __future__ import annotations

import dataclasses
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from rft_ilab.types import Grade, Message, Rollout, Skill, Task

# Prompts with their references, as lines of JSON: {"prompt": [message, ...], "reference": "..."}.
Rows = Sequence[dict[str, Any]]
BATCH, GROUP, RANK = 8, 8, 16
# Token ids of (prompt, answer).
Said = list[tuple[tuple[int, ...], tuple[int, ...]]]


class Reward:
    """The peer's rewards, as a grader; and ``halves``, which gives signal whatever is said."""

    def __init__(self, digest: str) -> None:
        self.digest = digest

    def grade(self, pairs: Sequence[tuple[Task, Rollout]]) -> list[Grade]:
        return [self._one(task, rollout) for task, rollout in pairs]

    def _one(self, task: Task, rollout: Rollout) -> Grade:
        text = rollout.completion
        if self.digest == "halves":
            score = float(rollout.index % 2)
        elif self.digest == "equal":
            score = float(text.strip() == task.reference)
        else:
            score = text.count("e") / max(1, len(text))
        return Grade(
            task_id=task.id, index=rollout.index, policy_id=rollout.policy_id, score=score, passed=score >= 1.0
        )


class Bench:
    """A new adapter on ``loaded``, trained on the prompts of ``rows``.

    ``exact``: every answer has ``max_tokens`` tokens, because nothing ends it earlier.
    """

    def __init__(
        self,
        loaded: Any,
        rows: Rows,
        max_tokens: int,
        reward: str,
        *,
        group: int = GROUP,
        exact: bool = False,
        async_steps: Literal[0, 1] = 0,
        clock: Callable[[], float] = time.process_time,
    ) -> None:
        from rft_ilab.config import SkillSettings, TrainSettings
        from rft_ilab.rl import groups, grpo
        from rft_ilab.rl.engine import Engine
        from rft_ilab.rl.progress import Progress
        from rft_ilab.rollouts import Environment

        # The peer samples as many rollouts as it was told to and no more.
        groups.REFILLS = 0
        # A step times its parts by the wall clock; here by this one, which is the processor's unless said.
        grpo.time = SimpleNamespace(monotonic=clock)  # type: ignore[assignment]
        tasks = [
            Task(
                id=f"t{i}", skill="bench", messages=tuple(Message(m["role"], m["content"]) for m in row["prompt"]),
                reference=row["reference"], item={}, group=f"g{i}", split="train",
            )
            for i, row in enumerate(rows)
        ]  # fmt: skip
        skill = Skill(name="bench", directory=Path(), description="", seeds=(), grader={}, grader_digest="")
        self.settings = TrainSettings(
            prompts=BATCH, group_size=group, steps=1000, warmup_steps=0, guidance=0.0, balanced=0.0, learning_rate=2e-4,
            lora_rank=RANK, lora_alpha=2 * RANK, async_steps=async_steps,
        )  # fmt: skip
        loaded = dataclasses.replace(loaded, eos=frozenset()) if exact else loaded
        self.engine = Engine(loaded, self.settings)
        self.environment = Environment.of(skill, tasks, Reward(reward), SkillSettings(max_tokens=max_tokens))
        self.progress = Progress()
        self.model = loaded.model

    def step(self) -> dict[str, Any]:
        """One GRPO step. Seconds of wall clock and processor, of the processor's those of each part, and its work."""
        from rft_ilab.rl import grpo

        wall, cpu = time.monotonic(), time.process_time()
        with tempfile.TemporaryDirectory() as log, watched() as said:
            row = grpo.grpo_step(self.engine, [self.environment], self.settings, self.progress, Path(log))
        spent = {"wall_s": time.monotonic() - wall, "cpu_s": time.process_time() - cpu}
        spent |= {"decode_s": row["sample_s"], "train_s": row["train_s"], "decode_flop": self._decode_flop(said)}
        if "nodes" in row:
            # Forward, and backward to the inputs: the weights are frozen. The vocabulary head where a token is
            # predicted. What LoRA costs is left out of the work that counts, not out of the time.
            spent["train_flop"] = 2 * (position_flop(self.model) * row["nodes"] + self._head * row["predictions"])
        spent["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        longest = max(len(prompt) for prompt, _ in said) + max(len(answer) for _, answer in said)
        sizes = {
            "padded_tokens": len(said) * longest,
            "prompt_tokens": sum(len(prompt) for prompt, _ in said) / len(said),
            "answer_tokens": sum(len(answer) for _, answer in said) / len(said),
        }
        return spent | sizes | {"reward": row["reward"], "row": row}

    @property
    def _head(self) -> float:
        return 2.0 * float(self.model.get_output_embeddings().weight.numel())

    def _decode_flop(self, said: Said) -> float:
        """What sampling cannot do without: each distinct prefix once, the vocabulary head where a token is drawn."""
        from rft_ilab.policy.local.trie import build_trie

        trie = build_trie([prompt + answer[:-1] for prompt, answer in said])
        drawn = {(prompt, answer[:k]) for prompt, answer in said for k in range(len(answer))}
        return position_flop(self.model) * len(trie) + self._head * len(drawn)


@contextmanager
def watched() -> Iterator[Said]:
    """Within, whatever is sampled is added to the list."""
    from rft_ilab.policy.local.sampler import LocalPolicy

    said: Said = []
    sample = LocalPolicy.sample

    def noted(policy: Any, prompts: Any, n: int, sampling: Any) -> Any:
        encoded = {p.task_id: tuple(policy.loaded.encode_prompt(p.messages)) for p in prompts}
        for rollout in sample(policy, prompts, n, sampling):
            said.append((encoded[rollout.task_id], tuple(rollout.token_ids or ())))
            yield rollout

    LocalPolicy.sample = noted  # type: ignore[method-assign,assignment]
    try:
        yield said
    finally:
        LocalPolicy.sample = sample  # type: ignore[method-assign]


def position_flop(model: Any) -> float:
    """Floating-point operations of one position in the linear layers of the decoder."""
    linear = ("Linear", "LoraLinear", "PackedLinear")
    return 2.0 * sum(m.weight.numel() for m in model.get_decoder().modules() if type(m).__name__ in linear)


def matmul_limit(dtype: Any) -> float:
    """Operations a second of a large matrix product of the model's shape, one thread's best of 20."""
    import torch

    x, w = torch.randn(512, 576).to(dtype), torch.randn(1536, 576).to(dtype)
    best = 0.0
    for _ in range(20):
        started = time.process_time()
        for _ in range(10):
            torch.nn.functional.linear(x, w)
        best = max(best, 10 * 2.0 * x.numel() * w.shape[0] / (time.process_time() - started))
    return best


def answer_lines(
    model: str, prompts: Path, max_tokens: int, reward: str, dtype_name: str, async_steps: Literal[0, 1] = 0
) -> None:
    """Answer every line on stdin with one step, as the peer does."""
    import torch

    from rft_ilab.policy.local.model import load_model

    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}.get(dtype_name)
    rows = [json.loads(line) for line in prompts.read_text().splitlines()]
    bench = Bench(load_model(Path(model), dtype), rows, max_tokens, reward, async_steps=async_steps)
    limit = matmul_limit(bench.model.dtype)
    while True:
        print(json.dumps({"ready": bench.progress.step, "dtype": str(bench.model.dtype)}), flush=True)
        if not sys.stdin.readline().strip():
            return
        found = bench.step()
        for part in ("decode", "train"):
            if f"{part}_flop" in found:
                found[f"{part}_share"] = found[f"{part}_flop"] / found[f"{part}_s"] / limit
        print(json.dumps(found), flush=True)
