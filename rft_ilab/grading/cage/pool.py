"""Warm fork servers.

They are started when first needed, restarted when dead, and end with our process: at exit, and by themselves when they
lose it. A fork of our process starts its own. Any number of threads may ask for children at the same time.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections.abc import Iterator

from rft_ilab.grading.cage.capabilities import Features
from rft_ilab.grading.cage.server import Server

MAX_SERVERS = 4


class Pool:
    """Fork servers of equal features."""

    def __init__(self, features: Features | None = None) -> None:
        self._features = features or Features()
        self._lock = threading.Lock()
        self._servers: list[Server] = []
        self._next = 0

    def server(self, index: int | None = None) -> Server:
        """A living server: the given one, or each in its turn of those that run. Raises SandboxError."""
        with self._lock:
            if index is None:
                self._next += 1
                index = self._next % max(1, len(self._servers))
            index %= MAX_SERVERS
            while len(self._servers) <= index:
                self._servers.append(Server(self._features))
            if not self._servers[index].alive():
                self._servers[index].close()
                self._servers[index] = Server(self._features)
            return self._servers[index]

    def running(self) -> list[Server]:
        return list(self._servers)

    def close(self) -> None:
        with self._lock:
            servers, self._servers = self._servers, []
        for server in servers:
            server.close()

    def abandon(self) -> None:
        self._lock = threading.Lock()  # another thread may have held it at the fork
        servers, self._servers = self._servers, []
        for server in servers:
            server.abandon()


_pool = Pool()


def default() -> Pool:
    return _pool


@contextlib.contextmanager
def simulated(features: Features) -> Iterator[Pool]:
    """For tests: a pool of servers as on a lesser machine."""
    global _pool
    before, _pool = _pool, Pool(features)
    try:
        yield _pool
    finally:
        ours, _pool = _pool, before
        ours.close()


atexit.register(lambda: _pool.close())
os.register_at_fork(after_in_child=lambda: _pool.abandon())


def workers() -> int:
    """How many children are worth running at the same time."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MAX_SERVERS, usable))
