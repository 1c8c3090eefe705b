"""The pipeline's own OpenAI client as a policy: an answer is cached the moment it arrives, and never asked for twice.

Not :class:`rft_ilab.policy.endpoint.EndpointPolicy`, which makes its own connection: the key, certificates and proxies
that ilab gave to the client cannot be read out of it. The client tries again by itself after a lost connection,
silence, 408, 409, 429 and 5xx, with back-off and ``Retry-After``; an answer that cannot be read is tried again here.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import Any

import openai

from rft_ilab.errors import PolicyError
from rft_ilab.policy.endpoint import Completion, call_seed, read_completion
from rft_ilab.store import Cache
from rft_ilab.types import Prompt, Rollout, Sampling, digest

RETRIES = 6
BACKOFF_S = 0.5
TIMEOUT_S = 120.0
WINDOW = 8


class ClientPolicy:
    """Chat completions of ``model`` (implements :class:`rft_ilab.types.Policy`), ``concurrency`` calls at a time.

    The server needs ``/v1/chat/completions``.
    """

    def __init__(self, client: openai.OpenAI, model: str, *, cache: Cache, concurrency: int) -> None:
        self._client = client.with_options(max_retries=RETRIES, timeout=TIMEOUT_S)
        self._url = str(client.base_url).rstrip("/")
        self._model = model
        self._cache = cache
        self._concurrency = concurrency
        self.id = f"endpoint:{self._url}:{model}"

    def sample(self, prompts: Sequence[Prompt], n: int, sampling: Sampling) -> Iterator[Rollout]:
        """``n`` rollouts of every prompt, in order of prompt and index whatever the order of arrival.

        Raises PolicyError when a call still fails after retries; what was answered until then is not asked again.
        """
        calls = ((prompt, index) for prompt in prompts for index in range(n))
        while window := list(itertools.islice(calls, WINDOW * self._concurrency)):
            bodies = [self._body(prompt, index, sampling) for prompt, index in window]
            keys = [digest(["chat", self.id, body]) for body in bodies]
            answers = {key: kept for key in keys if (kept := self._cache.get(key)) is not None}
            self._ask_all({k: b for k, b in zip(keys, bodies, strict=True) if k not in answers}, answers)
            for key, (prompt, index) in zip(keys, window, strict=True):
                text, stop = answers[key]
                yield Rollout(task_id=prompt.task_id, index=index, policy_id=self.id, completion=text, stop=stop)

    def _ask_all(self, bodies: Mapping[str, dict[str, Any]], answers: dict[str, Any]) -> None:
        """Fill ``answers``. After a failure no call is begun; those in flight may end, since they are paid for."""

        def keep(key: str, call: Future[Completion]) -> None:
            answers[key] = [call.result().text, call.result().stop]
            self._cache.put([(key, answers[key])])

        with ThreadPoolExecutor(self._concurrency) as pool:
            futures = {pool.submit(self._ask, body): key for key, body in bodies.items()}
            try:
                for call in as_completed(futures):
                    keep(futures[call], call)
            except (openai.OpenAIError, ValueError) as error:
                pool.shutdown(cancel_futures=True)
                for call, key in futures.items():
                    if key not in answers and not call.cancelled() and call.exception() is None:
                        keep(key, call)
                fix = "what was answered is kept: start the same command again"
                said = " ".join(str(error).split())
                raise PolicyError(f"asking {self._model} failed: {said}", where=self._url, fix=fix) from error
            finally:
                pool.shutdown(cancel_futures=True)

    def _ask(self, body: Mapping[str, Any]) -> Completion:
        """Raises openai.OpenAIError, and ValueError if the answer is still none after retries."""
        for attempt in range(RETRIES):
            try:
                return read_completion(self._call(body))
            except ValueError:
                time.sleep(BACKOFF_S * 2**attempt)
        return read_completion(self._call(body))

    def _call(self, body: Mapping[str, Any]) -> str:
        return self._client.chat.completions.with_raw_response.create(**body).text

    def _body(self, prompt: Prompt, index: int, s: Sampling) -> dict[str, Any]:
        messages = [m.as_dict() for m in prompt.messages]
        return {
            "model": self._model,
            "messages": messages,
            "temperature": s.temperature,
            "max_tokens": s.max_tokens,
            "seed": call_seed(messages, s, index),
        }
