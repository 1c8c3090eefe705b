"""Training by several processes that ``torchrun`` started: the first does what one alone would, the others follow.

A follower waits for the data set, copies the state to resume from, and runs the same stage in a directory of its own,
which is thrown away: it decides what the first one decides, since both see the same rollouts and sums of gradients.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# What ``torchrun`` sets for every process that it starts.
MARK = "TORCHELASTIC_RUN_ID"


@contextmanager
def group() -> Iterator[int]:
    """Within, all processes of ``torchrun`` are one group; yields the rank of this one, 0 where there is one alone."""
    if MARK not in os.environ:
        yield 0
        return
    from rft_ilab.rl import parallel

    with parallel.joined():
        yield parallel.rank()


def meet() -> None:
    """Wait until every process has come here."""
    if MARK in os.environ:
        from rft_ilab.rl import parallel

        parallel.wait()


def follow(run: Path, train: Callable[[Path], None]) -> None:
    """What a follower does: ``train`` in a copy of the run's state. The run must be on a disk that all can read."""
    meet()  # the data set is there
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory)
        if (run / "rl").exists():
            shutil.copytree(run / "rl", copy / "rl", ignore=shutil.ignore_patterns("tensorboard", "trackers", "wandb"))
        meet()  # nobody changes it before everybody has it
        train(copy)
