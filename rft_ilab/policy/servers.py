"""Several OpenAI-compatible servers of one model as one: least outstanding calls first, and failover.

A call that a server does not answer goes to another, so a server that dies loses nothing. One that cannot be reached,
is silent, or fails several times in a row is left alone for a while, twice as long each time. One that could not be
reached is then asked for its models; if it serves the same one, it gets calls again. Only when a call has failed at
every try, or no server has come back after all waits, sampling ends; what was answered is in the cache.

Not covered: two servers that call different weights by the same name; servers are compared by what they list.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rft_ilab.client import Client, RemoteError
from rft_ilab.errors import PolicyError
from rft_ilab.policy.replies import read_models

# Failures in a row after which a server that does answer is left alone, too.
FAILURES = 3
# The longest that a server may take to list its models, in seconds.
LIST_S = 30.0

T = TypeVar("T")


@dataclass(slots=True)
class Server:
    """One of them, and how it fared. ``down_until``: until when it is left alone (monotonic clock); ``known``: that it
    serves the model."""

    url: str
    outstanding: int = 0
    answered: int = 0
    failures: int = 0
    down_until: float = 0.0
    known: bool = False
    problem: str = ""


class Servers:
    """The servers at ``urls``. ``backoff_s`` is the first time that a failing one is left alone, ``max_backoff_s`` the
    longest; ``tries`` is how often a call may fail. May be used from several threads, each with its own event loop."""

    def __init__(
        self, urls: Sequence[str], headers: Mapping[str, str], *, tries: int, backoff_s: float, max_backoff_s: float
    ) -> None:
        self.all = [Server(url) for url in urls]
        self._headers, self._tries = headers, tries
        self._backoff_s, self._max_backoff_s = backoff_s, max_backoff_s
        self._lock = threading.Lock()
        self.model = ""

    async def agree(self, client: Client, model: str | None) -> str:
        """The model that all serve: ``model``, else the first that each lists.

        A server that does not answer now is checked when it does. Raises PolicyError if they differ, or none answers.
        """
        lists = await asyncio.gather(*(self._listed(client, server) for server in self.all), return_exceptions=True)
        first: Server | None = None
        for server, listed in zip(self.all, lists, strict=True):
            if isinstance(listed, RemoteError):
                self._failed(server, listed)
            elif isinstance(listed, BaseException):
                raise listed
            else:
                self.model = self.model or model or listed[0]
                self._check(server, listed if model else listed[:1], first)
                first = first or server
        if first is None:
            raise PolicyError(
                f"none of {len(self.all)} servers answers: {self._problems()}", fix="are the URLs right (.../v1)?"
            )
        return self.model

    async def ask(self, client: Client, body: Any, read: Callable[[str], T]) -> T:
        """A chat completion of whichever server answers. ``client`` tries once and leaves the rest to this.

        Raises RemoteError for a refusal, which every server would repeat, or if the call failed at every try, and
        PolicyError if a server that came back serves another model.
        """
        last: Server | None = None
        for attempt in range(self._tries):
            server = await self._next(last)
            try:
                if not server.known:
                    listed = await self._listed(client, server)
                    self._check(server, listed, None)
                answer = await client.ask(f"{server.url}/chat/completions", body, self._headers, read)
            except RemoteError as error:
                if not error.passing:
                    raise
                self._failed(server, error)
                client.retries += attempt + 1 < self._tries
                last = server
            else:
                self._succeeded(server)
                return answer
            finally:
                with self._lock:
                    server.outstanding -= 1
        raise RemoteError(f"no server answers this call: {self._problems()}", tries=self._tries)

    async def _next(self, last: Server | None) -> Server:
        """The server to ask, counted as outstanding; not the ``last`` if others are up. Waits while none is.

        One that comes back gets a single call until it has answered it. Raises RemoteError if none comes back.
        """
        while True:
            with self._lock:
                now = time.monotonic()
                up = [s for s in self.all if s.down_until <= now and not (s.failures and s.outstanding)]
                if up:
                    chosen = min(up, key=lambda s: (s is last, s.outstanding, s.answered))
                    chosen.outstanding += 1
                    return chosen
                if all(s.failures >= self._tries for s in self.all):
                    raise RemoteError(f"all servers are down: {self._problems()}", tries=self._tries)
                wait = min(max(s.down_until - now, 0.01) for s in self.all)
            await asyncio.sleep(wait)

    async def _listed(self, client: Client, server: Server) -> list[str]:
        try:
            async with asyncio.timeout(LIST_S):
                return await client.ask(f"{server.url}/models", None, self._headers, read_models)
        except TimeoutError as error:
            silent = RemoteError(f"no list of models within {LIST_S:g} s")
            silent.passing = True
            raise silent from error

    def _check(self, server: Server, listed: Sequence[str], other: Server | None) -> None:
        if self.model not in listed:
            elsewhere = f", unlike {other.url}" if other else ""
            raise PolicyError(
                f"serves {', '.join(listed)}, not {self.model}{elsewhere}",
                where=server.url,
                fix="all servers must serve the same model; name it with --endpoint-model if they list several",
            )
        server.known = True

    def _succeeded(self, server: Server) -> None:
        with self._lock:
            server.answered += 1
            server.failures, server.problem = 0, ""

    def _failed(self, server: Server, error: RemoteError) -> None:
        with self._lock:
            now = time.monotonic()
            server.problem = str(error)
            if error.status is None:
                server.known = False  # who knows what is started there in its place
            if server.down_until > now:
                return  # one of many calls that were in flight when it died
            server.failures += 1
            if error.status is None or server.failures >= FAILURES:
                pause = max(self._backoff_s * 2.0 ** min(server.failures - 1, 30), error.wait_s)
                server.down_until = now + min(self._max_backoff_s, pause)

    def _problems(self) -> str:
        return "; ".join(f"{s.url}: {s.problem}" for s in self.all if s.problem)
