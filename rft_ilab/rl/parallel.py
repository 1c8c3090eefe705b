"""Data parallelism: several processes train one model, each sampling, grading and differentiating its share.

Started by ``torchrun``, whose environment variables say which process is which; without them there is one process and
nothing here does anything. Every process holds the whole model, draws the same tasks, and gets everybody's graded
rollouts and the sum of all gradients, so that all decide and update alike. Only the first one writes the run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

from rft_ilab.rollouts import Graded
from rft_ilab.types import Task

# The others wait while the first makes the data set.
PATIENCE = timedelta(days=2)

T = TypeVar("T")

_alone = False


def size() -> int:
    """Number of processes that work together."""
    return distributed.get_world_size() if distributed.is_initialized() and not _alone else 1


def rank() -> int:
    """Number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() and not _alone else 0


@contextmanager
def alone() -> Iterator[None]:
    """Within, this process waits for no other: what the first one does when the others have left."""
    global _alone
    _alone = True
    try:
        yield
    finally:
        _alone = False


@contextmanager
def joined() -> Iterator[None]:
    """Within, the processes that ``torchrun`` started are one group: nccl where there are GPUs, else gloo."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or distributed.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def share(items: Sequence[T]) -> Sequence[T]:
    """Every ``size()``-th item, this process's own."""
    return items[rank() :: size()]


def stretch(items: Sequence[T]) -> Sequence[T]:
    """This process's part of ``items`` in one piece, so that neighbours stay together."""
    n, world, mine = len(items), size(), rank()
    return items[mine * n // world : (mine + 1) * n // world]


def wait() -> None:
    """Until every process is here."""
    if size() > 1:
        distributed.barrier()


def anyone(flag: bool) -> bool:
    """True if it is true in any process."""
    if size() == 1:
        return flag
    found = torch.tensor([int(flag)], device=_device())
    distributed.all_reduce(found, op=distributed.ReduceOp.MAX)
    return bool(found.item())


def add_up(numbers: Sequence[float]) -> list[float]:
    """Sums over all processes, number by number, in float64."""
    if size() == 1:
        return list(numbers)
    found = torch.tensor(list(numbers), dtype=torch.float64, device=_device())
    distributed.all_reduce(found)
    total: list[float] = found.tolist()
    return total


@torch.no_grad()
def add_gradients(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Replace every gradient by its sum over all processes, in one message; a process without any adds zeros."""
    if size() == 1:
        return
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
    distributed.all_reduce(flat)
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = part.view_as(parameter).clone()


def exchange(mine: Sequence[Sequence[Graded]], tasks: Sequence[Task]) -> list[list[Graded]]:
    """Everybody's groups, in the order of ``tasks``; ``mine`` are those of ``share(tasks)``.

    As JSON, whose numbers are read back as they were: nothing from another machine is unpickled.
    """
    if size() == 1:
        return [list(group) for group in mine]
    rows = [[g.as_dict() for g in group] for group in mine]
    found: list[list[Graded]] = [[] for _ in tasks]
    for process, text in enumerate(_gather(json.dumps(rows).encode())):
        places = range(process, len(tasks), size())
        for place, group in zip(places, json.loads(text), strict=True):
            found[place] = [Graded.of(tasks[place], row) for row in group]
    return found


def _gather(text: bytes) -> list[bytes]:
    """Everybody's bytes, by rank."""
    device = _device()
    length = torch.tensor([len(text)], device=device)
    lengths = [torch.zeros_like(length) for _ in range(size())]
    distributed.all_gather(lengths, length)
    most = int(max(lengths))
    padded = torch.zeros(most, dtype=torch.uint8, device=device)
    padded[: len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8).to(device)
    parts = [torch.zeros_like(padded) for _ in range(size())]
    distributed.all_gather(parts, padded)
    return [bytes(part[: int(n)].cpu().numpy()) for part, n in zip(parts, lengths, strict=True)]


def _device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
