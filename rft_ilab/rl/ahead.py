"""Sampling the next step's batch while this one is trained on (one step off-policy, as in arXiv 2410.18252).

Both use the weights before the update, so neither waits for the other and nothing is copied; the importance weight of
trainer over sampler then also covers what the update changed. On two cores a thread each does more than both on one
part after the other: products of few rows gain little from a second thread (``docs/training.md`` has figures).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

from rft_ilab.rl import parallel


def cores() -> int:
    """Threads that this process may compute with on its processor; 1 where others take part in its collectives."""
    return 1 if parallel.size() > 1 or torch.cuda.is_available() else torch.get_num_threads()


@contextmanager
def meanwhile(work: Callable[[], None], *, together: bool) -> Iterator[None]:
    """Do ``work`` beside the body, each on half of the threads; one after the other unless ``together`` is possible.

    Either way ``work`` is over at the end, and what it raises is raised there.
    """
    if not together or cores() < 2:
        work()
        yield
        return
    threads = torch.get_num_threads()
    # A new thread takes over the number that is set when it first computes.
    torch.set_num_threads(max(1, threads // 2))
    try:
        with ThreadPoolExecutor(1, "sampling") as pool:
            done = pool.submit(work)
            yield
            done.result()
    finally:
        torch.set_num_threads(threads)
