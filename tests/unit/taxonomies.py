"""A small taxonomy on disk, for tests to break one thing at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rft_ilab.skills.style import grader_text
from rft_ilab.types import Rollout, Skill, Task

LABELS = ("YES", "NO", "MAYBE")
LABEL_GRADER = {
    "type": "label",
    "name": "answer",
    "input": "{{sample.output_text}}",
    "reference": "{{item.reference}}",
    "labels": list(LABELS),
}
QNA = """version: 3
created_by: tests
task_description: Answer YES, NO or MAYBE.
seed_examples:
""" + "".join(f"  - question: Seed question {i}?\n    answer: '{LABELS[i % 3]}'\n" for i in range(6))


def row(prompt: str, reference: Any, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": prompt}], "reference": reference, **fields}


def plain_rows() -> list[dict[str, Any]]:
    """300 tasks of three classes, with 20 test tasks each."""
    splits = ["train"] * 7 + ["val"] + ["test"] * 2
    return [row(f"Question {i}?", LABELS[i % 3], split=splits[i % 10]) for i in range(300)]


def write_skill(
    taxonomy: Path,
    name: str = "area/skill",
    *,
    grader: Any = LABEL_GRADER,
    rows: Sequence[Any] | None = None,
    qna: str = QNA,
) -> Path:
    """Write a leaf; rows that are texts are written as they are. Returns the leaf's directory."""
    leaf = taxonomy / "compositional_skills" / name
    leaf.mkdir(parents=True, exist_ok=True)
    if rows is None:
        rows = plain_rows()
    lines = [line if isinstance(line, str) else json.dumps(line) for line in rows]
    (leaf / "tasks.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    (leaf / "grader.json").write_text(grader if isinstance(grader, str) else grader_text(grader), encoding="utf-8")
    (leaf / "qna.yaml").write_text(qna, encoding="utf-8")
    (leaf / "attribution.txt").write_text("Title of work: tests\n", encoding="utf-8")
    return leaf


def make_skill(grader: Mapping[str, Any]) -> Skill:
    """A skill that is on no disk."""
    return Skill(
        name="area/skill", directory=Path("leaf"), description="d", seeds=(), grader=grader, grader_digest="g" * 64
    )


def make_task(item: Mapping[str, Any], id: str = "t") -> Task:
    return Task(id=id, skill="area/skill", messages=(), reference="", item=item, group="g", split="train")


def make_rollout(completion: str, id: str = "t", index: int = 0) -> Rollout:
    return Rollout(task_id=id, index=index, policy_id="p", completion=completion, stop="eos")
