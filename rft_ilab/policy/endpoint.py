"""Any OpenAI-compatible server as a policy: bounded, patient, and no answer is paid for twice.

Calls run in windows of ``WINDOW`` x concurrency, so memory does not grow with the number of prompts. An answer is
written to the cache the moment it arrives: a killed process loses the calls in flight, at most ``concurrency``. Several
servers of one model share the calls (:mod:`rft_ilab.policy.servers`); which of them answers does not show in a rollout.

Not covered: a bound over samplings that run at the same time (in several threads), and streaming, so a server must
answer, or send white space, before ``timeout_s`` of silence.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rft_ilab.client import Client, Patience, RemoteError, plain_url
from rft_ilab.errors import PolicyError
from rft_ilab.policy.replies import Completion, read_completion, read_models
from rft_ilab.policy.servers import Servers
from rft_ilab.store import Cache
from rft_ilab.types import Prompt, Rollout, Sampling, digest

WINDOW = 8
RETRIES = 6
BACKOFF_S = 0.5
MAX_BACKOFF_S = 60.0
# A server that sends white space while it thinks is alive, but not for ever.
CALL_TIMEOUTS = 10


@dataclass(slots=True)
class Usage:
    """What sampling cost so far. Tokens are those that the server counts (its ``usage``), 0 if it does not.

    ``calls`` were answered, ``retries`` are further tries, ``cached`` answers cost nothing; ``seconds`` is the time
    spent waiting for the server.
    """

    calls: int = 0
    retries: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0


class EndpointPolicy:
    """Chat completions of one model behind ``url`` (ends in ``/v1``); the key is ``OPENAI_API_KEY``.

    ``url`` may be several, with commas between them: servers of the same model. ``model`` None is the first that the
    server lists. At most ``concurrency`` calls for each server are in flight; one that hears nothing for ``timeout_s``
    seconds is tried again. Answers in ``cache`` are not asked again.
    Raises PolicyError if no model is there, servers differ or an argument is of no use.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        cache: Cache | None = None,
        concurrency: int = 16,
        timeout_s: float = 120.0,
    ) -> None:
        if concurrency < 1 or not timeout_s > 0:
            raise PolicyError(f"concurrency {concurrency} and timeout {timeout_s} s must be above 0", where=url)
        urls = [_usable(each.strip()) for each in url.split(",")]
        self.url = ",".join(sorted(set(urls)))
        self._headers = _key()
        self._cache = cache
        self._concurrency = concurrency * len(set(urls))
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self.usage = Usage()
        self._servers = Servers(
            self.url.split(","), self._headers, tries=RETRIES + 1, backoff_s=BACKOFF_S, max_backoff_s=MAX_BACKOFF_S
        )
        self.model = self._model(model)
        self.id = f"endpoint:{self.url}:{self.model}"

    @property
    def answered(self) -> dict[str, int]:
        """How many calls each server answered."""
        return {server.url: server.answered for server in self._servers.all}

    def sample(self, prompts: Sequence[Prompt], n: int, sampling: Sampling) -> Iterator[Rollout]:
        """``n`` rollouts of every prompt, in order of prompt and index whatever the order of arrival.

        Prompts with the same messages get the same answers. Raises PolicyError when a call still fails after retries;
        with a cache, what was answered until then is not asked again.
        """
        # A connection to SQLite belongs to its thread, and callers sample in several.
        cache = Cache(self._cache.path) if self._cache else None
        calls = ((prompt, index) for prompt in prompts for index in range(n))
        while window := list(itertools.islice(calls, WINDOW * self._concurrency)):
            keys = [self._call_key(prompt, index, sampling) for prompt, index in window]
            answers = {key: kept for key in keys if (kept := cache.get(key)) is not None} if cache else {}
            with self._lock:
                self.usage.cached += sum(key in answers for key in keys)
            missing = {key: call for key, call in zip(keys, window, strict=True) if key not in answers}
            if missing:
                asyncio.run(self._answer(missing, sampling, answers, cache))
            for key, (prompt, index) in zip(keys, window, strict=True):
                text, stop = answers[key]
                yield Rollout(task_id=prompt.task_id, index=index, policy_id=self.id, completion=text, stop=stop)

    async def _answer(
        self, calls: Mapping[str, tuple[Prompt, int]], sampling: Sampling, answers: dict[str, Any], cache: Cache | None
    ) -> None:
        """Fill ``answers`` for every key of ``calls``. After a failure no call is begun; those in flight may end."""
        waiting = iter(calls.items())
        used = Usage()
        started = time.monotonic()

        async def work(client: Client) -> None:
            for key, (prompt, index) in waiting:
                body = self._body(prompt, index, sampling)
                got = await self._ask(client, body)
                if cache:
                    cache.put([(key, [got.text, got.stop])])
                answers[key] = (got.text, got.stop)
                used.calls += 1
                used.prompt_tokens += got.prompt_tokens
                used.completion_tokens += got.completion_tokens

        async with Client(self._patience()) as client:
            workers = [asyncio.ensure_future(work(client)) for _ in range(min(self._concurrency, len(calls)))]
            try:
                _, pending = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
                if pending:
                    for _ in waiting:
                        pass
                    await asyncio.wait(pending, timeout=self._timeout_s)
            finally:
                ended = [worker for worker in workers if worker.done()]
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
                used.seconds, used.retries = time.monotonic() - started, client.retries
                self._spend(used)
        for error in [worker.exception() for worker in ended]:
            if isinstance(error, RemoteError):
                tries = f" after {error.tries} tries" if error.tries > 1 else ""
                fix = "what was answered is kept: start the same command again" if cache else ""
                raise PolicyError(f"sampling failed{tries}: {error}", where=self.url, fix=fix) from error
            if error is not None:
                raise error

    async def _ask(self, client: Client, body: dict[str, Any]) -> Completion:
        if self._several:
            return await self._servers.ask(client, body, read_completion)
        return await client.ask(f"{self.url}/chat/completions", body, self._headers, read_completion)

    @property
    def _several(self) -> bool:
        return len(self._servers.all) > 1

    def _patience(self) -> Patience:
        return Patience(
            concurrency=self._concurrency,
            retries=0 if self._several else RETRIES,
            backoff_s=BACKOFF_S,
            max_backoff_s=MAX_BACKOFF_S,
            timeout_s=self._timeout_s,
            call_s=CALL_TIMEOUTS * self._timeout_s,
            deadline_s=None,
            retry_unreadable=True,
        )

    def _body(self, prompt: Prompt, index: int, s: Sampling) -> dict[str, Any]:
        messages = [m.as_dict() for m in prompt.messages]
        return {
            "model": self.model,
            "messages": messages,
            "temperature": s.temperature,
            "max_tokens": s.max_tokens,
            "seed": call_seed(messages, s, index),
        }

    def _call_key(self, prompt: Prompt, index: int, sampling: Sampling) -> str:
        return digest(["chat", self.id, self._body(prompt, index, sampling), index])

    def _spend(self, used: Usage) -> None:
        with self._lock:
            for name in Usage.__slots__:
                setattr(self.usage, name, getattr(self.usage, name) + getattr(used, name))

    def _model(self, wanted: str | None) -> str:
        """The model to ask for. A single server is believed to have the one that is wanted."""
        if wanted and not self._several:
            return wanted

        async def ask() -> str:
            retries = min(RETRIES, 1)
            patience = Patience(retries=retries, timeout_s=min(30.0, self._timeout_s), retry_unreadable=True)
            async with Client(patience) as client:
                if self._several:
                    return await self._servers.agree(client, wanted)
                return (await client.ask(f"{self.url}/models", None, self._headers, read_models))[0]

        try:
            return asyncio.run(ask())
        except RemoteError as error:
            raise PolicyError(
                f"no model answers there: {error}", where=self.url, fix="is the URL right (.../v1)?"
            ) from error


def call_seed(messages: Sequence[Mapping[str, str]], sampling: Sampling, index: int) -> int:
    """The seed of one call, from 0 to 2^31 - 1.

    A server that honours seeds would give the same answer n times; and with one seed for all prompts its luck would be
    the same with all of them, so that answers that should be independent agree by chance.
    """
    return int(digest([messages, sampling.seed, index])[:8], 16) >> 1


def _usable(url: str) -> str:
    try:
        return plain_url(url)
    except ValueError as error:
        raise PolicyError(f"the URL {error}", where=url, fix="write http(s)://host/v1, without password") from error


def _key() -> dict[str, str]:
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not re.fullmatch(r"[\x21-\x7e]*", key):
        raise PolicyError("OPENAI_API_KEY is not printable ASCII", fix="set it to the key alone")
    return {"authorization": f"Bearer {key}"} if key else {}
