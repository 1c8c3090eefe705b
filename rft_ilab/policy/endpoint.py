"""Any OpenAI-compatible server as a policy: asynchronous, bounded, patient with 429 and 5xx.

What is not covered yet: several servers with failover.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from typing import Any

from rft_ilab.errors import PolicyError
from rft_ilab.types import Prompt, Rollout, Sampling

CONCURRENCY = 16
CHUNK = 64
RETRIES = 6
TIMEOUT_S = 120.0


class EndpointPolicy:
    """Chat completions of one model behind ``url`` (ends in ``/v1``); the key is ``OPENAI_API_KEY``."""

    def __init__(self, url: str, model: str | None = None) -> None:
        from openai import OpenAI, OpenAIError

        self.url = url.rstrip("/")
        self._key = os.environ.get("OPENAI_API_KEY") or "none"
        if model is None:
            try:
                with OpenAI(base_url=self.url, api_key=self._key, timeout=30, max_retries=1) as client:
                    model = next(iter(client.models.list())).id
            except (OpenAIError, StopIteration) as error:
                raise PolicyError(
                    f"no model answers there: {error or 'empty list'}", where=self.url, fix="is the URL right (.../v1)?"
                ) from error
        self.model = model
        self.id = f"endpoint:{self.url}:{model}"

    def sample(self, prompts: Sequence[Prompt], n: int, sampling: Sampling) -> Iterator[Rollout]:
        """``n`` rollouts of every prompt, in order, yielded in chunks so that callers can save as they go.

        Raises PolicyError when a call still fails after retries with back-off.
        """
        for start in range(0, len(prompts), CHUNK):
            yield from asyncio.run(self._sample_chunk(prompts[start : start + CHUNK], n, sampling))

    async def _sample_chunk(self, prompts: Sequence[Prompt], n: int, sampling: Sampling) -> list[Rollout]:
        from openai import AsyncOpenAI, OpenAIError

        gate = asyncio.Semaphore(CONCURRENCY)
        options = {"base_url": self.url, "api_key": self._key, "max_retries": RETRIES, "timeout": TIMEOUT_S}
        async with AsyncOpenAI(**options) as client:  # type: ignore[arg-type]
            calls = [self._one(client, gate, p, k, sampling) for p in prompts for k in range(n)]
            try:
                return list(await asyncio.gather(*calls))
            except OpenAIError as error:
                raise PolicyError(f"sampling failed after {RETRIES} retries: {error}", where=self.url) from error

    async def _one(self, client: Any, gate: asyncio.Semaphore, prompt: Prompt, index: int, s: Sampling) -> Rollout:
        async with gate:
            answer = await client.chat.completions.create(
                model=self.model,
                messages=[m.as_dict() for m in prompt.messages],
                temperature=s.temperature,
                max_tokens=s.max_tokens,
                # Distinct per rollout: a server that honours seeds would otherwise answer n times the same.
                seed=s.seed * 1_000_003 + index,
            )
        choice = answer.choices[0]
        return Rollout(
            task_id=prompt.task_id,
            index=index,
            policy_id=self.id,
            completion=choice.message.content or "",
            stop="length" if choice.finish_reason == "length" else "eos",
        )
