"""The prompt sets for other trainers, read back as those trainers read them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rft_ilab.synth.exports import ExportTask, export_rlvr
from rft_ilab.types import Message, Split, Task
from tests.unit.taxonomies import LABEL_GRADER


def exported(name: str, split: Split, skill: str = "area/skill", **item: Any) -> ExportTask:
    prompt = (Message("system", "Answer."), Message("user", name))
    fields = {"reference": "4", "when": "2024-01-01", "group": "g"} | item
    task = Task(
        id=name.ljust(64, "0"), skill=skill, messages=prompt, reference="4", item=fields, group="g", split=split
    )
    return ExportTask(
        task=task, prompt=prompt, grader=LABEL_GRADER, grader_digest="d" * 64, split=split, source="authored",
        evidence="authored", pass_rate=None if split == "val" else 0.5,
    )  # fmt: skip


TASKS = [exported(f"q{i}", "train") for i in range(5)] + [exported("v", "val"), exported("o", "train", "area/other")]


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_open_instruct_reads_texts_and_nothing_is_inferred(tmp_path: Path) -> None:
    written = export_rlvr(tmp_path, TASKS)
    (name,) = [name for name in written if name.startswith("open-instruct-")]
    assert written[name] == (6, 1)
    table = pq.read_table(tmp_path / name / "train.parquet")
    assert {str(table.schema.field(n).type) for n in ("ground_truth", "dataset", "task_id")} == {"string"}
    rows = table.to_pylist()
    assert rows[0]["messages"] == [{"role": "system", "content": "Answer."}, {"role": "user", "content": "q0"}]
    assert {row["dataset"] for row in rows} == {"rft_ilab"}
    label = json.loads(rows[0]["ground_truth"])
    assert label == {
        "skill": "area/skill",
        "grader_digest": "d" * 64,
        "item": {"reference": "4", "when": "2024-01-01", "group": "g"},
    }
    assert pq.read_table(tmp_path / name / "test.parquet").to_pylist()[0]["task_id"].startswith("v")


def test_the_name_follows_the_content(tmp_path: Path) -> None:
    def name(tasks: Sequence[ExportTask]) -> str:
        return next(iter(export_rlvr(tmp_path, tasks)))

    assert name(TASKS) == name(TASKS)
    assert len({name(TASKS), name(TASKS[1:]), name([exported("q0", "train", reference="5"), *TASKS[1:]])}) == 3


def test_every_format_holds_every_task(tmp_path: Path) -> None:
    written = export_rlvr(tmp_path, TASKS)
    assert {name: rows for name, rows in written.items() if not name.startswith("open-instruct")} == {
        "openai/area/other": (1, 0), "openai/area/skill": (5, 1), "trl": (6, 1), "verl": (6, 1),
    }  # fmt: skip
    openai = lines(tmp_path / "openai/area/skill/train.jsonl")
    assert openai[0]["messages"][-1]["role"] == "user" and openai[0]["reference"] == "4"
    assert json.loads((tmp_path / "openai/area/skill/grader.json").read_text()) == LABEL_GRADER
    trl = lines(tmp_path / "trl/train.jsonl")
    assert [row["prompt"][-1]["content"] for row in trl] == [*(f"q{i}" for i in range(5)), "o"]
    assert json.loads(trl[0]["label"])["item"]["reference"] == "4"
    verl = pq.read_table(tmp_path / "verl/train.parquet").to_pylist()
    assert [row["extra_info"]["index"] for row in verl] == list(range(6))
    assert verl[0]["reward_model"]["ground_truth"] == trl[0]["label"]


def test_bytes_are_the_same_again(tmp_path: Path) -> None:
    export_rlvr(tmp_path / "a", TASKS)
    export_rlvr(tmp_path / "b", TASKS)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 12
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


def test_no_row_of_a_test_split_leaves(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="test split"):
        export_rlvr(tmp_path, [exported("t", "test")])


def test_nothing_with_signal_is_an_empty_set_that_can_be_read(tmp_path: Path) -> None:
    written = export_rlvr(tmp_path, [])
    assert all(rows == (0, 0) for rows in written.values())
    assert pq.read_table(tmp_path / "verl/train.parquet").num_rows == 0
