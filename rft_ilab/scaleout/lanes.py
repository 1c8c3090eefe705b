"""Threads for work that may take long, shared so that nobody's slow work keeps others waiting.

Work is queued under a key (here: its grader). Keys get threads in turn, and one key at most ``share`` of them, so that
a slow grader leaves the rest to others however many clients ask for it.

Not covered: somebody who spreads slow work over many keys.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Gone(Exception):
    """Whoever asked has left before the work was begun."""


class Lanes:
    """At most ``threads`` pieces of work at a time, ``share`` of them of one key. Belongs to one event loop."""

    def __init__(self, threads: int, share: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="grading")
        self._free, self._share = threads, share
        self._running: Counter[Hashable] = Counter()
        self._waiting: dict[Hashable, deque[asyncio.Future[None]]] = {}

    async def run(self, key: Hashable, work: Callable[[], T], gone: Callable[[], Awaitable[object]]) -> T:
        """What ``work`` returns, which runs in a thread when it is its turn.

        While it waits, ``gone`` is awaited, too; if that ends first, nothing is run. Raises Gone then.
        """
        if self._free == 0 or self._running[key] >= self._share or key in self._waiting:
            await self._turn(key, gone)
        else:
            self._take(key)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        finally:
            self._free += 1
            self._running[key] -= 1
            if not self._running[key]:
                del self._running[key]
            self._call_next()

    def _take(self, key: Hashable) -> None:
        self._free -= 1
        self._running[key] += 1

    async def _turn(self, key: Hashable, gone: Callable[[], Awaitable[object]]) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append(turn)
        left = asyncio.ensure_future(gone())
        try:
            await asyncio.wait((turn, left), return_when=asyncio.FIRST_COMPLETED)
        finally:
            left.cancel()
            if not turn.done():
                self._leave(key, turn)
        if turn.cancelled():
            raise Gone

    def _leave(self, key: Hashable, turn: asyncio.Future[None]) -> None:
        turn.cancel()
        queue = self._waiting[key]
        queue.remove(turn)
        if not queue:
            del self._waiting[key]

    def _call_next(self) -> None:
        """Give free threads to keys in the order in which they came; a key that got one goes to the end."""
        for key in list(self._waiting):
            if self._free == 0:
                return
            if self._running[key] < self._share:
                queue = self._waiting.pop(key)
                self._take(key)
                queue.popleft().set_result(None)
                if queue:
                    self._waiting[key] = queue
