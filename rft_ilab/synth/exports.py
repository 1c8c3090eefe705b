"""Tasks with signal as prompt sets for other trainers. Prompts and right answers, no completions.

open-instruct-<digest>/  train.parquet, test.parquet: a directory for ``--dataset_mixer_list DIR 1.0``. The digest of
                         the rows is in its name: Open-Instruct caches by path and row count, and reuses old data
openai/<skill>/          train.jsonl, validation.jsonl, grader.json: the files of a reinforcement fine-tuning job
trl/                     train.jsonl, validation.jsonl: ``prompt`` is a chat, other columns reach reward functions
verl/                    train.parquet, validation.parquet: ``reward_model.ground_truth`` and ``extra_info``

What grades an answer (the item, the skill, the digest of its grader) goes along as JSON text, never as columns of its
own: Arrow would turn "4" into 4, and rows of two skills would have to agree on their fields. Validation rows come from
the val split; nothing of a test split leaves the project.

Not covered: a grader that OpenAI does not know (``label``, ``number`` and our other own types) does not run there as it
is; ``ilab rft export openai`` translates it or refuses (rft_ilab/scaleout/openai_job.py). For the others the grader
server answers.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rft_ilab.rollouts import Environment
from rft_ilab.skills.tasks import build_prompt
from rft_ilab.store import write_atomic, write_json
from rft_ilab.types import Message, Split, Task, digest

if TYPE_CHECKING:
    import pyarrow as pa

VERIFIER = "rft_ilab"  # the name under which Open-Instruct finds our verifier
DIGEST_LENGTH = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportTask:
    """A task with the prompt that is to be sent. ``pass_rate`` is that of the student, None if it was not asked."""

    task: Task
    prompt: tuple[Message, ...]
    grader: Mapping[str, Any]
    grader_digest: str
    split: Split
    source: str
    evidence: str
    pass_rate: float | None

    @property
    def messages(self) -> list[dict[str, str]]:
        return [turn.as_dict() for turn in self.prompt]

    @property
    def label(self) -> str:
        """All that is needed to grade an answer, as one text."""
        graded = {"skill": self.task.skill, "grader_digest": self.grader_digest, "item": dict(self.task.item)}
        return json.dumps(graded, ensure_ascii=False, sort_keys=True)

    @property
    def about(self) -> dict[str, Any]:
        return {"task_id": self.task.id, "skill": self.task.skill, "source": self.source, "evidence": self.evidence}


def export_task(
    environment: Environment, task: Task, *, source: str, evidence: str, pass_rate: float | None = None
) -> ExportTask:
    """A task with the prompt without demonstrations, which is what RL trains."""
    skill = environment.skill
    return ExportTask(
        task=task, prompt=build_prompt(skill, task, 0).messages, grader=skill.grader, grader_digest=skill.grader_digest,
        split=task.split, source=source, evidence=evidence, pass_rate=pass_rate,
    )  # fmt: skip


def export_rlvr(directory: Path, tasks: Sequence[ExportTask]) -> dict[str, tuple[int, int]]:
    """Write all four below ``directory``; the directories written, with their rows (train, validation)."""
    if any(one.split == "test" for one in tasks):
        raise ValueError("a task of the test split must not be exported")
    train = [one for one in tasks if one.split == "train"]
    val = [one for one in tasks if one.split == "val"]
    written = {export_open_instruct(directory, train, val).name: (len(train), len(val))}
    for skill in sorted({one.task.skill for one in tasks}):
        own = [[one for one in part if one.task.skill == skill] for part in (train, val)]
        export_openai(directory / "openai" / skill, *own)
        written[f"openai/{skill}"] = (len(own[0]), len(own[1]))
    for name, export in (("trl", export_trl), ("verl", export_verl)):
        export(directory / name, train, val)
        written[name] = (len(train), len(val))
    return written


def export_open_instruct(directory: Path, train: Sequence[ExportTask], val: Sequence[ExportTask]) -> Path:
    """Write the rows for Open-Instruct alone; returns the directory below ``directory`` that has their digest."""
    import pyarrow as pa

    text = pa.string()
    schema = pa.schema(
        [
            ("messages", pa.list_(pa.struct([("role", text), ("content", text)]))), ("ground_truth", text),
            ("dataset", text), ("task_id", text), ("skill", text), ("source", text), ("evidence", text),
            ("pass_rate", pa.float64()),
        ]
    )  # fmt: skip

    def rows(part: Iterable[ExportTask]) -> list[dict[str, Any]]:
        return [
            {"messages": one.messages, "ground_truth": one.label, "dataset": VERIFIER}
            | one.about
            | {"pass_rate": one.pass_rate}
            for one in part
        ]

    parts = {"train": rows(train), "test": rows(val)}
    name = f"open-instruct-{digest(parts)[:DIGEST_LENGTH]}"
    for split, part in parts.items():
        _parquet(directory / name / f"{split}.parquet", part, schema)
    return directory / name


def export_openai(directory: Path, train: Sequence[ExportTask], val: Sequence[ExportTask]) -> None:
    """Write the rows of one skill, with group and split (an import must not draw them anew), and its grader."""
    for split, part in (("train", train), ("validation", val)):
        drawn = [{"group": one.task.group, "split": one.task.split} for one in part]
        rows = ({"messages": one.messages, **one.task.item, **d} for one, d in zip(part, drawn, strict=True))
        _jsonl(directory / f"{split}.jsonl", rows)
    write_json(directory / "grader.json", dict((*train, *val)[0].grader))


def export_trl(directory: Path, train: Sequence[ExportTask], val: Sequence[ExportTask]) -> None:
    """Write the rows for TRL: ``prompt`` is a chat, ``label`` is what the grader server wants to know."""
    for split, part in (("train", train), ("validation", val)):
        answers = [{"reference": one.task.reference, "label": one.label} for one in part]
        rows = ({"prompt": one.messages} | own | one.about for one, own in zip(part, answers, strict=True))
        _jsonl(directory / f"{split}.jsonl", rows)


def export_verl(directory: Path, train: Sequence[ExportTask], val: Sequence[ExportTask]) -> None:
    """Write the rows for verl: ``reward_model.ground_truth`` is what the grader server wants to know."""
    import pyarrow as pa

    text = pa.string()
    texts = ("split", "task_id", "skill", "source", "evidence")
    about = pa.struct([*((key, text) for key in texts), ("index", pa.int64())])
    schema = pa.schema(
        [
            ("data_source", text), ("prompt", pa.list_(pa.struct([("role", text), ("content", text)]))),
            ("ability", text), ("reward_model", pa.struct([("style", text), ("ground_truth", text)])),
            ("extra_info", about),
        ]
    )  # fmt: skip
    for split, part in (("train", train), ("validation", val)):
        rows = [
            {
                "data_source": VERIFIER,
                "prompt": one.messages,
                "ability": one.task.skill,
                "reward_model": {"style": "rule", "ground_truth": one.label},
                "extra_info": {"split": split, "index": index} | one.about,
            }
            for index, one in enumerate(part)
        ]
        _parquet(directory / f"{split}.parquet", rows, schema)


def _parquet(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), buffer)
    write_atomic(path, buffer.getvalue())


def _jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
