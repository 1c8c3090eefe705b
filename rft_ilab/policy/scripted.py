"""A policy that says what it is told: for tests and for documentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rft_ilab.types import Prompt, Rollout, Sampling, digest


class ScriptedPolicy:
    """``answer(prompt, index)`` gives the completion of every rollout; no model, no randomness."""

    def __init__(self, answer: Callable[[Prompt, int], str], name: str = "scripted") -> None:
        self._answer = answer
        self.id = f"scripted:{digest(name)[:12]}"
        self.calls = 0

    def sample(self, prompts: Sequence[Prompt], n: int, sampling: Sampling) -> Iterator[Rollout]:
        for prompt in prompts:
            for index in range(n):
                self.calls += 1
                yield Rollout(
                    task_id=prompt.task_id,
                    index=index,
                    policy_id=self.id,
                    completion=self._answer(prompt, index),
                    stop="eos",
                )
