"""The Parquet directory that ``--dataset_mixer_list DIR 1.0`` reads, and how long its prompts are.

Training tasks become ``train.parquet``, validation tasks ``test.parquet``; nothing of a test split leaves the project.
The directory's name has a digest of its rows, since Open-Instruct caches by path and number of rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

from rft_ilab.errors import RunError
from rft_ilab.rollouts import Environment
from rft_ilab.scaleout.openinstruct.plan import Data
from rft_ilab.store import write_atomic
from rft_ilab.synth.exports import ExportTask, export_open_instruct, export_task
from rft_ilab.types import Message

KNOWN_ANSWERS = 8  # of every skill, for the preflight call


def tasks_of(environments: Sequence[Environment]) -> list[ExportTask]:
    """All training and validation tasks, in the order of the skills."""
    return [
        export_task(e, task, source="authored" if task.origin == "authored" else task.origin, evidence=task.origin)
        for e in environments
        for task in (*e.split("train"), *e.split("val"))
    ]


def write_dataset(directory: Path, tasks: Sequence[ExportTask]) -> Path:
    """Write both files into a directory below ``directory``; returns it. Raises RunError if a split is empty."""
    if any(one.split == "test" for one in tasks):
        raise ValueError("a task of the test split must not be exported")
    train, val = ([one for one in tasks if one.split == split] for split in ("train", "val"))
    for name, part in (("training", train), ("validation", val)):
        if not part:
            raise RunError(f"there are no {name} tasks to export", fix="add tasks to the target's tasks.jsonl")
    return export_open_instruct(directory, train, val)


def measure(tasks: Sequence[ExportTask], count: Callable[[tuple[Message, ...]], int], response: int) -> Data:
    """``count``: tokens of a chat, as the model's template writes it."""
    lengths = [count(one.prompt) for one in tasks if one.split == "train"]
    return Data(rows=len(lengths), longest=max(lengths), mean=fmean(lengths), response=response)


def write_known_answers(path: Path, tasks: Sequence[ExportTask]) -> int:
    """Right answers for the preflight call: references of validation tasks, JSON Lines; returns how many."""
    rows: list[str] = []
    taken: dict[str, int] = {}
    for one in tasks:
        if one.split == "val" and taken.get(one.task.skill, 0) < KNOWN_ANSWERS:
            taken[one.task.skill] = taken.get(one.task.skill, 0) + 1
            row = {"label": one.label, "completion": one.task.reference, "passed": True}
            rows.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_atomic(path, "".join(rows))
    return len(rows)
