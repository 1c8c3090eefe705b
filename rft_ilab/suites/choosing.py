"""Tasks with choices: the answer is what a model says of the likelihood of each, as JSON that people can read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rft_ilab.errors import PolicyError
from rft_ilab.policy.local.lazy import LazyPolicy
from rft_ilab.types import Policy, Prompt, Rollout, Sampling

DIGITS = 6


class Chooser:
    """A policy whose answer to a task is the likelihood of each of its ``choices`` (by task id) after the prompt.

    The answer is the same whatever the sampling; ``n`` of them are copies. Raises PolicyError for a policy that is not
    local: servers of chat completions do not tell the likelihood of a text of ours.
    """

    def __init__(self, policy: Policy, choices: Mapping[str, tuple[str, ...]]) -> None:
        # A lazy one would be loaded by the second question.
        if not (isinstance(policy, LazyPolicy) or hasattr(policy, "loaded")):
            raise PolicyError("a task with choices needs a model in this process", fix="leave out that suite")
        self._policy: Any = policy
        self._choices = choices
        self.id = f"{policy.id}:likelihood"

    def sample(self, prompts: Sequence[Prompt], n: int, sampling: Sampling) -> Iterator[Rollout]:
        """``n`` equal rollouts of every prompt. Raises PolicyError for a prompt that is too long."""
        from rft_ilab.policy.local.likelihood import likelihoods

        several = [self._choices[prompt.task_id] for prompt in prompts]
        found = likelihoods(self._policy.loaded, prompts, several)
        for prompt, choices, scores in zip(prompts, several, found, strict=True):
            text = write_answer(choices, scores)
            for index in range(n):
                yield Rollout(task_id=prompt.task_id, index=index, policy_id=self.id, completion=text, stop="eos")


def write_answer(choices: Sequence[str], scores: Sequence[tuple[float, bool]]) -> str:
    """
    >>> write_answer((" red", " blue"), [(-2.0, False), (-0.5, True)])
    '{"likeliest": " blue", "log_likelihoods": [-2.0, -0.5], "greedy": [false, true]}'
    """
    best = max(range(len(scores)), key=lambda i: scores[i][0])
    told = {
        "likeliest": choices[best],
        "log_likelihoods": [round(score, DIGITS) for score, _ in scores],
        "greedy": [greedy for _, greedy in scores],
    }
    return json.dumps(told, ensure_ascii=False)
