"""What candidates answered to the target's validation tasks: one file a candidate, ``rl/validation/NAME@SCALE.jsonl``.

Every one is written when the candidate is scored; attribution and the comparison with control runs read them later.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rft_ilab.rollouts import Graded
from rft_ilab.store import read_jsonl, write_atomic

DIRECTORY = "validation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A greedy answer with its grade; ``passed`` is None where the grader failed."""

    skill: str
    task_id: str
    group: str
    completion: str
    passed: bool | None

    @classmethod
    def of(cls, graded: Graded) -> Answer:
        task = graded.task
        completion, passed = graded.rollout.completion, graded.grade.passed
        return cls(skill=task.skill, task_id=task.id, group=task.group, completion=completion, passed=passed)

    def as_dict(self) -> dict[str, Any]:
        return {
            "skill": self.skill,
            "task_id": self.task_id,
            "group": self.group,
            "completion": self.completion,
            "passed": self.passed,
        }


def answers_path(log: Path, label: str) -> Path:
    """``label`` is a candidate's name and scale, e.g. ``step-10@0.75``."""
    return log / DIRECTORY / f"{label}.jsonl"


def save_answers(log: Path, label: str, answers: Sequence[Graded]) -> None:
    rows = (json.dumps(Answer.of(graded).as_dict(), ensure_ascii=False) + "\n" for graded in answers)
    write_atomic(answers_path(log, label), "".join(rows))


def load_answers(log: Path, label: str) -> Mapping[str, Answer]:
    """By task id; empty if there is no such file."""
    return {row["task_id"]: Answer(**row) for row in read_jsonl(answers_path(log, label))}
